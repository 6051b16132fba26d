"""The resolver on real sockets, asked by a real `dig`: recorded before answered, bounded, over UDP and TCP."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from authz import resolver as resolvers
from authz.resolver import Resolver
from hopgate.audit.errors import SpoolError
from hopgate.identity.names import ObjectName
from hopgate.manifests import snapshots
from hopgate.snapshot import Snapshot

PLANNER = ObjectName("demo", "planner")


@dataclass
class Sockets:
    datagram: list[socket.socket] = field(default_factory=list)
    listening: list[socket.socket] = field(default_factory=list)

    def close(self) -> None:
        for held in (*self.datagram, *self.listening):
            held.close()


@dataclass
class Asked:
    """A resolver that is served, and what it recorded. `broken` keeps records from being written; `now` is its clock."""

    snapshot: Snapshot
    names: list[tuple[str, str, str, str]] = field(default_factory=list)
    broken: bool = False
    now: float = 0.0
    port: int = 0

    def record(self, agent: ObjectName, name: str, kind: str, answer: str, transport: str, /) -> None:
        assert agent == PLANNER
        if self.broken:
            raise SpoolError("no room")
        self.names.append((name, kind, answer, transport))

    async def dig(self, *arguments: str) -> str:
        command = ("dig", "@127.0.0.1", "-p", str(self.port), "+time=2", "+tries=1", *arguments)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        return (await process.communicate())[0].decode()


@pytest.fixture
async def asked() -> AsyncIterator[tuple[Asked, Resolver]]:
    snapshot = snapshots.load(Path(__file__).parent.parent / "world", previous=None, now=int(time.time()))
    state = Asked(snapshot)
    resolver = Resolver(lambda: state.snapshot.registry, agent=PLANNER, record=state.record, clock=lambda: state.now)
    datagram, listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.create_server(("127.0.0.1", 0))
    state.port = listening.getsockname()[1]
    datagram.bind(("127.0.0.1", state.port))
    listening.settimeout(0)
    await resolver.start(Sockets([datagram], [listening]))
    yield state, resolver
    await resolver.stop()


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
async def test_a_registered_name_is_answered_and_recorded(asked: tuple[Asked, Resolver], transport: str) -> None:
    state, resolver = asked
    printed = await state.dig("+short", "tickets.demo.svc", *(["+tcp"] if transport == "TCP" else []))
    assert printed.strip() == state.snapshot.registry.by_host["tickets.demo.svc"].address
    assert state.names == [("tickets.demo.svc", "A", "Answered", transport)]
    assert resolver.counters["answered"] == 1


async def test_another_name_does_not_exist_and_is_recorded(asked: tuple[Asked, Resolver]) -> None:
    state, _ = asked
    assert "status: NXDOMAIN" in await state.dig("c2VjcmV0.evil.example")
    assert state.names == [("c2vjcmv0.evil.example", "A", "NxDomain", "UDP")]


async def test_what_can_not_be_recorded_is_not_answered(asked: tuple[Asked, Resolver]) -> None:
    state, resolver = asked
    state.broken = True
    assert "status: SERVFAIL" in await state.dig("tickets.demo.svc")
    assert resolver.counters["unrecorded"] == 1
    state.broken = False
    assert "status: NOERROR" in await state.dig("tickets.demo.svc")


async def test_asking_too_often_is_refused_until_time_has_passed(asked: tuple[Asked, Resolver]) -> None:
    state, resolver = asked
    question = dns.message.make_query("tickets.demo.svc", "A").to_wire()
    codes = [dns.message.from_wire(resolver.answer(question, "UDP") or b"").rcode() for _ in range(resolvers.BURST + 1)]
    assert set(codes[:-1]) == {dns.rcode.NOERROR}
    assert codes[-1] == dns.rcode.REFUSED
    state.now += 1.0
    assert dns.message.from_wire(resolver.answer(question, "UDP") or b"").rcode() == dns.rcode.NOERROR


async def test_what_is_no_question_is_counted(asked: tuple[Asked, Resolver]) -> None:
    state, resolver = asked
    assert resolver.answer(b"\x00", "UDP") is None
    assert resolver.counters["malformed"] == 1
    assert state.names == []


async def test_a_connection_that_announces_too_much_is_closed_and_others_are_served(asked: tuple[Asked, Resolver]) -> None:
    state, _ = asked
    reader, writer = await asyncio.open_connection("127.0.0.1", state.port)
    writer.write((60_000).to_bytes(2))
    assert await reader.read() == b""
    writer.close()
    assert "status: NOERROR" in await state.dig("tickets.demo.svc", "+tcp")
