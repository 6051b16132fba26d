"""The resolver of one agent: the only DNS it has, over UDP and TCP, on sockets that were opened inside the agent's namespace.

Every name asked for is recorded before it is answered; what can't be recorded is not answered. What is no question is refused and
counted. An asker that floods is read no faster than the record may grow: what waits is the kernel's to keep or, counted, to drop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from authz.dns_allowance import Allowance
from authz.dns_connections import Connections
from authz.dns_datagrams import Datagrams
from authz.dns_questions import Questions, Record
from hopgate.identity.names import ObjectName
from hopgate.resources.registry import Registry


class Sockets(Protocol):
    """Sockets bound inside the namespace: datagram ones, and ones that listen. `close` closes them all."""

    @property
    def datagram(self) -> Sequence[socket.socket]:
        """UDP, one for each family."""

    @property
    def listening(self) -> Sequence[socket.socket]:
        """TCP, one for each family."""

    def close(self) -> None:
        """Close them all."""


class Resolver:
    """Answers one agent's questions from `start` to `stop`. `counters` is for a person to read."""

    def __init__(
        self, registry: Callable[[], Registry], *, agent: ObjectName, record: Record, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._agent = agent
        self._questions = Questions(registry, record)
        self._allowance = Allowance(clock)
        self._connections = Connections(self._questions, lambda _: agent, lambda _: self._allowance)
        self._paused: dict[socket.socket, asyncio.TimerHandle] = {}
        self._datagrams = Datagrams()
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
            self._listen(datagram)
        await self._connections.start(sockets.listening)

    async def stop(self) -> None:
        """Serve no longer, open connections neither. Does nothing before `start`."""
        if self._sockets is None:
            return
        loop = asyncio.get_running_loop()
        for datagram in self._sockets.datagram:
            loop.remove_reader(datagram)
        for paused in self._paused.values():
            paused.cancel()
        await self._connections.stop()
        self._sockets.close()
        self._sockets = None

    def _listen(self, datagram: socket.socket) -> None:
        self._paused.pop(datagram, None)
        asyncio.get_running_loop().add_reader(datagram, self._receive, datagram)

    def _receive(self, datagram: socket.socket) -> None:
        pause = self._allowance.take()
        if pause:
            loop = asyncio.get_running_loop()
            loop.remove_reader(datagram)
            self._paused[datagram] = loop.call_later(pause, self._listen, datagram)
            return
        with contextlib.suppress(OSError):  # the asker is gone, or the namespace is
            data, asker = self._datagrams.receive(datagram)
            self._questions.counters["dropped"] = self._datagrams.dropped
            reply = self._questions.answer(self._agent, data, "UDP")
            if reply is not None:
                datagram.sendto(reply, asker)
