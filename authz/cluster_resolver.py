"""The resolver of a cluster: the only DNS that governed pods have, over UDP and TCP, for all of them at one address.

Who asks is the agent of the pod that has the asking address; what it is told and what is recorded is that agent's own `Resolver`.
A pod asks before the API server has told of its address: its question waits for that a little. What comes from no governed pod gets no
answer and is counted; so is what comes faster than an agent may ask.

The address of a datagram can be forged where the network lets it pass: that can use up another's allowance and put a name into its
record, and the answer goes to that other.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

from authz import dns_message, resolver
from authz.resolver import Allowance, Record, Resolver
from hopgate.identity.names import ObjectName
from hopgate.resources.registry import Registry

# Programs that ask over TCP keep a connection for seconds; 5,000 pods don't do so at once.
MAX_CONNECTIONS: Final = 1024
# The kubelet tells of a pod's address a second or two after the pod's first process; resolvers ask again after five.
WAIT_SECONDS: Final = 4.0
# A burst of new pods; questions beyond these that nobody is known for are not kept.
MAX_WAITING: Final = 256
_LOOK_SECONDS: Final = 0.1
_MAPPED: Final = "::ffff:"  # RFC 4291 section 2.5.5.2: how a socket of both families shows an IPv4 address


@dataclass(frozen=True, slots=True)
class _Asker:
    """An agent that asks."""

    resolver: Resolver
    allowance: Allowance


class ClusterResolver:
    """Answers from `start` to `stop`. `agent_at` gives the agent of the pod at an address, None where there is none."""

    def __init__(
        self,
        registry: Callable[[], Registry],
        *,
        agent_at: Callable[[str], ObjectName | None],
        record: Record,
        clock: Callable[[], float] = time.monotonic,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._registry = registry
        self._agent_at = agent_at
        self._record = record
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._askers: dict[ObjectName, _Asker] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._waiting = 0
        self.unknown = 0
        self.dropped = 0

    @property
    def counters(self) -> dict[str, int]:
        """What all agents' questions came to, those of nobody, and those that came too fast."""
        total = {"unknown": self.unknown}
        for found in self._askers.values():
            for name, count in found.resolver.counters.items():
                total[name] = total.get(name, 0) + count
        total["dropped"] = self.dropped
        return total

    async def start(self, ip: str, port: int) -> int:
        """Serve at this address, both transports at one port (0: any). Gives the port. Raises OSError."""
        self._server = await asyncio.start_server(self._converse, ip, port, limit=dns_message.MAX_QUESTION_BYTES + 2)
        bound: int = self._server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self.receive), local_addr=(ip, bound))
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
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def receive(self, data: bytes, ip: str, reply: Callable[[bytes], None]) -> None:
        """Answer a datagram from an address, now or when its pod is known."""
        agent = self._agent_at(ip.removeprefix(_MAPPED))
        if agent is not None:
            self._answer(data, agent, reply)
        else:
            task = asyncio.get_running_loop().create_task(self._answer_later(data, ip, reply))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer_later(self, data: bytes, ip: str, reply: Callable[[bytes], None]) -> None:
        agent = await self._wait_for(ip)
        if agent is not None:
            self._answer(data, agent, reply)

    def _answer(self, data: bytes, agent: ObjectName, reply: Callable[[bytes], None]) -> None:
        asker = self._asker(agent)
        if asker.allowance.take():
            self.dropped += 1
            return
        answer = asker.resolver.answer(data, "UDP")
        if answer is not None:
            reply(answer)

    async def _wait_for(self, ip: str) -> ObjectName | None:
        """The agent at an address, once it is known; None, counted, when it is not in time."""
        address, end = ip.removeprefix(_MAPPED), time.monotonic() + self._wait_seconds
        agent = self._agent_at(address)
        if agent is None and self._waiting < MAX_WAITING:
            self._waiting += 1
            try:
                while agent is None and time.monotonic() < end:
                    await asyncio.sleep(_LOOK_SECONDS)
                    agent = self._agent_at(address)
            finally:
                self._waiting -= 1
        self.unknown += agent is None
        return agent

    def _asker(self, agent: ObjectName) -> _Asker:
        found = self._askers.get(agent)
        if found is None:
            registered = self._registry().agents
            self._askers = {name: kept for name, kept in self._askers.items() if name in registered}
            made = Resolver(self._registry, agent=agent, record=self._record, clock=self._clock)
            found = self._askers[agent] = _Asker(made, Allowance(self._clock))
        return found

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            agent = await self._wait_for(str(writer.get_extra_info("peername")[0]))
            if agent is not None:
                asker = self._asker(agent)
                await resolver.converse(
                    reader,
                    writer,
                    lambda data: None if data is None else asker.resolver.answer(data, "TCP"),
                    asker.allowance,
                    lambda: len(self._writers) <= MAX_CONNECTIONS,
                )
        finally:
            self._writers.discard(writer)
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    """Hands datagrams on, and replies back."""

    def __init__(self, receive: Callable[[bytes, str, Callable[[bytes], None]], None]) -> None:
        self._receive = receive
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # which the loop's own class does not say before Python 3.13

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._receive(data, addr[0], lambda reply: self._send(reply, addr))

    def _send(self, reply: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            with contextlib.suppress(OSError):  # the asker is gone
                self._transport.sendto(reply, addr)
