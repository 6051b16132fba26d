"""One resolver for all pods: each is answered and recorded as its own agent, and who is nobody's pod is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from authz import resolver as resolvers
from authz.cluster_resolver import ClusterResolver
from hopgate.identity.names import ObjectName
from hopgate.manifests import snapshots
from hopgate.snapshot import Snapshot

QUESTION = dns.message.make_query("tickets.demo.svc", "A").to_wire()
PLANNER, RESEARCHER = ObjectName("demo", "planner"), ObjectName("demo", "researcher")
TCP, UDP = "TCP", "UDP"


@dataclass
class Asked:
    """What was recorded, and who is where."""

    snapshot: Snapshot
    agents: dict[str, ObjectName] = field(default_factory=lambda: {"10.0.0.1": PLANNER, "10.0.0.2": RESEARCHER})
    names: list[tuple[ObjectName, str, str]] = field(default_factory=list)

    def record(self, agent: ObjectName, name: str, kind: str, answer: str, transport: str, /) -> None:
        self.names.append((agent, answer, transport))


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return snapshots.load(Path(__file__).parent.parent / "world", previous=None, now=int(time.time()))


@pytest.fixture
def asked(snapshot: Snapshot) -> Asked:
    return Asked(snapshot)


@pytest.fixture
async def resolver(asked: Asked) -> AsyncIterator[ClusterResolver]:
    made = ClusterResolver(lambda: asked.snapshot.registry, agent_at=asked.agents.get, record=asked.record, clock=lambda: 0.0)
    yield made
    await made.stop()


def code(reply: bytes | None) -> dns.rcode.Rcode:
    assert reply is not None
    return dns.message.from_wire(reply).rcode()


async def test_each_pod_is_answered_and_recorded_as_its_agent(resolver: ClusterResolver, asked: Asked) -> None:
    for ip in ("10.0.0.1", "::ffff:10.0.0.2"):
        assert code(resolver.answer(QUESTION, ip, UDP)) == dns.rcode.NOERROR
    assert asked.names == [(PLANNER, "Answered", UDP), (RESEARCHER, "Answered", UDP)]


async def test_an_address_that_is_no_governed_pods_is_refused_and_counted(resolver: ClusterResolver, asked: Asked) -> None:
    assert code(resolver.answer(QUESTION, "10.0.0.9", UDP)) == dns.rcode.REFUSED
    assert (asked.names, resolver.counters["unknown"]) == ([], 1)
    asked.agents["10.0.0.9"] = PLANNER
    assert code(resolver.answer(QUESTION, "10.0.0.9", UDP)) == dns.rcode.NOERROR
    assert resolver.answer(b"x", "10.0.0.8", UDP) is None


async def test_one_agents_questions_use_up_nobody_elses_allowance(resolver: ClusterResolver) -> None:
    for _ in range(resolvers.BURST):
        assert code(resolver.answer(QUESTION, "10.0.0.1", UDP)) == dns.rcode.NOERROR
    assert code(resolver.answer(QUESTION, "10.0.0.1", UDP)) == dns.rcode.REFUSED
    assert code(resolver.answer(QUESTION, "10.0.0.2", UDP)) == dns.rcode.NOERROR


async def test_answers_over_both_transports_at_one_port_until_it_stops(resolver: ClusterResolver, asked: Asked) -> None:
    asked.agents["127.0.0.1"] = PLANNER
    port = await resolver.start("127.0.0.1", 0)
    for more in ([], ["+tcp"]):
        command = ("dig", "@127.0.0.1", "-p", str(port), "+short", "+time=5", "+tries=1", "tickets.demo.svc", *more)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        printed = (await process.communicate())[0].decode().strip()
        assert printed == asked.snapshot.registry.by_host["tickets.demo.svc"].address
    assert asked.names == [(PLANNER, "Answered", UDP), (PLANNER, "Answered", TCP)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(len(QUESTION).to_bytes(2) + QUESTION)
    assert int.from_bytes(await reader.readexactly(2)) > len(QUESTION)
    await resolver.stop()
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await reader.readexactly(65536)
    writer.close()
    with pytest.raises(OSError, match=r".*"):
        await asyncio.open_connection("127.0.0.1", port)
