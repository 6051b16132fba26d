"""The resolver of many agents on one pair of sockets: whose a message is follows from the address that it came from.

As the resolver of one agent, but that a socket which all share can't wait for one of them: what an agent asks beyond its allowance
is dropped and counted, and who asks from an address of no agent is refused and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import time
from collections.abc import Callable
from typing import Final

from authz.dns_allowance import Allowance
from authz.dns_connections import Connections
from authz.dns_datagrams import Datagrams
from authz.dns_questions import Questions, Record
from authz.resolver import Sockets
from hopgate.identity.names import ObjectName
from hopgate.resources.registry import Registry

# Messages read in one turn of the loop, so that a flood of them leaves time for the checks between.
MESSAGES_PER_TURN: Final = 16


class SharedResolver:
    """Answers from `start` to `stop`. `whose` says which agent an IP address belongs to; None: none."""

    def __init__(
        self,
        registry: Callable[[], Registry],
        *,
        whose: Callable[[str], ObjectName | None],
        record: Record,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._whose = whose
        self._clock = clock
        self._questions = Questions(registry, record)
        self._allowances: dict[ObjectName, Allowance] = {}
        self._connections = Connections(self._questions, self._whose_plain, self._allowance)
        self._datagrams = Datagrams()
        self._dropped_here = 0
        self._sockets: Sockets | None = None

    @property
    def counters(self) -> dict[str, int]:
        """How many messages ended how."""
        return self._questions.counters

    async def start(self, sockets: Sockets) -> None:
        """Serve on these sockets, which are this object's to close."""
        self._sockets = sockets
        for datagram in sockets.datagram:
            self._datagrams.prepare(datagram)
            asyncio.get_running_loop().add_reader(datagram, self._receive, datagram)
        await self._connections.start(sockets.listening)

    async def stop(self) -> None:
        """Serve no longer, open connections neither. Does nothing before `start`."""
        if self._sockets is None:
            return
        for datagram in self._sockets.datagram:
            asyncio.get_running_loop().remove_reader(datagram)
        await self._connections.stop()
        self._sockets.close()
        self._sockets = None

    def _receive(self, datagram: socket.socket) -> None:
        with contextlib.suppress(OSError):  # nothing more to read, or the asker is gone
            for _ in range(MESSAGES_PER_TURN):
                data, asker = self._datagrams.receive(datagram)
                self._count_dropped()
                reply = self._reply(asker[0], data)
                if reply is not None:
                    datagram.sendto(reply, asker)

    def _reply(self, address: str, data: bytes) -> bytes | None:
        agent = self._whose_plain(address)
        if agent is None:
            self.counters["unknown"] += 1
            return None
        if self._allowance(agent).take():
            self._dropped_here += 1
            self._count_dropped()
            return None
        return self._questions.answer(agent, data, "UDP")

    def _count_dropped(self) -> None:
        self.counters["dropped"] = self._dropped_here + self._datagrams.dropped

    def _whose_plain(self, address: str) -> ObjectName | None:
        """An IPv4 address that came to an IPv6 socket is asked for as what it is; only a registered agent is an asker."""
        ip = ipaddress.ip_address(address.partition("%")[0])
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        agent = self._whose(str(mapped or ip))
        return agent if agent in self._registry().agents else None

    def _allowance(self, agent: ObjectName) -> Allowance:
        allowance = self._allowances.get(agent)
        if allowance is None:
            registered = self._registry().agents
            self._allowances = {name: kept for name, kept in self._allowances.items() if name in registered}
            allowance = self._allowances[agent] = Allowance(self._clock)
        return allowance
