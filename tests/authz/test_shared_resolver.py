"""The resolver that many agents share: each is known by its address, bounded by itself, and a stranger is told nothing."""

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

from authz import dns_allowance, dns_connections, dns_sockets
from authz.shared_resolver import SharedResolver
from hopgate.identity.names import ObjectName
from hopgate.manifests import snapshots
from hopgate.resources.registry import Registry

QUESTION = dns.message.make_query("tickets.demo.svc", "A").to_wire()
PLANNER, RESEARCHER, GHOST = (ObjectName("demo", name) for name in ("planner", "researcher", "ghost"))
AGENTS = {"127.0.0.1": PLANNER, "127.0.0.2": RESEARCHER, "127.0.0.3": GHOST, "::1": RESEARCHER}
TRANSPORTS = pytest.mark.parametrize("transport", ["UDP", "TCP"])


@dataclass
class Shared:
    """A served resolver, what it recorded, and its clock."""

    registry: Registry
    agents: dict[str, ObjectName]
    port: int = 0
    now: float = 0.0
    names: list[tuple[ObjectName, str, str, str]] = field(default_factory=list)

    def record(self, agent: ObjectName, name: str, kind: str, answer: str, transport: str, /) -> None:
        self.names.append((agent, name, answer, transport))

    async def ask(self, source: str, transport: str, seconds: float = 10) -> int | None:
        """The reply's code; None: the resolver closed, or said nothing in time."""
        loop = asyncio.get_running_loop()
        kind = socket.SOCK_STREAM if transport == "TCP" else socket.SOCK_DGRAM
        with socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, kind) as asker:
            asker.setblocking(False)
            asker.bind((source, 0))
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(seconds):
                    await loop.sock_connect(asker, ("::1" if ":" in source else "127.0.0.1", self.port))
                    await loop.sock_sendall(asker, (len(QUESTION).to_bytes(2) if transport == "TCP" else b"") + QUESTION)
                    reply = await loop.sock_recv(asker, 4096)
                    if reply:
                        return dns.message.from_wire(reply[2:] if transport == "TCP" else reply).rcode()
        return None


@pytest.fixture
async def shared(repository: Path) -> AsyncIterator[tuple[Shared, SharedResolver]]:
    registry = snapshots.load(repository / "tests" / "world", previous=None, now=int(time.time())).registry
    state = Shared(registry, dict(AGENTS))
    resolver = SharedResolver(lambda: state.registry, whose=state.agents.get, record=state.record, clock=lambda: state.now)
    sockets = dns_sockets.open_at("::", 0)
    state.port = sockets.port
    await resolver.start(sockets)
    yield state, resolver
    await resolver.stop()


@TRANSPORTS
async def test_each_agent_is_known_by_its_address(shared: tuple[Shared, SharedResolver], transport: str) -> None:
    state, resolver = shared
    for source in ("127.0.0.1", "127.0.0.2", "::1"):
        assert await state.ask(source, transport) == dns.rcode.NOERROR
    assert state.names == [(agent, "tickets.demo.svc", "Answered", transport) for agent in (PLANNER, RESEARCHER, RESEARCHER)]
    assert resolver.counters["answered"] == 3


@TRANSPORTS
@pytest.mark.parametrize("source", ["127.0.0.9", "127.0.0.3"], ids=["nobody's address", "an agent that is not registered"])
async def test_a_stranger_is_told_nothing_and_counted(shared: tuple[Shared, SharedResolver], source: str, transport: str) -> None:
    state, resolver = shared
    assert await state.ask(source, transport, 0.3) is None
    assert (state.names, resolver.counters["unknown"]) == ([], 1)
    state.agents[source] = PLANNER
    assert await state.ask(source, transport) == dns.rcode.NOERROR


async def test_one_agents_flood_is_dropped_counted_and_nobody_elses(
    shared: tuple[Shared, SharedResolver], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, resolver = shared
    monkeypatch.setattr(dns_allowance, "BURST", 3)
    for _ in range(3):
        assert await state.ask("127.0.0.1", "UDP") == dns.rcode.NOERROR
    assert await state.ask("127.0.0.1", "UDP", 0.3) is None
    assert resolver.counters["dropped"] == 1
    assert await state.ask("127.0.0.2", "UDP") == dns.rcode.NOERROR
    state.now += 1.0
    assert await state.ask("127.0.0.1", "UDP") == dns.rcode.NOERROR
    assert len(state.names) == 5


async def test_one_agents_connections_leave_room_for_anothers(
    shared: tuple[Shared, SharedResolver], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, _ = shared
    monkeypatch.setattr(dns_connections, "MAX_CONNECTIONS", 2)
    held = [await asyncio.open_connection("127.0.0.1", state.port, local_addr=("127.0.0.1", 0)) for _ in range(2)]
    for reader, writer in held:
        writer.write(len(QUESTION).to_bytes(2) + QUESTION)
        assert await reader.readexactly(2)
    assert await state.ask("127.0.0.1", "TCP") is None
    assert await state.ask("127.0.0.2", "TCP") == dns.rcode.NOERROR
    for _, writer in held:
        writer.close()
    async with asyncio.timeout(10):
        while await state.ask("127.0.0.1", "TCP") != dns.rcode.NOERROR:
            """The resolver has not seen the others end yet."""


def test_where_there_is_no_ipv6_every_address_is_that_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    sockets = dns_sockets.open_at("::", 0)
    assert {held.getsockname()[0] for held in (*sockets.datagram, *sockets.listening)} == {"0.0.0.0"}  # noqa: S104 - what was bound is looked at
    sockets.close()


def test_an_address_in_use_leaves_no_socket_open() -> None:
    held = dns_sockets.open_at("127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        dns_sockets.open_at("127.0.0.1", held.port)
    held.close()
    dns_sockets.open_at("127.0.0.1", held_port(held)).close()


def held_port(closed: dns_sockets.AddressSockets) -> int:
    assert all(each.fileno() == -1 for each in (*closed.datagram, *closed.listening))
    return 0
