"""What to do so that what is wanted is in force."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from sensor import quarantine
from sensor.events import TCP, UDP, Endpoint
from sensor.quarantine import Destination, Origin, Plan, Quarantine, QuarantineError, Wanted

GATE = Destination(Endpoint(ip_address("127.0.0.1"), 15001), TCP)
GATE6 = Destination(Endpoint(ip_address("::1"), 15001), UDP)
ASKED = Wanted(cgroup_id=7, subject="demo/planner", allowed=frozenset({GATE}))
STANDING = Quarantine(cgroup_id=7, subject="demo/planner", origin=Origin.RESOURCE, since_ns=1, allowed=frozenset({GATE}))
NOTHING = Plan(begin=(), end=())


@pytest.mark.parametrize(
    ("wanted", "actual", "plan"),
    [
        pytest.param([], [], NOTHING, id="nothing"),
        pytest.param([ASKED], [], Plan(begin=(ASKED,), end=()), id="begins"),
        pytest.param([ASKED, ASKED], [], Plan(begin=(ASKED,), end=()), id="once"),
        pytest.param([ASKED], [STANDING], NOTHING, id="stands"),
        pytest.param([ASKED], [replace(STANDING, refused_sockets=4)], NOTHING, id="counters don't count"),
        pytest.param([ASKED], [replace(STANDING, allowed=frozenset({GATE6}))], Plan(begin=(ASKED,), end=()), id="another gate"),
        pytest.param([ASKED], [replace(STANDING, subject="demo/other")], Plan(begin=(ASKED,), end=()), id="another name"),
        pytest.param([ASKED], [replace(STANDING, subject="x", origin=Origin.COMMAND)], NOTHING, id="a person's stays as it is"),
        pytest.param([], [STANDING], Plan(begin=(), end=(7,)), id="ends"),
        pytest.param([], [replace(STANDING, origin=Origin.COMMAND)], NOTHING, id="a person's does not end"),
        pytest.param([ASKED], [replace(STANDING, cgroup_id=8)], Plan(begin=(ASKED,), end=(8,)), id="another cgroup"),
    ],
)
def test_plan(wanted: list[Wanted], actual: list[Quarantine], plan: Plan) -> None:
    assert quarantine.plan(wanted, actual, Origin.RESOURCE) == plan


@pytest.mark.parametrize(("cgroup_id", "refused"), [(1, "root"), (5, "hopgate"), (6, "")])
def test_some_are_never_cut_off(cgroup_id: int, refused: str) -> None:
    if not refused:
        quarantine.refuse_unsafe(cgroup_id, root=1, own={5})
        return
    with pytest.raises(QuarantineError, match=refused):
        quarantine.refuse_unsafe(cgroup_id, root=1, own={5})


@pytest.mark.parametrize("destination", [GATE, GATE6])
def test_what_is_allowed_is_read_as_it_was_written(destination: Destination) -> None:
    assert quarantine.read_allowed(quarantine.pack_allowed(7, destination)) == (7, destination)


def test_a_long_name_is_cut_between_characters() -> None:
    value = quarantine.pack_value("é" * 100, Origin.COMMAND, 9)
    assert quarantine.read_value(7, value, frozenset()) == Quarantine(cgroup_id=7, subject="é" * 63, origin=Origin.COMMAND, since_ns=9)


def test_a_value_of_another_layout_loses_its_counters_only() -> None:
    value = quarantine.pack_value("demo/planner", Origin.RESOURCE, 1)[:-8] + bytes(80)
    assert quarantine.read_value(7, value, frozenset({GATE})) == STANDING


@pytest.mark.parametrize("value", [b"", bytes(20), bytes(quarantine.VALUE_BYTES)])
def test_what_is_no_value_is_an_error(value: bytes) -> None:
    with pytest.raises(QuarantineError, match="can't be read"):
        quarantine.read_value(7, value, frozenset())
