"""What the controller knows of an object: the later of what it wrote and what a watch told."""

from __future__ import annotations

from typing import Any

from hopgate.kubernetes import api
from hopgate.kubernetes.status_store import StatusStore
from hopgate.resources.reference import ObjectReference
from tests.hopgate.kubernetes.cluster_objects import manifest

PLANNER = ObjectReference(kind="Agent", namespace="demo", name="planner")


class Changes:
    count = 0

    def __call__(self) -> None:
        self.count += 1


def agent(version: int, *, uid: str = "1", pods: int = 0, **metadata: Any) -> dict[str, Any]:
    return {**manifest("Agent", "planner", {}, uid=uid, resourceVersion=f"{version}", **metadata), "status": {"pods": pods}}


def test_what_a_watch_tells_late_is_not_taken_for_news() -> None:
    changes = Changes()
    store = StatusStore(changes)
    store.put(agent(9))
    store.answered(agent(10, pods=1))
    assert changes.count == 2
    for late in (agent(9), agent(10, pods=1)):
        store.put(late)
        store.replace(api.AGENTS, [late])
    assert (store.look()[PLANNER].version, store.look()[PLANNER].status) == ("10", {"pods": 1})
    store.put(agent(11, pods=2))
    assert store.look()[PLANNER].status == {"pods": 2}


def test_an_answer_about_what_is_gone_does_not_bring_it_back() -> None:
    store = StatusStore(Changes())
    store.put(agent(9))
    store.remove(agent(9))
    store.answered(agent(10))
    assert store.look() == {}


def test_the_end_of_an_object_is_not_that_of_another_with_its_name() -> None:
    store = StatusStore(Changes())
    store.put(agent(12, uid="2"))
    store.remove(agent(11, uid="1"))
    assert store.look()[PLANNER].uid == "2"
    store.remove(agent(13, uid="2"))
    assert store.look() == {}


def test_what_is_being_deleted_or_is_the_sensors_is_not_kept() -> None:
    store = StatusStore(Changes())
    store.put(manifest("ShadowAgent", "shadow", {}, resourceVersion="1"))
    assert store.look() == {}
    store.put(agent(9))
    store.put(agent(10, deletionTimestamp="2026-01-01T00:00:00Z"))
    assert store.look() == {}


def test_a_list_of_one_kind_leaves_the_others() -> None:
    store = StatusStore(Changes())
    store.put(agent(9))
    store.put({**manifest("Policy", "may", {}, resourceVersion="3")})
    store.replace(api.AGENTS, [])
    assert [own.kind for own in store.look()] == ["Policy"]
