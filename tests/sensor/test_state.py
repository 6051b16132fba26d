"""What gate and sensor tell each other comes out as it went in, and becomes what verdicts read."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from hopgate import children
from hopgate.children import Applied, Failed, MessageError, Ready, ReportRequest
from sensor import state
from sensor.events import TCP, Endpoint
from sensor.state import FromGate, FromSensor, GateListener, GovernedAgent, Report, State
from sensor.verdict import Governance, Governed, Listener

FULL = State(
    sequence=3,
    agents=(
        GovernedAgent(
            agent="demo/planner",
            cgroup_id=(1 << 64) - 1,
            netns_cookie=12,
            listeners=(GateListener(protocol=TCP, ip="::1", port=15001, cgroup_id=7),),
        ),
        GovernedAgent(agent="demo/other", cgroup_id=0, netns_cookie=0, listeners=()),
    ),
    gate_cgroups=(7,),
    gate_processes=(99,),
)


@pytest.mark.parametrize("message", [FULL, State(sequence=0), ReportRequest()], ids=["a full state", "an empty state", "a question"])
def test_what_the_gate_says_comes_out_as_it_went_in(message: FromGate) -> None:
    assert state.decode_from_gate(children.encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        Ready(),
        Applied(sequence=7),
        Failed(messages=("a", "ü\n")),
        Report(loader="CO-RE", why="w", unseen=("u",), counters={"flows": 1}),
    ],
    ids=["ready", "applied", "failed", "a report"],
)
def test_what_the_sensor_says_comes_out_as_it_went_in(message: FromSensor) -> None:
    assert state.decode_from_sensor(children.encode(message)) == message


@pytest.mark.parametrize(
    "line", [b"", b"hello\n", b'{"type":"state"}\n', b'{"type":"state","sequence":1,"more":1}\n', children.encode(Ready())]
)
def test_refuses_what_no_gate_says(line: bytes) -> None:
    with pytest.raises(MessageError, match="expected a message of the gate"):
        state.decode_from_gate(line)


def test_a_state_becomes_what_verdicts_read_and_0_is_nobody() -> None:
    listener = Listener(protocol=TCP, endpoint=Endpoint(ip_address("::1"), 15001), cgroup_id=7)
    assert state.governance(FULL) == Governance(
        agents=(
            Governed(agent="demo/planner", cgroups=frozenset({(1 << 64) - 1}), namespaces=frozenset({12}), listeners=(listener,)),
            Governed(agent="demo/other"),
        ),
        gate_cgroups=frozenset({7}),
        gate_processes=frozenset({99}),
    )
    assert state.governance(FULL).attribute(cgroups=frozenset({0}), netns_cookie=0, process=1) is None


def test_an_address_that_is_none_is_refused() -> None:
    bad = GovernedAgent(agent="a/b", cgroup_id=1, netns_cookie=1, listeners=(GateListener(protocol=TCP, ip="x", port=1, cgroup_id=1),))
    with pytest.raises(ValueError, match="x"):
        state.governance(State(sequence=1, agents=(bad,)))
