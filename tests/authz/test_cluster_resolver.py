"""One resolver for all pods: each is answered and recorded as its own agent, and who is nobody's pod is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from authz import cluster_resolver
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
    made = ClusterResolver(
        lambda: asked.snapshot.registry, agent_at=asked.agents.get, record=asked.record, clock=lambda: 0.0, wait_seconds=0.3
    )
    yield made
    await made.stop()


def replies(resolver: ClusterResolver, ip: str, data: bytes = QUESTION) -> list[dns.rcode.Rcode]:
    """The codes of what came back; more may come later."""
    found: list[dns.rcode.Rcode] = []
    resolver.receive(data, ip, lambda reply: found.append(dns.message.from_wire(reply).rcode()))
    return found


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.01)


async def test_each_pod_is_answered_and_recorded_as_its_agent(resolver: ClusterResolver, asked: Asked) -> None:
    assert [replies(resolver, ip) for ip in ("10.0.0.1", "::ffff:10.0.0.2")] == [[dns.rcode.NOERROR]] * 2
    assert asked.names == [(PLANNER, "Answered", UDP), (RESEARCHER, "Answered", UDP)]


async def test_an_address_that_is_no_governed_pods_gets_no_answer_and_is_counted(resolver: ClusterResolver, asked: Asked) -> None:
    found = replies(resolver, "10.0.0.9")
    await until(lambda: resolver.counters["unknown"] == 1)
    assert (found, asked.names) == ([], [])


async def test_a_question_waits_until_its_pod_is_known(resolver: ClusterResolver, asked: Asked) -> None:
    found = replies(resolver, "10.0.0.9")
    assert found == []
    asked.agents["10.0.0.9"] = PLANNER
    await until(lambda: found)
    assert (found, asked.names, resolver.counters["unknown"]) == ([dns.rcode.NOERROR], [(PLANNER, "Answered", UDP)], 0)


async def test_not_more_questions_wait_than_are_kept(resolver: ClusterResolver) -> None:
    for _ in range(cluster_resolver.MAX_WAITING + 50):
        replies(resolver, "10.0.0.9")
    await until(lambda: resolver.counters["unknown"] == 50)
    await until(lambda: resolver.counters["unknown"] == cluster_resolver.MAX_WAITING + 50)


async def test_one_agents_questions_use_up_nobody_elses_allowance(resolver: ClusterResolver) -> None:
    for _ in range(resolvers.BURST):
        assert replies(resolver, "10.0.0.1")
    assert replies(resolver, "10.0.0.1") == []
    assert resolver.counters["dropped"] == 1
    assert replies(resolver, "10.0.0.2") == [dns.rcode.NOERROR]


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
