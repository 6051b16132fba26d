"""The resolver: the only DNS an agent has, over UDP and TCP, on sockets that were opened inside the agent's namespace.

Every name asked for is recorded before it is answered, also one that is refused for being asked too often; what can't be recorded is
not answered. What is no question is refused and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
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
QUESTIONS_PER_SECOND: Final = 200
BURST: Final = 1000
MAX_CONNECTIONS: Final = 32
IDLE_SECONDS: Final = 10.0
_RECEIVE_BYTES: Final = 4096


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


class Resolver:
    """Answers one agent's questions from `start` to `stop`. `counters` is for a person to read."""

    def __init__(
        self, registry: Callable[[], Registry], *, agent: ObjectName, record: Record, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._registry = registry
        self._agent = agent
        self._record = record
        self._clock = clock
        self._allowance = float(BURST)
        self._allowed_at = clock()
        self._sockets: Sockets | None = None
        self._servers: list[asyncio.Server] = []
        self._conversations: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self.counters = {"answered": 0, "no_data": 0, "nx_domain": 0, "refused": 0, "malformed": 0, "unrecorded": 0}

    async def start(self, sockets: Sockets) -> None:
        """Serve on these sockets, which are this object's to close."""
        self._sockets = sockets
        loop = asyncio.get_running_loop()
        for datagram in sockets.datagram:
            datagram.settimeout(0)
            loop.add_reader(datagram, self._receive, datagram)
        for listening in sockets.listening:
            self._servers.append(await asyncio.start_server(self._converse, sock=listening, limit=dns_message.MAX_QUESTION_BYTES + 2))

    async def stop(self) -> None:
        """Serve no longer, open connections neither. Does nothing before `start`."""
        if self._sockets is None:
            return
        loop = asyncio.get_running_loop()
        for datagram in self._sockets.datagram:
            loop.remove_reader(datagram)
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
        answer, address = dns_message.decide(question, self._registry()) if self._may_ask() else (Answer.REFUSED, None)
        try:
            self._record(self._agent, question.name, question.type, answer.value, transport)
        except AuditError as error:
            self.counters["unrecorded"] += 1
            _log.error("a name could not be recorded and was not answered: %s", error)
            return dns_message.failure(question)
        self.counters[_COUNTED[answer]] += 1
        return dns_message.reply(question, answer, address)

    def _may_ask(self) -> bool:
        """A bucket of questions that fills again by the second."""
        now = self._clock()
        self._allowance = min(float(BURST), self._allowance + (now - self._allowed_at) * QUESTIONS_PER_SECOND)
        self._allowed_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def _receive(self, datagram: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the asker is gone, or the namespace is
            data, asker = datagram.recvfrom(_RECEIVE_BYTES)
            reply = self.answer(data, "UDP")
            if reply is not None:
                datagram.sendto(reply, asker)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection's questions."""
        self._conversations[writer] = asyncio.current_task()
        try:
            await converse(reader, writer, self._answer_stream, lambda: len(self._conversations) <= MAX_CONNECTIONS)
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
    goes_on: Callable[[], bool],
) -> None:
    """Questions one after another, each with its length before it (RFC 7766), and the connection's end.

    `answer` gets None for a message that is too long to be read; without a reply the connection ends.
    """
    try:
        while goes_on():
            async with asyncio.timeout(IDLE_SECONDS):
                length = int.from_bytes(await reader.readexactly(2))
                long = length > dns_message.MAX_QUESTION_BYTES
                reply = answer(None if long else await reader.readexactly(length))
                if reply is None:
                    return
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
    Answer.REFUSED: "refused",
}
