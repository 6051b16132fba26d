"""What is written into `status`: what differs, in the form of Kubernetes' conditions."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from hopgate.kubernetes import statuses
from hopgate.kubernetes.problems import Kept
from hopgate.resources.reference import ObjectReference
from tests.hopgate.kubernetes import cluster_objects
from tests.hopgate.kubernetes.cluster_objects import manifest

NOW = 1_800_000_000.0
PLANNER = ObjectReference(kind="Agent", namespace="demo", name="planner")
SERVED = {"service": {"name": "planner", "port": 8080}}


def verdict(spec: dict[str, Any], kind: str = "Agent") -> statuses.Verdict:
    built = cluster_objects.build([manifest(kind, "planner", spec)])
    reference = replace(PLANNER, kind=kind)
    return statuses.judge(built.objects[reference], [each for each in built.problems if each.reference == reference])


def test_an_object_without_a_mistake_is_ready() -> None:
    found = verdict({})
    assert (found.type, found.status, found.reason, found.generation) == ("Ready", "True", "InForce", 1)


def test_a_mistake_is_the_reason_and_what_stays_in_force_is_told() -> None:
    found = verdict(SERVED)
    assert (found.type, found.status, found.reason) == ("Ready", "False", "MissingService")
    assert found.message.startswith("spec.service: ")
    assert found.message.endswith("; it is in force, and what this touches is denied")


def test_many_mistakes_are_counted_and_a_long_message_is_cut() -> None:
    built = cluster_objects.build([manifest("Agent", "planner", SERVED)])
    [problem] = built.problems
    many = [replace(problem, message=f"mistake {number}") for number in range(12)]
    assert "; and 2 more; " in statuses.judge(built.objects[PLANNER], many).message
    long = statuses.judge(built.objects[PLANNER], [replace(problem, message="x" * 50_000, kept=Kept.NOTHING)]).message
    assert len(long) <= 4096
    assert long.endswith("…; nothing of it is in force")


def test_what_stands_there_already_is_not_written() -> None:
    first = statuses.plan({}, verdict({}), {"pods": 0, "addresses": []}, NOW)
    assert first == {
        "observedGeneration": 1,
        "pods": 0,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "InForce",
                "message": "it is in force",
                "observedGeneration": 1,
                "lastTransitionTime": "2027-01-15T08:00:00Z",
            }
        ],
    }
    assert statuses.plan(first, verdict({}), {"pods": 0, "addresses": []}, NOW + 100) == {}


def test_the_time_of_a_condition_changes_with_its_status_and_with_nothing_else() -> None:
    first = statuses.plan({}, verdict(SERVED), {}, NOW)
    other = replace(verdict(SERVED), reason="UnusableService", generation=2)
    second = {**first, **statuses.plan(first, other, {}, NOW + 10)}
    assert (second["conditions"][0]["reason"], second["observedGeneration"]) == ("UnusableService", 2)
    assert second["conditions"][0]["lastTransitionTime"] == first["conditions"][0]["lastTransitionTime"]
    third = statuses.plan(second, verdict({}), {}, NOW + 20)
    assert third["conditions"][0]["lastTransitionTime"] == "2027-01-15T08:00:20Z"


def test_conditions_of_other_types_stay_and_a_field_that_is_no_more_is_taken_away() -> None:
    foreign = {"type": "example.com/Seen", "status": "True"}
    planned = statuses.plan({"conditions": [foreign], "digest": "old"}, verdict({}), {"digest": None}, NOW)
    assert planned["conditions"][0] == foreign
    assert planned["digest"] is None


@pytest.mark.parametrize(
    ("planned", "volatile"),
    [({"pods": 1}, True), ({"lastSeen": "x", "pods": 1}, True), ({"pods": 1, "conditions": []}, False), ({"addresses": []}, False)],
)
def test_only_counts_may_wait(planned: dict[str, Any], *, volatile: bool) -> None:
    assert statuses.is_volatile(planned) is volatile


@pytest.mark.parametrize(
    ("written", "told", "expected"),
    [
        (None, None, None),
        (None, int(NOW) - 5, "2027-01-15T07:59:55Z"),
        # Less than a minute later: not yet.
        ("2027-01-15T07:59:00Z", int(NOW) - 5, "2027-01-15T07:59:00Z"),
        ("2027-01-15T07:58:00Z", int(NOW) - 5, "2027-01-15T07:59:55Z"),
        # The process that told has gone.
        ("2027-01-15T07:58:00Z", None, "2027-01-15T07:58:00Z"),
        # A clock of authz that is ahead; a time that somebody wrote.
        (None, int(NOW) + 120, "2027-01-15T08:00:00Z"),
        ("2031-01-01T00:00:00Z", int(NOW) - 5, "2027-01-15T07:59:55Z"),
        ("2031-01-01T00:00:00Z", None, None),
        ("nonsense", int(NOW) - 5, "2027-01-15T07:59:55Z"),
    ],
)
def test_when_an_agent_was_last_seen(written: str | None, told: int | None, expected: str | None) -> None:
    current = {} if written is None else {"lastSeen": written}
    assert statuses.last_seen(current, told, NOW) == expected


def test_the_digest_is_of_the_text_in_force() -> None:
    text = "permit (principal, action, resource);"
    built = cluster_objects.build([manifest("Policy", "planner", {"cedar": text})])
    assert statuses.digest(built.forms[replace(PLANNER, kind="Policy")]) == hashlib.sha256(text.encode()).hexdigest()
    assert statuses.digest(None) is None
