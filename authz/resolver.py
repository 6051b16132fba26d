"""The resolver of one agent: the only DNS it has, over UDP and TCP, on sockets that were opened inside the agent's namespace.

Every name asked for is recorded before it is answered; what can't be recorded is not answered. What is no question is refused and
counted. An asker that floods is read no faster than the record may grow: what waits is the kernel's to keep or, counted, to drop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from authz.dns_allowance import Allowance
from authz.dns_connections import Connections
from authz.dns_questions import Questions, Record
from hopgate.identity.names import ObjectName
from hopgate.resources.registry import Registry

RECEIVE_BYTES: Final = 4096
# asm-generic/socket.h: each message tells how many the socket has dropped so far, as 32 bits.
SO_RXQ_OVFL: Final = 40


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
        self._dropped: dict[socket.socket, int] = {}
        self._sockets: Sockets | None = None

    @property
    def counters(self) -> dict[str, int]:
        """How many messages ended how."""
        return self._questions.counters

    async def start(self, sockets: Sockets) -> None:
        """Serve on these sockets, which are this object's to close."""
        self._sockets = sockets
        for datagram in sockets.datagram:
            datagram.settimeout(0)
            datagram.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
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
            data, ancillary, _, asker = datagram.recvmsg(RECEIVE_BYTES, socket.CMSG_SPACE(4))
            self._count_dropped(datagram, ancillary)
            reply = self._questions.answer(self._agent, data, "UDP")
            if reply is not None:
                datagram.sendto(reply, asker)

    def _count_dropped(self, datagram: socket.socket, ancillary: Sequence[tuple[int, int, bytes]]) -> None:
        dropped = dropped_so_far(ancillary)
        if dropped is not None:
            self._dropped[datagram] = dropped
            self._questions.counters["dropped"] = sum(self._dropped.values())


def dropped_so_far(ancillary: Sequence[tuple[int, int, bytes]]) -> int | None:
    """What the kernel says beside a message of the messages that it could not keep on this socket; None: nothing yet."""
    for level, kind, value in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_RXQ_OVFL):
            return int.from_bytes(value, sys.byteorder)
    return None
