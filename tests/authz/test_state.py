"""What gate and authz tell each other comes out as it went in, and nothing else is taken for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz import state as states
from authz.state import FromAuthz, FromGate, InboundGate, Report, Resolution, State, Workload
from hopgate import children
from hopgate.children import Applied, Failed, MessageError, Ready, ReportRequest
from hopgate.identity.errors import InvalidNameError
from hopgate.identity.names import ObjectName
from hopgate.resources.kinds import DialAddress
from hopgate.snapshot import ResolvedHost, Upstreams

FULL = State(
    sequence=3,
    workloads=(Workload(credential_sha256=states.credential_sha256("held"), agent="demo/planner"),),
    gates=(InboundGate(agent="demo/researcher", ip="127.0.0.1", port=4000),),
    hosts=(Resolution(host="api.example", addresses=("203.0.113.9", "2001:db8::9"), resolved_at=1_800_000_000),),
)


@pytest.mark.parametrize("message", [FULL, State(sequence=0), ReportRequest()], ids=["a full state", "an empty state", "a question"])
def test_what_the_gate_says_comes_out_as_it_went_in(message: FromGate) -> None:
    line = children.encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert states.decode_from_gate(line) == message


@pytest.mark.parametrize(
    "message",
    [
        Ready(),
        Applied(sequence=7),
        Failed(messages=("a.yaml:1: wrong\nin two lines", "ü")),
        Report(snapshot_digest="d", snapshot_loaded_at=1, mistakes=("m",), counters={"checks": 1}),
    ],
    ids=["ready", "applied", "failed", "a report"],
)
def test_what_authz_says_comes_out_as_it_went_in(message: FromAuthz) -> None:
    line = children.encode(message)
    assert line.count(b"\n") == 1
    assert states.decode_from_authz(line) == message


@given(text=st.text(), number=st.integers(0, 2**62))
def test_any_text_makes_the_way(text: str, number: int) -> None:
    told = State(sequence=number, hosts=(Resolution(host=text, addresses=(text,), resolved_at=number),))
    assert states.decode_from_gate(children.encode(told)) == told


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"hello\n",
        b"[]\n",
        b'{"sequence":1}\n',
        b'{"type":"state"}\n',
        b'{"type":"state","sequence":"1"}\n',
        b'{"type":"state","sequence":1,"more":1}\n',
        b'{"type":"state","sequence":1,"workloads":[{"agent":"a/b"}]}\n',
        b'{"type":"state","sequence":1}{"type":"state","sequence":2}\n',
        children.encode(Ready()),
        b"\xff\n",
    ],
    ids=repr,
)
def test_refuses_what_no_gate_says(line: bytes) -> None:
    with pytest.raises(MessageError, match="expected a message of the gate"):
        states.decode_from_gate(line)


@pytest.mark.parametrize("line", [b"", b"Warning: something\n", children.encode(FULL), b'{"type":"applied"}\n'], ids=repr)
def test_refuses_what_no_authz_says(line: bytes) -> None:
    with pytest.raises(MessageError, match="expected a message of the authz process"):
        states.decode_from_authz(line)


def test_a_state_becomes_what_decisions_read() -> None:
    assert states.upstreams(FULL) == Upstreams(
        hosts={"api.example": ResolvedHost(addresses=("203.0.113.9", "2001:db8::9"), resolved_at=1_800_000_000)},
        gates={ObjectName("demo", "researcher"): DialAddress(ip="127.0.0.1", port=4000)},
    )


def test_refuses_a_gate_of_no_agent() -> None:
    with pytest.raises(InvalidNameError):
        states.upstreams(State(sequence=1, gates=(InboundGate(agent="researcher", ip="127.0.0.1", port=1),)))


def test_a_credential_is_not_in_what_is_told() -> None:
    assert b"held" not in children.encode(FULL)
