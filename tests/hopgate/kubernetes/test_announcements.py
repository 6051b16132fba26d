"""Events: told once, counted when told again, and never too many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hopgate.kubernetes import announcements
from hopgate.kubernetes.announcements import BURST, OBJECT_BURST, Announcement, Announcer, Bucket
from hopgate.kubernetes.api import Body, Manifest, RefusedError, UnreachableError
from hopgate.resources.reference import ObjectReference

NOW = 1_800_000_000.25
TOLD = Announcement(
    reference=ObjectReference(kind="Agent", namespace="demo", name="planner"),
    uid="1",
    action="Judge",
    reason="MissingService",
    note="expected a Service",
    warning=True,
)


class Events:
    """The events that were written, by name, and what was merged into them."""

    def __init__(self) -> None:
        self.made: dict[str, Manifest] = {}
        self.merged: list[Any] = []
        self.away = False

    def call(self, method: str, path: str, body: Body | None = None, *, content_type: str = "application/json") -> Manifest:
        if self.away:
            raise UnreachableError("nobody answers")
        assert isinstance(body, Mapping)
        if method == "PATCH":
            assert path.rpartition("/")[2] in self.made
            self.merged.append(body["series"]["count"])
            return body
        if body["metadata"]["name"] in self.made:
            raise RefusedError(409, "exists")
        self.made[body["metadata"]["name"]] = body
        return body


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def announcer(events: Events, clock: Clock) -> Announcer:
    return Announcer(events, instance="controller-1", clock=clock, wall=lambda: NOW)


def test_an_event_is_of_its_object_and_in_its_namespace() -> None:
    event = announcements.manifest(TOLD, "controller-1", NOW)
    assert event["metadata"]["namespace"] == "demo"
    assert event["regarding"] == {"apiVersion": "hopgate.dev/v1alpha1", "kind": "Agent", "namespace": "demo", "name": "planner", "uid": "1"}
    assert (event["type"], event["eventTime"]) == ("Warning", "2027-01-15T08:00:00.250000Z")
    whole = replace(TOLD, reference=ObjectReference(kind="ClusterPolicy", namespace=None, name="floor"), warning=False, note="x" * 2000)
    event = announcements.manifest(whole, "controller-1", NOW)
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["regarding"]
    assert (event["type"], len(event["note"])) == ("Normal", 1024)


def test_the_same_told_again_is_counted_and_something_else_is_another() -> None:
    events, clock = Events(), Clock()
    found = announcer(events, clock)
    for _ in range(3):
        found.tell(TOLD)
    assert (len(events.made), events.merged) == (1, [2, 3])
    found.tell(replace(TOLD, note="something else"))
    assert len(events.made) == 2


def test_one_object_can_not_tell_too_much_and_others_still_can() -> None:
    events, clock = Events(), Clock()
    found = announcer(events, clock)
    for number in range(OBJECT_BURST + 3):
        found.tell(replace(TOLD, note=f"{number}"))
    assert (len(events.made), found.left_out) == (OBJECT_BURST, 3)
    found.tell(replace(TOLD, uid="2"))
    assert len(events.made) == OBJECT_BURST + 1
    clock.now += 60
    found.tell(replace(TOLD, note="later"))
    assert len(events.made) == OBJECT_BURST + 2


def test_all_together_can_not_tell_too_much() -> None:
    events, clock = Events(), Clock()
    found = announcer(events, clock)
    for number in range(BURST + 10):
        found.tell(replace(TOLD, uid=f"{number}"))
    assert (len(events.made), found.left_out) == (BURST, 10)
    clock.now += 5
    for number in range(10):
        found.tell(replace(TOLD, uid=f"later-{number}"))
    assert len(events.made) == BURST + 5


def test_an_event_that_can_not_be_written_is_left_out() -> None:
    events, clock = Events(), Clock()
    events.away = True
    found = announcer(events, clock)
    found.tell(TOLD)
    assert (events.made, found.left_out) == ({}, 1)


def test_what_has_come_back_is_full() -> None:
    bucket = Bucket(2, 0.5)
    assert bucket.take(10.0)
    assert not bucket.is_full(11.0)
    assert bucket.is_full(12.0)
