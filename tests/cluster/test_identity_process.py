"""Whole authz processes on a real API server: who is let in and for how long, keys among several, and an end that loses no check."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from kubernetes.client import CoordinationV1Api, V1Namespace, V1ObjectMeta
from prometheus_client.parser import text_string_to_metric_families

import hopgate
from authz import server
from authz.cluster_process import ClusterProcess, Settings
from authz.pb import ext_authz_pb2 as pb
from authz.request import CheckInput
from hopgate.identity.names import ObjectName
from hopgate.kubernetes import authz_state
from hopgate.kubernetes.keys import PodReference
from hopgate.manifests import snapshots
from hopgate.resources.kinds import DialAddress
from hopgate.snapshot import Snapshot, Upstreams
from tests.authz import requests
from tests.authz.certificates import HOST, Mounted
from tests.authz.requests import http, message, tool_call
from tests.authz.test_check import encoded
from tests.authz.test_server_tls import Front
from tests.cluster.api_feeds import Feeds
from tests.cluster.api_server import ApiServer
from tests.cluster.test_identity import AUDIENCE, ISSUER, Place, PodName, as_json, signing_flags, write_signing_key

DEADLINE_SECONDS = 30.0
SYSTEM = "hopgate"
# How long a workload may still be let in after its pod or its Agent is gone.
LATEST_SECONDS = 5.0


async def until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():  # noqa: ASYNC110 - another process has no event to wait for
                await asyncio.sleep(0.01)  # between two looks at the condition
    except TimeoutError:
        raise TimeoutError(f"waited until {what}") from None


@dataclass(frozen=True, slots=True)
class World:
    """An API server with the namespaces `demo` and `hopgate`, and what authz processes are started with."""

    server: ApiServer
    demo: Place
    system: Place
    mounted: Mounted
    snapshot: Snapshot
    folder: Path

    @asynccontextmanager
    async def process(self, name: str, *, where: AbstractContextManager[None] | None = None, **changes: Any) -> AsyncIterator[Process]:
        """A process that runs as the pod `name`, told of the world's resources; it listens `where` (default: here)."""
        pod = await asyncio.to_thread(self.system.pod, name, "authz")
        feeds = Feeds(self.server)
        settings = Settings(
            pod=PodReference(namespace=SYSTEM, name=pod.name, uid=pod.uid),
            service_account="authz",
            issuer=ISSUER,
            audience=AUDIENCE,
            listen="127.0.0.1:0",
            health="127.0.0.1:0",
            resolver="127.0.0.1:0",
            metrics="127.0.0.1:0",
            certificate=self.mounted.certificate,
            private_key=self.mounted.private_key,
            spool=self.folder / name,
            connection_seconds=0.5,
            notice_seconds=0.05,
            settle_seconds=0.1,
        )
        with where or nullcontext():
            running = ClusterProcess(replace(settings, **changes), feeds, resolve=nowhere)
        feeds.tell(self.snapshot)
        task = asyncio.create_task(running.run())
        try:
            yield Process(running, feeds, task, pod)
        finally:
            running.end()
            await task
            feeds.client.close()

    def channel(self, port: int) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(self.mounted.authority.certificate_pem)
        return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=(("grpc.ssl_target_name_override", HOST),))


@dataclass(frozen=True, slots=True)
class Process:
    """A running process."""

    running: ClusterProcess
    feeds: Feeds
    task: asyncio.Task[None]
    pod: PodName

    async def ready(self) -> None:
        await until(lambda: self.running.ready or self.task.done(), "the process is ready")
        assert self.running.ready


async def nowhere(host: str) -> tuple[str, ...]:
    raise OSError(f"no look-up of {host} in a test")


@pytest.fixture(scope="module")
def server_of_module(cluster_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One API server for these tests, with the namespaces that the resources and the processes are in."""
    with ApiServer(cluster_binaries, tmp_path_factory.mktemp("cluster") / "server") as running:
        for name, accounts in (("demo", ("planner", "researcher")), (SYSTEM, ("authz",))):
            place = Place(running, name)
            place.core.create_namespace(V1Namespace(metadata=V1ObjectMeta(name=name)))
            for account in accounts:
                place.account(account)
        yield running


@pytest.fixture
def world(server_of_module: ApiServer, tmp_path: Path) -> Iterator[World]:
    demo, system = Place(server_of_module, "demo"), Place(server_of_module, SYSTEM)
    snapshot = snapshots.load(Path(__file__).parent.parent / "world", previous=None, now=int(time.time()))
    gates = {ObjectName("demo", "researcher"): DialAddress(ip="10.96.0.7", port=8080)}
    snapshot = replace(snapshot, upstreams=Upstreams(gates=gates))
    yield World(server_of_module, demo, system, Mounted(tmp_path / "tls"), snapshot, tmp_path)
    for place in (demo, system):
        place.core.delete_collection_namespaced_pod(place.namespace)
    CoordinationV1Api(server_of_module.client()).delete_collection_namespaced_lease(SYSTEM)


def call_tool(snapshot: Snapshot) -> bytes:
    return encoded(requests.outbound(snapshot, http(host="tickets.demo.svc:9000", path="/mcp", body=tool_call("search", {"limit": 10}))))


async def ask(channel: grpc.aio.Channel, request: bytes, token: str | None, direction: str = "outbound") -> pb.CheckResponse:
    metadata = [("x-hopgate-direction", direction)]
    if token is not None:
        metadata.append(("authorization", f"Bearer {token}"))
    answer = await channel.unary_unary(server.METHOD)(request, timeout=DEADLINE_SECONDS, metadata=metadata)
    return pb.CheckResponse.FromString(answer)


def is_allowed(answer: pb.CheckResponse) -> bool:
    return answer.status.code == 0


def reason(answer: pb.CheckResponse) -> str:
    return str(answer.denied_response.body)


async def test_a_pod_is_let_in_by_its_token_and_no_longer_than_it_exists(world: World) -> None:
    pod = await asyncio.to_thread(world.demo.pod, "planner-1")
    token = await asyncio.to_thread(world.demo.token, pod)
    request = call_tool(world.snapshot)
    async with world.process("authz-1") as process:
        await process.ready()
        async with world.channel(process.running.port) as channel:
            assert is_allowed(await ask(channel, request, token))
            assert "CredentialMissing" in reason(await ask(channel, request, None))
            other = await asyncio.to_thread(world.demo.token, pod, audience="other")
            assert "TokenAudience" in reason(await ask(channel, request, other))
            await asyncio.to_thread(world.demo.core.delete_namespaced_pod, "planner-1", "demo")
            gone = time.monotonic()
            while is_allowed(answer := await ask(channel, request, token)):
                assert time.monotonic() - gone < LATEST_SECONDS
            assert "PodUnknown" in reason(answer)
            again = await asyncio.to_thread(world.demo.pod, "planner-1")
            fresh = await asyncio.to_thread(world.demo.token, again)
            await until(lambda: again.uid in (process.running.state.pods.index or again).by_uid, "the new pod is seen")  # type: ignore[union-attr]  # an index by now
            assert is_allowed(await ask(channel, request, fresh))
        assert process.running.checker.counters.allowed_on_failure == 0


async def test_an_agent_that_is_removed_is_refused_by_the_next_check(world: World) -> None:
    pod = await asyncio.to_thread(world.demo.pod, "planner-1")
    token = await asyncio.to_thread(world.demo.token, pod)
    request = call_tool(world.snapshot)
    async with world.process("authz-1") as process:
        await process.ready()
        async with world.channel(process.running.port) as channel:
            assert is_allowed(await ask(channel, request, token))
            registry = world.snapshot.registry
            agents = {name: agent for name, agent in registry.agents.items() if name.name != "planner"}
            process.feeds.tell(replace(world.snapshot, registry=replace(registry, agents=agents)))
            gone = time.monotonic()
            while is_allowed(answer := await ask(channel, request, token)):
                assert time.monotonic() - gone < LATEST_SECONDS
            assert "AgentUnknown" in reason(answer)
            process.feeds.tell(world.snapshot)
            while not is_allowed(await ask(channel, request, token)):
                assert time.monotonic() - gone < DEADLINE_SECONDS


async def test_is_not_ready_before_it_knows_all_that_checks_need(world: World) -> None:
    async with world.process("authz-1") as process:
        state = process.running.state
        assert "the pods" in state.missing
        assert not process.running.ready
        await process.ready()
        assert state.missing == ()


async def test_answers_on_while_the_api_server_is_away_and_follows_it_when_it_is_back(world: World) -> None:
    pod = await asyncio.to_thread(world.demo.pod, "planner-1")
    token = await asyncio.to_thread(world.demo.token, pod)
    request = call_tool(world.snapshot)
    async with world.process("authz-1") as process:
        await process.ready()
        async with world.channel(process.running.port) as channel:
            world.server.kill()
            for _ in range(20):
                assert is_allowed(await ask(channel, request, token))
            await asyncio.to_thread(world.server.start)
            assert is_allowed(await ask(channel, request, token))
            await asyncio.to_thread(world.demo.core.delete_namespaced_pod, "planner-1", "demo")
            gone = time.monotonic()
            while is_allowed(await ask(channel, request, token)):
                assert time.monotonic() - gone < LATEST_SECONDS


async def test_a_key_that_the_server_begins_to_sign_with_is_known_within_seconds(world: World, tmp_path: Path) -> None:
    pod = await asyncio.to_thread(world.demo.pod, "planner-1")
    before = await asyncio.to_thread(world.demo.token, pod)
    request = call_tool(world.snapshot)
    write_signing_key(tmp_path / "next", ec.generate_private_key(ec.SECP256R1()))
    try:
        async with world.process("authz-1") as process:
            await process.ready()
            async with world.channel(process.running.port) as channel:
                assert is_allowed(await ask(channel, request, before))
                await asyncio.to_thread(world.server.restart, signing_flags(tmp_path / "next", tmp_path / "next"))
                token = await asyncio.to_thread(world.demo.token, pod)
                assert "TokenKeyUnknown" in reason(await ask(channel, request, token))
                asked = time.monotonic()
                while not is_allowed(await ask(channel, request, token)):
                    assert time.monotonic() - asked < LATEST_SECONDS
                assert is_allowed(await ask(channel, request, before))
    finally:
        await asyncio.to_thread(world.server.restart, ())


def at_receiver(sent: CheckInput, answer: pb.CheckResponse) -> bytes:
    """The request as the receiving gate sees it, with the hop token that the sending gate was given."""
    assert sent.http is not None
    headers = tuple((option.header.key, option.header.value) for option in answer.ok_response.headers)
    return encoded(replace(sent, http=replace(sent.http, headers=(*sent.http.headers, *headers))))


async def test_a_hop_token_of_one_process_is_taken_by_another_once(world: World) -> None:
    planner = await asyncio.to_thread(world.demo.pod, "planner-1")
    researcher = await asyncio.to_thread(world.demo.pod, "researcher-1", "researcher")
    planner_token = await asyncio.to_thread(world.demo.token, planner)
    researcher_token = await asyncio.to_thread(world.demo.token, researcher, account="researcher")
    sent = requests.outbound(world.snapshot, http(host="researcher.demo.svc:8080", body=message()))
    async with world.process("authz-1") as first, world.process("authz-2") as second:
        await first.ready()
        await second.ready()
        await until(lambda: keys_of(first) == keys_of(second), "each knows the other's keys")
        async with world.channel(first.running.port) as to_first, world.channel(second.running.port) as to_second:
            answer = await ask(to_first, encoded(sent), planner_token)
            assert is_allowed(answer)
            received = at_receiver(sent, answer)
            assert is_allowed(await ask(to_second, received, researcher_token, "inbound"))
            assert "HopTokenReplayed" in reason(await ask(to_second, received, researcher_token, "inbound"))
            # What the memory of one process can't know: see docs/explanation/identity.md, "Once, by each process".
            assert is_allowed(await ask(to_first, received, researcher_token, "inbound"))


def keys_of(process: Process) -> set[str]:
    return set(process.running.keys.public_keys(int(time.time())))


async def test_keys_go_with_their_pod(world: World) -> None:
    async with world.process("authz-2") as second:
        await second.ready()
        async with world.process("authz-1") as first:
            await first.ready()
            await until(lambda: keys_of(first) == keys_of(second), "each knows the other's keys")
            counted = len(second.running.state.published())
        leases = CoordinationV1Api(world.server.client())
        assert as_json(leases.read_namespaced_lease("hopgate-keys-authz-1", SYSTEM, _preload_content=False))
        await asyncio.to_thread(world.system.core.delete_namespaced_pod, "authz-1", SYSTEM)
        # No garbage collector runs here: the Lease stays, and counts no more.
        await until(lambda: len(second.running.state.published()) == counted - 1, "the keys of the pod that is gone don't count")
        ends = {key.valid_until for key in second.running.keys.public_keys(int(time.time())).values()}
        assert min(ends) <= time.time() + 90


async def test_a_lease_that_somebody_deletes_is_written_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.cluster_process.PUBLISH_SECONDS", 0.1)
    async with world.process("authz-1") as process:
        await process.ready()
        leases = CoordinationV1Api(world.server.client())
        before = as_json(leases.read_namespaced_lease("hopgate-keys-authz-1", SYSTEM, _preload_content=False))["metadata"]["uid"]
        await asyncio.to_thread(leases.delete_namespaced_lease, "hopgate-keys-authz-1", SYSTEM)

        def written_again() -> bool:
            shown = process.running.state.leases.objects or {}
            return bool(shown.get("hopgate-keys-authz-1", {"metadata": {"uid": before}})["metadata"]["uid"] != before)

        await until(written_again, "the keys are published again")


async def test_a_process_says_in_its_lease_how_it_stands(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.cluster_process.PUBLISH_SECONDS", 0.1)
    pod = await asyncio.to_thread(world.demo.pod, "planner-1")
    token = await asyncio.to_thread(world.demo.token, pod)
    leases = CoordinationV1Api(world.server.client())
    began = int(time.time())

    def annotations() -> dict[str, str]:
        lease = as_json(leases.read_namespaced_lease("hopgate-keys-authz-1", SYSTEM, _preload_content=False))
        return dict(lease["metadata"]["annotations"])

    async with world.process("authz-1") as process:
        await process.ready()
        assert authz_state.read_last_seen(annotations()) == {}
        async with world.channel(process.running.port) as channel:
            assert is_allowed(await ask(channel, call_tool(world.snapshot), token))
            assert not is_allowed(await ask(channel, call_tool(world.snapshot), None))
        while (state := authz_state.read(await asyncio.to_thread(annotations))) is None or state.denied == 0:
            assert time.time() - began < DEADLINE_SECONDS
        last_seen = authz_state.read_last_seen(annotations())
    assert (state.version, state.allowed, state.denied, state.failed_open) == (hopgate.__version__, 1, 1, 0)
    assert state.snapshot_at == world.snapshot.loaded_at
    assert began <= min(state.started_at, state.key_made_at)
    assert state.certificate_ends_at > time.time()
    assert set(state.watches) == {"Pod", "Lease"}
    assert all(at is not None and began <= at <= time.time() for at in state.watches.values())
    assert set(last_seen) == {ObjectName("demo", "planner")}
    assert began <= last_seen[ObjectName("demo", "planner")] <= time.time()


async def test_a_process_tells_prometheus_how_it_stands(world: World) -> None:
    pod = await asyncio.to_thread(world.demo.pod, "planner-1")
    token = await asyncio.to_thread(world.demo.token, pod)
    async with world.process("authz-1") as process:
        await process.ready()
        async with world.channel(process.running.port) as channel:
            assert is_allowed(await ask(channel, call_tool(world.snapshot), token))
            assert not is_allowed(await ask(channel, call_tool(world.snapshot), None))
        told = await scrape(process.running.metrics_port)
    assert told["hopgate_authz_decisions_total", "Permitted"] == told["hopgate_authz_decisions_total", "UnknownCaller"] == 1
    assert told["hopgate_authz_decisions_total", "NoPermit"] == told["hopgate_authz_failed_open_total", ""] == 0
    assert told["hopgate_authz_decision_seconds_count", ""] == 2
    assert told["hopgate_authz_workload_tokens_total", "verified"] == 1
    assert told["hopgate_authz_workload_tokens_refused_total", "CredentialMissing"] == 1
    assert told["hopgate_authz_ready", ""] == told["hopgate_authz_processes", ""] == 1
    assert told["hopgate_authz_pods", ""] >= 2
    assert told["hopgate_authz_agents", ""] == len(world.snapshot.registry.agents)
    assert told["hopgate_authz_watch_age_seconds", "Pod"] < DEADLINE_SECONDS
    assert told["hopgate_authz_certificate_not_after_seconds", ""] > time.time()
    assert told["hopgate_authz_spool_bytes_total", ""] == sum(file.stat().st_size for file in (world.folder / "authz-1").rglob("*.jsonl"))
    assert told["process_resident_memory_bytes", ""] > 0
    labels = {label for _, label in told}
    assert not any("planner" in label or "tickets" in label for label in labels)


async def scrape(port: int) -> dict[tuple[str, str], float]:
    """What `/metrics` says, by name and the value of the label that sorts first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: authz\r\n\r\n")
    head, _, body = (await asyncio.wait_for(reader.read(), DEADLINE_SECONDS)).partition(b"\r\n\r\n")
    writer.close()
    assert b"200 OK" in head
    samples = (sample for family in text_string_to_metric_families(body.decode()) for sample in family.samples)
    return {(each.name, next(iter(sorted(each.labels.items())), ("", ""))[1]): each.value for each in samples}


async def test_a_process_that_ends_under_load_loses_no_check(world: World) -> None:
    pod = await asyncio.to_thread(world.demo.pod, "planner-1")
    token = await asyncio.to_thread(world.demo.token, pod)
    request = call_tool(world.snapshot)
    outcomes: Counter[str] = Counter()
    async with world.process("authz-1") as first, world.process("authz-2") as second:
        await first.ready()
        await second.ready()
        front = Front({first.running.port: lambda: first.running.ready, second.running.port: lambda: second.running.ready})
        loading = True

        async with world.channel(await front.start()) as channel:

            async def load() -> None:
                while loading:
                    try:
                        outcomes["allowed" if is_allowed(await ask(channel, request, token)) else "denied"] += 1
                    except grpc.aio.AioRpcError as error:
                        outcomes[f"{error.code().name} {error.details()}"] += 1

            tasks = [asyncio.create_task(load()) for _ in range(8)]
            await until(lambda: outcomes.total() >= 100, "checks were answered")
            first.running.end()
            await first.task
            answered = outcomes.total()
            await until(lambda: outcomes.total() >= answered + 100, "the other process answers")
            loading = False
            await asyncio.gather(*tasks)
        await front.stop()
    assert set(outcomes) == {"allowed"}
    assert front.led[second.running.port] > 0
