"""What a process writes of itself is read again; what nobody wrote so is not taken, and what grows is bounded."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from hopgate.identity.names import ObjectName
from hopgate.kubernetes import authz_state
from hopgate.kubernetes.authz_state import LAST_SEEN, STATE, AuthzState

NOW = 1_800_000_000
STATED = AuthzState(
    version="0.1.0",
    started_at=NOW - 60,
    snapshot_at=NOW - 5,
    watches={"Agent": NOW - 1, "Pod": None},
    certificate_ends_at=NOW + 86_400,
    key_made_at=NOW - 60,
    allowed=3,
    denied=2,
    failed_open=0,
)
PLANNER = ObjectName("demo", "planner")


def test_what_is_written_is_read() -> None:
    annotations = authz_state.write(STATED, {PLANNER: NOW})
    assert authz_state.read(annotations) == STATED
    assert authz_state.read_last_seen(annotations) == {PLANNER: NOW}


def test_members_are_named_as_the_api_names_them() -> None:
    assert json.loads(authz_state.write(STATED, {PLANNER: NOW})[STATE]) == {
        "version": "0.1.0",
        "startedAt": NOW - 60,
        "snapshotAt": NOW - 5,
        "watches": {"Agent": NOW - 1, "Pod": None},
        "certificateEndsAt": NOW + 86_400,
        "keyMadeAt": NOW - 60,
        "allowed": 3,
        "denied": 2,
        "failedOpen": 0,
    }


def test_a_process_that_has_no_snapshot_yet_and_saw_nobody() -> None:
    begun = msgspec.structs.replace(STATED, snapshot_at=None, watches={})
    annotations = authz_state.write(begun, {})
    assert authz_state.read(annotations) == begun
    assert authz_state.read_last_seen(annotations) == {}


def test_members_of_a_later_version_are_left_out() -> None:
    described = json.loads(authz_state.write(STATED, {})[STATE])
    assert authz_state.read({STATE: json.dumps({**described, "mood": "good"})}) == STATED


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"version": 1}, id="a version that is no text"),
        pytest.param({"startedAt": -1}, id="a time before all times"),
        pytest.param({"denied": True}, id="a count that is no number"),
        pytest.param({"allowed": 1.5}, id="half a count"),
        pytest.param({"watches": []}, id="watches without kinds"),
        pytest.param({"watches": {"Agent": "now"}}, id="a time in words"),
        pytest.param({"watches": dict.fromkeys(map(str, range(65)))}, id="too many watches"),
        pytest.param({"version": "1" * 254}, id="a version without end"),
        pytest.param({"certificateEndsAt": None}, id="no certificate"),
    ],
)
def test_another_state_is_none(changes: dict[str, Any]) -> None:
    described = json.loads(authz_state.write(STATED, {})[STATE])
    assert authz_state.read({STATE: json.dumps(described)}) == STATED
    assert authz_state.read({STATE: json.dumps({**described, **changes})}) is None


@pytest.mark.parametrize("text", [None, 1, "", "{", "[]", "[" * 10_000, " " * 20_000, "{}"])
def test_what_is_no_state_is_none(text: Any) -> None:
    assert authz_state.read({STATE: text}) is None
    assert authz_state.read_last_seen({LAST_SEEN: text}) == {}


def test_names_that_no_agent_can_have_are_left_out() -> None:
    assert authz_state.read_last_seen({LAST_SEEN: json.dumps({"demo/planner": NOW, "Demo/planner": NOW, "demo": NOW})}) == {PLANNER: NOW}


def test_of_many_agents_the_newest_are_written() -> None:
    seen = {ObjectName("demo", f"agent-{number}"): NOW + number for number in range(authz_state.LAST_SEEN_AGENTS + 10)}
    assert authz_state.read_last_seen(authz_state.write(STATED, seen)) == {agent: at for agent, at in seen.items() if at >= NOW + 10}


def test_of_long_names_as_many_are_written_as_there_is_room_for() -> None:
    seen = {ObjectName("n" * 63, ".".join(("a" * 60, "b" * 60, "c" * 60, f"{number}"))): NOW + number for number in range(2_000)}
    text = authz_state.write(STATED, seen)[LAST_SEEN]
    read = authz_state.read_last_seen({LAST_SEEN: text})
    assert authz_state.LAST_SEEN_BYTES - 300 < len(text) <= authz_state.LAST_SEEN_BYTES
    assert max(read.values()) == NOW + 1_999
    assert min(read.values()) == NOW + 2_000 - len(read)
