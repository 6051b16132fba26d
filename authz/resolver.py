"""The resolver: the only DNS an agent has, over UDP and TCP, on sockets that were opened inside the agent's namespace.

Every name asked for is recorded before it is answered; what can't be recorded is not answered. What is no question is refused and
counted. An asker that floods is read no faster than the record may grow: what waits is the kernel's to keep or, counted, to drop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from authz import dns_message
from authz.dns_message import Answer, DnsError
from hopgate.audit.errors import AuditError
from hopgate.identity.names import ObjectName
from hopgate.resources.registry import Registry

_log = logging.getLogger(__name__)

# Programs ask tens of questions at their start and few later; a thousand in a second is no program's work.
MESSAGES_PER_SECOND: Final = 200
BURST: Final = 1000
MAX_CONNECTIONS: Final = 32
IDLE_SECONDS: Final = 10.0
_RECEIVE_BYTES: Final = 4096
# asm-generic/socket.h: each message tells how many the socket has dropped so far, as 32 bits.
_SO_RXQ_OVFL: Final = 40


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


class Record(Protocol):
    """Writes one question down, or raises AuditError."""

    def __call__(self, agent: ObjectName, name: str, kind: str, answer: str, transport: str, /) -> None:
        """`answer` is one of `dns_message.Answer`; `transport` is `UDP` or `TCP`."""


class Allowance:
    """A bucket of messages that fills again by the second; `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left = float(BURST)
        self._at = clock()

    def take(self) -> float:
        """Take one and give 0; where there is none, give the seconds until there is."""
        now = self._clock()
        self._left = min(float(BURST), self._left + (now - self._at) * MESSAGES_PER_SECOND)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / MESSAGES_PER_SECOND
        self._left -= 1
        return 0.0


class Resolver:
    """Answers one agent's questions from `start` to `stop`. `counters` is for a person to read."""

    def __init__(
        self, registry: Callable[[], Registry], *, agent: ObjectName, record: Record, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._registry = registry
        self._agent = agent
        self._record = record
        self._allowance = Allowance(clock)
        self._paused: dict[socket.socket, asyncio.TimerHandle] = {}
        self._dropped: dict[socket.socket, int] = {}
        self._sockets: Sockets | None = None
        self._servers: list[asyncio.Server] = []
        self._conversations: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self.counters = {"answered": 0, "no_data": 0, "nx_domain": 0, "malformed": 0, "unrecorded": 0, "dropped": 0}

    async def start(self, sockets: Sockets) -> None:
        """Serve on these sockets, which are this object's to close."""
        self._sockets = sockets
        for datagram in sockets.datagram:
            datagram.settimeout(0)
            datagram.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
            self._listen(datagram)
        for listening in sockets.listening:
            self._servers.append(await asyncio.start_server(self._converse, sock=listening, limit=dns_message.MAX_QUESTION_BYTES + 2))

    async def stop(self) -> None:
        """Serve no longer, open connections neither. Does nothing before `start`."""
        if self._sockets is None:
            return
        loop = asyncio.get_running_loop()
        for datagram in self._sockets.datagram:
            loop.remove_reader(datagram)
        for paused in self._paused.values():
            paused.cancel()
        for server in self._servers:
            server.close()
        self._sockets.close()
        self._sockets = None
        ending = [task for task in self._conversations.values() if task is not None]
        for writer in self._conversations:
            writer.transport.abort()
        if ending:
            await asyncio.wait(ending)

    def answer(self, data: bytes, transport: str) -> bytes | None:
        """The reply to a message, recorded; None for what gets none."""
        try:
            question = dns_message.parse(data)
        except DnsError as error:
            self.counters["malformed"] += 1
            return error.reply
        answer, address = dns_message.decide(question, self._registry())
        try:
            self._record(self._agent, question.name, question.type, answer.value, transport)
        except AuditError as error:
            self.counters["unrecorded"] += 1
            _log.error("a name could not be recorded and was not answered: %s", error)
            return dns_message.failure(question)
        self.counters[_COUNTED[answer]] += 1
        return dns_message.reply(question, answer, address)

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
            data, ancillary, _, asker = datagram.recvmsg(_RECEIVE_BYTES, socket.CMSG_SPACE(4))
            self._count_dropped(datagram, ancillary)
            reply = self.answer(data, "UDP")
            if reply is not None:
                datagram.sendto(reply, asker)

    def _count_dropped(self, datagram: socket.socket, ancillary: Sequence[tuple[int, int, bytes]]) -> None:
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SO_RXQ_OVFL):
                self._dropped[datagram] = int.from_bytes(value, sys.byteorder)
        self.counters["dropped"] = sum(self._dropped.values())

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection's questions."""
        self._conversations[writer] = asyncio.current_task()
        try:
            await converse(reader, writer, self._answer_stream, self._allowance, lambda: len(self._conversations) <= MAX_CONNECTIONS)
        finally:
            del self._conversations[writer]

    def _answer_stream(self, data: bytes | None) -> bytes | None:
        if data is None:
            self.counters["malformed"] += 1
            return None
        return self.answer(data, "TCP")


async def converse(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    answer: Callable[[bytes | None], bytes | None],
    allowance: Allowance,
    goes_on: Callable[[], bool],
) -> None:
    """Questions one after another, each with its length before it (RFC 7766), no faster than the allowance, and the connection's end.

    `answer` gets None for a message that is too long to be read; without a reply the connection ends.
    """
    try:
        while goes_on():
            async with asyncio.timeout(IDLE_SECONDS):
                length = int.from_bytes(await reader.readexactly(2))
                data = await reader.readexactly(length) if length <= dns_message.MAX_QUESTION_BYTES else None
            while pause := allowance.take():  # noqa: ASYNC110 - time alone gives more
                await asyncio.sleep(pause)
            reply = answer(data)
            if reply is None:
                return
            async with asyncio.timeout(IDLE_SECONDS):
                writer.write(len(reply).to_bytes(2) + reply)
                await writer.drain()  # within the time too: an asker that reads nothing would keep its place for ever
    except TimeoutError:
        writer.transport.abort()  # `close` would wait for the asker to read what is left
    except (OSError, asyncio.IncompleteReadError):
        return
    finally:
        writer.close()


_COUNTED: Final = {
    Answer.ANSWERED: "answered",
    Answer.NO_DATA: "no_data",
    Answer.NX_DOMAIN: "nx_domain",
}
