"""The resolver on real sockets, asked by a real `dig`: recorded before answered, bounded, over UDP and TCP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from authz import dns_allowance, dns_connections, dns_message
from authz.dns_message import Answer, Question
from authz.dns_questions import Questions
from authz.resolver import Resolver
from hopgate.audit.errors import SpoolError
from hopgate.identity.names import ObjectName
from hopgate.manifests import snapshots
from hopgate.snapshot import Snapshot

QUESTION = dns.message.make_query("tickets.demo.svc", "A").to_wire()
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
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # what replies fill soon when nobody reads them
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


@pytest.mark.parametrize("kind", ["AAAA", "TXT", "HTTPS", "MX"])
async def test_another_type_of_a_registered_name_has_no_data_and_is_recorded(asked: tuple[Asked, Resolver], kind: str) -> None:
    state, resolver = asked
    printed = await state.dig("tickets.demo.svc", kind)
    assert "status: NOERROR" in printed
    assert "ANSWER: 0, AUTHORITY: 1" in printed
    assert state.names == [("tickets.demo.svc", kind, "NoData", "UDP")]
    assert resolver.counters["no_data"] == 1


async def test_a_question_is_recorded_before_it_is_answered(asked: tuple[Asked, Resolver], monkeypatch: pytest.MonkeyPatch) -> None:
    state, _ = asked
    recorded_at_reply: list[int] = []
    reply = dns_message.reply

    def watched(question: Question, answer: Answer, address: str | None) -> bytes:
        recorded_at_reply.append(len(state.names))
        return reply(question, answer, address)

    monkeypatch.setattr(dns_message, "reply", watched)
    await state.dig("tickets.demo.svc")
    assert recorded_at_reply == [1]


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


def test_an_allowance_is_used_up_and_comes_back_by_the_second() -> None:
    now = 0.0
    allowance = dns_allowance.Allowance(lambda: now)
    assert {allowance.take() for _ in range(dns_allowance.BURST)} == {0.0}
    pause = allowance.take()
    assert 0 < pause <= 1 / dns_allowance.MESSAGES_PER_SECOND
    now += pause
    assert (allowance.take(), allowance.take() > 0) == (0.0, True)
    now += 3600
    assert {allowance.take() for _ in range(dns_allowance.BURST)} == {0.0}
    assert allowance.take() > 0


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
async def test_beyond_its_allowance_an_asker_waits_and_no_name_goes_unrecorded(
    asked: tuple[Asked, Resolver], monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    state, resolver = asked
    allowance = dns_allowance.Allowance(lambda: state.now)
    monkeypatch.setattr(resolver, "_allowance", allowance)
    while not allowance.take():
        pass
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if transport == "TCP" else socket.SOCK_DGRAM) as asker:
        asker.connect(("127.0.0.1", state.port))
        asker.setblocking(False)
        asker.send(framed(QUESTION) if transport == "TCP" else QUESTION)
        reply = asyncio.create_task(asyncio.get_running_loop().sock_recv(asker, 4096))
        await asyncio.wait({reply}, timeout=0.1)
        assert (reply.done(), state.names) == (False, [])
        state.now += 1.0
        async with asyncio.timeout(10):
            assert await reply
    assert [transport for *_, transport in state.names] == [transport]


async def test_what_the_kernel_drops_of_a_flood_is_counted(asked: tuple[Asked, Resolver], monkeypatch: pytest.MonkeyPatch) -> None:
    state, resolver = asked
    allowance = dns_allowance.Allowance(lambda: state.now)
    monkeypatch.setattr(resolver, "_allowance", allowance)
    while not allowance.take():
        pass
    sent = 5_000
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.connect(("127.0.0.1", state.port))
        for _ in range(sent):
            asker.send(QUESTION)
        async with asyncio.timeout(30):
            while len(state.names) + resolver.counters["dropped"] < sent:
                state.now += 1.0
                await asyncio.sleep(0.01)  # between two looks at the condition
                asker.send(QUESTION)  # the count comes with a message that is kept after those that were not
    assert resolver.counters["dropped"] > 0


async def test_what_is_no_question_is_counted(asked: tuple[Asked, Resolver]) -> None:
    state, _ = asked
    questions = Questions(lambda: state.snapshot.registry, state.record)
    assert questions.answer(PLANNER, b"\x00", "UDP") is None
    assert questions.counters["malformed"] == 1
    assert state.names == []


async def test_a_datagram_too_large_is_refused_with_its_identifier(asked: tuple[Asked, Resolver]) -> None:
    state, resolver = asked
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.setblocking(False)
        asker.connect(("127.0.0.1", state.port))
        for padding, code in ((0, dns.rcode.NOERROR), (600, dns.rcode.FORMERR), (6000, dns.rcode.FORMERR)):
            await loop.sock_sendall(asker, QUESTION + bytes(padding))
            async with asyncio.timeout(10):
                reply = await loop.sock_recv(asker, 4096)
            assert reply[:2] == QUESTION[:2]
            assert reply[3] & 0xF == code
    assert resolver.counters["malformed"] == 2


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(2) + data


async def read_reply(reader: asyncio.StreamReader) -> dns.message.Message:
    return dns.message.from_wire(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))


async def test_a_connection_may_ask_again_and_one_that_asks_nothing_is_closed(asked: tuple[Asked, Resolver]) -> None:
    state, _ = asked
    reader, writer = await asyncio.open_connection("127.0.0.1", state.port)
    writer.write(framed(QUESTION) * 2 + framed(b"\x00"))
    async with asyncio.timeout(10):
        for _ in range(2):
            assert (await read_reply(reader)).rcode() == dns.rcode.NOERROR
        assert await reader.read() == b""
    writer.close()
    assert [transport for *_, transport in state.names] == ["TCP", "TCP"]


@pytest.mark.parametrize("sent", [b"", b"\x00", framed(b"x" * 40)[:-1]], ids=["nothing", "half a length", "half a question"])
async def test_an_idle_connection_is_closed(asked: tuple[Asked, Resolver], monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    state, _ = asked
    monkeypatch.setattr(dns_connections, "IDLE_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", state.port)
    writer.write(sent)
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()


async def test_an_asker_that_reads_no_replies_is_closed(asked: tuple[Asked, Resolver], monkeypatch: pytest.MonkeyPatch) -> None:
    state, resolver = asked
    monkeypatch.setattr(dns_connections, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(dns_allowance, "BURST", 10**9)
    monkeypatch.setattr(resolver, "_allowance", dns_allowance.Allowance(lambda: 0.0))
    loop = asyncio.get_running_loop()
    with socket.socket() as asker:
        asker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asker.setblocking(False)
        await loop.sock_connect(asker, ("127.0.0.1", state.port))
        async with asyncio.timeout(60):
            with pytest.raises(ConnectionError):
                await loop.sock_sendall(asker, framed(QUESTION) * 1_000_000)  # more than all buffers on the way
    assert "status: NOERROR" in await state.dig("tickets.demo.svc", "+tcp")


async def test_connections_beyond_the_limit_are_closed_and_there_is_room_when_one_ends(asked: tuple[Asked, Resolver]) -> None:
    state, _ = asked
    held = [await asyncio.open_connection("127.0.0.1", state.port) for _ in range(dns_connections.MAX_CONNECTIONS)]
    for reader, writer in held:
        writer.write(framed(QUESTION))
        assert (await read_reply(reader)).rcode() == dns.rcode.NOERROR
    reader, writer = await asyncio.open_connection("127.0.0.1", state.port)
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()
    assert "status: NOERROR" in await state.dig("tickets.demo.svc")
    for _, writer in held:
        writer.close()
    async with asyncio.timeout(10):
        while "status: NOERROR" not in await state.dig("tickets.demo.svc", "+tcp"):
            """The resolver has not seen the others end yet."""


async def test_a_connection_that_announces_too_much_is_closed_and_others_are_served(asked: tuple[Asked, Resolver]) -> None:
    state, _ = asked
    reader, writer = await asyncio.open_connection("127.0.0.1", state.port)
    writer.write((60_000).to_bytes(2))
    assert await reader.read() == b""
    writer.close()
    assert "status: NOERROR" in await state.dig("tickets.demo.svc", "+tcp")


async def test_a_resolver_that_has_stopped_answers_no_connection_that_is_still_open(asked: tuple[Asked, Resolver]) -> None:
    state, resolver = asked
    reader, writer = await asyncio.open_connection("127.0.0.1", state.port)
    writer.write(framed(QUESTION))
    assert (await read_reply(reader)).rcode() == dns.rcode.NOERROR
    await resolver.stop()
    with contextlib.suppress(ConnectionError):
        writer.write(framed(QUESTION))
        async with asyncio.timeout(10):
            assert await reader.read() == b""
    writer.close()
    assert len(state.names) == 1
    await resolver.stop()
