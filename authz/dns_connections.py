"""DNS over TCP (RFC 7766): connections on which one asks again and again, bounded in number for each agent and in time."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from authz import dns_message
from authz.dns_allowance import Allowance
from authz.dns_questions import Questions
from hopgate.identity.names import ObjectName

MAX_CONNECTIONS: Final = 32
IDLE_SECONDS: Final = 10.0


class Connections:
    """Serves from `start` to `stop`. `whose` says which agent an address belongs to; a connection of none is closed."""

    def __init__(
        self, questions: Questions, whose: Callable[[str], ObjectName | None], allowance: Callable[[ObjectName], Allowance]
    ) -> None:
        self._questions = questions
        self._whose = whose
        self._allowance = allowance
        self._servers: list[asyncio.Server] = []
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._by_agent: Counter[ObjectName] = Counter()

    async def start(self, listening: Sequence[socket.socket]) -> None:
        """Serve on these sockets, which are the caller's to close."""
        for each in listening:
            self._servers.append(await asyncio.start_server(self._converse, sock=each, limit=dns_message.MAX_QUESTION_BYTES + 2))

    async def stop(self) -> None:
        """Serve no longer, open connections neither."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        ending = [task for task in self._open.values() if task is not None]
        for writer in self._open:
            writer.transport.abort()
        if ending:
            await asyncio.wait(ending)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        agent = self._whose(peer[0]) if peer else None  # None: gone already
        if agent is None:
            self._questions.counters["unknown"] += 1
            writer.transport.abort()
            return
        self._open[writer] = asyncio.current_task()
        self._by_agent[agent] += 1
        try:
            if self._by_agent[agent] <= MAX_CONNECTIONS:
                await self._answer(agent, reader, writer)
        except TimeoutError:
            writer.transport.abort()  # `close` would wait for the asker to read what is left
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            del self._open[writer]
            self._by_agent -= Counter({agent: 1})
            writer.close()

    async def _answer(self, agent: ObjectName, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Questions one after another, each with its length before it."""
        while True:
            async with asyncio.timeout(IDLE_SECONDS):
                length = int.from_bytes(await reader.readexactly(2))
                if length > dns_message.MAX_QUESTION_BYTES:
                    self._questions.counters["malformed"] += 1
                    return
                data = await reader.readexactly(length)
            while pause := self._allowance(agent).take():  # noqa: ASYNC110 - time alone gives more
                await asyncio.sleep(pause)
            reply = self._questions.answer(agent, data, "TCP")
            if reply is None:
                return
            async with asyncio.timeout(IDLE_SECONDS):
                writer.write(len(reply).to_bytes(2) + reply)
                await writer.drain()  # within the time too: an asker that reads nothing would keep its place for ever
