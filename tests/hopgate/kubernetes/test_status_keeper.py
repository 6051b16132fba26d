"""What is to be written of all that was seen, and how a write that is refused ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from hopgate.kubernetes import status_keeper
from hopgate.kubernetes.agent_pods import RunningPods, running_as
from hopgate.kubernetes.announcements import Announcement
from hopgate.kubernetes.api import Body, Listing, Manifest, RefusedError, Stream, UnreachableError, WatchedKind
from hopgate.kubernetes.status_keeper import REFUSED_SECONDS, VOLATILE_SECONDS, Facts, StatusKeeper
from hopgate.kubernetes.status_store import StatusStore
from tests.hopgate.kubernetes import cluster_objects
from tests.hopgate.kubernetes.cluster_objects import manifest

NOW = 1_800_000_000.0


class Server:
    """Objects that are written as the version that was read, or refused."""

    def __init__(self, *manifests: dict[str, Any]) -> None:
        self.objects = {each["metadata"]["name"]: each for each in manifests}
        self.calls: list[str] = []
        self.error: Exception | None = None
        for each in manifests:
            each["metadata"].setdefault("resourceVersion", "1")

    def edit(self, name: str, status: dict[str, Any]) -> dict[str, Any]:
        found = self.objects[name]
        version = str(int(found["metadata"]["resourceVersion"]) + 1)
        merged = {key: value for key, value in {**found.get("status", {}), **status}.items() if value is not None}
        self.objects[name] = {**found, "metadata": {**found["metadata"], "resourceVersion": version}, "status": merged}
        return self.objects[name]

    def call(self, method: str, path: str, body: Body | None = None, *, content_type: str = "application/json") -> Manifest:
        self.calls.append(method)
        if self.error is not None:
            raise self.error
        name = path.removesuffix("/status").rpartition("/")[2]
        if name not in self.objects:
            raise RefusedError(404, "not found")
        if method == "GET":
            return self.objects[name]
        assert isinstance(body, dict)
        if body["metadata"]["resourceVersion"] != self.objects[name]["metadata"]["resourceVersion"]:
            raise RefusedError(409, "conflict")
        return self.edit(name, body["status"])

    def list(self, kind: WatchedKind) -> Listing:
        return Listing(items=tuple(each for each in self.objects.values() if each["kind"] == kind.kind), revision="9")

    def watch(self, kind: WatchedKind, revision: str) -> Stream:
        raise AssertionError("nothing is watched here")


class Keeping:
    """A keeper, what it told, whether it leads, and a clock to turn."""

    def __init__(self, *manifests: dict[str, Any]) -> None:
        self.server = Server(*manifests)
        self.built = cluster_objects.build(manifests)
        self.store = StatusStore(lambda: None)
        self.told: list[Announcement] = []
        self.leads = True
        self.now = 1000.0
        self.keeper = StatusKeeper(
            self.server, self.store, leads=lambda: self.leads, tell=self.told.append, clock=lambda: self.now, wall=lambda: NOW
        )
        self.keeper.prepare()

    def step(self, pods: int = 0) -> float | None:
        return self.keeper.step(self.built, {("demo", "planner"): pods}, {})

    def status(self, name: str = "planner") -> dict[str, Any]:
        return dict(self.server.objects[name].get("status") or {})


@pytest.fixture
def keeping() -> Iterator[Keeping]:
    found = Keeping(manifest("Agent", "planner", {}))
    yield found
    found.keeper.close()


def test_all_is_written_once_and_nothing_again(keeping: Keeping) -> None:
    assert keeping.step() is None
    assert keeping.status()["conditions"][0]["status"] == "True"
    assert keeping.step() is None
    assert keeping.server.calls == ["PATCH"]
    assert keeping.told == []


def test_who_does_not_lead_writes_nothing(keeping: Keeping) -> None:
    keeping.leads = False
    assert keeping.step() == VOLATILE_SECONDS
    assert keeping.server.calls == []


def test_a_conflict_is_tried_again_from_a_fresh_read(keeping: Keeping) -> None:
    keeping.server.edit("planner", {"pods": 7})
    keeping.step()
    assert keeping.server.calls == ["PATCH", "GET"]
    keeping.step()
    assert keeping.status()["pods"] == 0


def test_an_object_that_is_gone_is_left(keeping: Keeping) -> None:
    del keeping.server.objects["planner"]
    assert keeping.step() is None
    assert keeping.server.calls == ["PATCH"]


def test_a_server_that_is_away_is_tried_again_soon_and_a_refusal_later(keeping: Keeping) -> None:
    keeping.server.error = UnreachableError("nobody answers")
    assert keeping.step() == VOLATILE_SECONDS
    keeping.server.error = RefusedError(422, "not so")
    keeping.step()
    calls = len(keeping.server.calls)
    keeping.server.error = None
    assert keeping.step() == REFUSED_SECONDS
    assert len(keeping.server.calls) == calls
    keeping.now += REFUSED_SECONDS
    assert keeping.step() is None
    assert keeping.status()["pods"] == 0


def test_counts_of_pods_are_merged(keeping: Keeping) -> None:
    keeping.step()
    keeping.now += 0.5
    assert keeping.step(pods=3) == VOLATILE_SECONDS - 0.5
    assert keeping.status()["pods"] == 0
    keeping.now += VOLATILE_SECONDS
    keeping.step(pods=4)
    assert keeping.status()["pods"] == 4


def test_a_version_that_the_snapshot_has_not_seen_is_left_for_the_next(keeping: Keeping) -> None:
    keeping.store.put(manifest("Agent", "planner", {"owner": "team-a"}, generation=2, resourceVersion="5"))
    keeping.step()
    assert keeping.server.calls == []


def test_a_mistake_and_its_repair_are_told_once_each() -> None:
    wrong = manifest("Agent", "planner", {"service": {"name": "planner", "port": 8080}})
    keeping = Keeping(wrong)
    for _ in range(2):
        keeping.step()
    keeping.built = cluster_objects.build([wrong], services=[cluster_objects.service("planner")])
    for _ in range(2):
        keeping.step()
    assert [(each.reason, each.warning) for each in keeping.told] == [("MissingService", True), ("InForce", False)]
    keeping.keeper.close()


def test_a_thousand_objects_are_compared_in_a_moment() -> None:
    manifests = [
        manifest("ToolServer", f"tool-{number}", {"protocol": "HTTP", "hosts": [f"tool-{number}.example.com"]}) for number in range(1000)
    ]
    keeping = Keeping(*manifests)
    keeping.step()
    assert len({entry["address"] for each in keeping.server.objects.values() for entry in each["status"]["addresses"]}) == 1000
    began = time.thread_time()
    writes, _ = status_keeper.plan(Facts(built=keeping.built, stored=keeping.store.look(), pods={}, last_seen={}), {}, NOW)
    assert writes == []
    assert time.thread_time() - began < 1
    keeping.keeper.close()


@pytest.mark.parametrize(
    ("status", "metadata", "expected"),
    [
        ({"phase": "Running"}, {}, ("demo", "planner")),
        ({"phase": "Pending"}, {}, None),
        ({"phase": "Succeeded"}, {}, None),
        ({}, {}, None),
        ({"phase": "Running"}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}, None),
    ],
)
def test_which_pods_run(status: dict[str, Any], metadata: dict[str, Any], expected: tuple[str, str] | None) -> None:
    pod = {"metadata": {"uid": "1", "namespace": "demo", **metadata}, "spec": {"serviceAccountName": "planner"}, "status": status}
    assert running_as(pod) == expected
    pods = RunningPods(lambda: None)
    pods.put(pod)
    assert pods.counts() == ({} if expected is None else {expected: 1})
    pods.remove(pod)
    assert pods.counts() == {}
