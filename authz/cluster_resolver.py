"""The resolver of a cluster: the only DNS that governed pods have, over UDP and TCP, for all of them at one address.

Who asks is the agent of the pod that has the asking address; what it is told, how often, and what is recorded is that agent's own
`Resolver`. An address that is no governed pod's is refused and counted. The address of a datagram can be forged where the network lets it
pass: that can use up another's allowance and put a name into its record, and gets no answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final, cast

from authz import dns_message, resolver
from authz.dns_message import Answer, DnsError
from authz.resolver import Record, Resolver
from hopgate.identity.names import ObjectName
from hopgate.resources.registry import Registry

# Programs that ask over TCP keep a connection for seconds; 5,000 pods don't do so at once.
MAX_CONNECTIONS: Final = 1024
_MAPPED: Final = "::ffff:"  # RFC 4291 section 2.5.5.2: how a socket of both families shows an IPv4 address


class ClusterResolver:
    """Answers from `start` to `stop`. `agent_at` gives the agent of the pod at an address, None where there is none."""

    def __init__(
        self,
        registry: Callable[[], Registry],
        *,
        agent_at: Callable[[str], ObjectName | None],
        record: Record,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._agent_at = agent_at
        self._record = record
        self._clock = clock
        self._agents: dict[ObjectName, Resolver] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._conversations: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self.unknown = 0

    @property
    def counters(self) -> dict[str, int]:
        """What all agents' questions came to, and those of nobody."""
        total = {"unknown": self.unknown}
        for found in self._agents.values():
            for name, count in found.counters.items():
                total[name] = total.get(name, 0) + count
        return total

    async def start(self, ip: str, port: int) -> int:
        """Serve at this address, both transports at one port (0: any). Gives the port. Raises OSError."""
        self._server = await asyncio.start_server(self._converse, ip, port, limit=dns_message.MAX_QUESTION_BYTES + 2)
        bound: int = self._server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self.answer), local_addr=(ip, bound))
        except OSError:
            await self.stop()
            raise
        return bound

    async def stop(self) -> None:
        """Serve no longer, open connections neither. Does nothing before `start`."""
        if self._transport is not None:
            self._transport.close()
        if self._server is not None:
            self._server.close()
        ending = [task for task in self._conversations.values() if task is not None]
        for writer in self._conversations:
            writer.transport.abort()
        if ending:
            await asyncio.wait(ending)

    def answer(self, data: bytes, ip: str, transport: str) -> bytes | None:
        """The reply to a message from an address; None for what gets none."""
        agent = self._agent_at(ip.removeprefix(_MAPPED))
        if agent is None:
            self.unknown += 1
            return _refuse(data)
        return self._of(agent).answer(data, transport)

    def _of(self, agent: ObjectName) -> Resolver:
        found = self._agents.get(agent)
        if found is None:
            registered = self._registry().agents
            self._agents = {name: kept for name, kept in self._agents.items() if name in registered}
            found = self._agents[agent] = Resolver(self._registry, agent=agent, record=self._record, clock=self._clock)
        return found

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ip = str(writer.get_extra_info("peername")[0])
        self._conversations[writer] = asyncio.current_task()
        try:
            await resolver.converse(
                reader,
                writer,
                lambda data: None if data is None else self.answer(data, ip, "TCP"),
                lambda: len(self._conversations) <= MAX_CONNECTIONS,
            )
        finally:
            del self._conversations[writer]


class _Datagrams(asyncio.DatagramProtocol):
    """Hands datagrams on, and replies back."""

    def __init__(self, answer: Callable[[bytes, str, str], bytes | None]) -> None:
        self._answer = answer
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # which the loop's own class does not say before Python 3.13

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self._answer(data, addr[0], "UDP")
        if reply is not None and self._transport is not None:
            with contextlib.suppress(OSError):  # the asker is gone
                self._transport.sendto(reply, addr)


def _refuse(data: bytes) -> bytes | None:
    try:
        return dns_message.reply(dns_message.parse(data), Answer.REFUSED, None)
    except DnsError as error:
        return error.reply
