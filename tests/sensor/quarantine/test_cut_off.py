"""What a quarantined program can't do any more, and what everyone else still can: real programs, the real kernel."""

from __future__ import annotations

import errno
import json
import signal

import pytest

from sensor.clock import now_ns
from sensor.enforcement import Enforcement
from sensor.events import TCP
from sensor.quarantine import Origin
from tests.sensor.quarantine.conftest import World

pytestmark = [pytest.mark.root, pytest.mark.bpf]

REFUSED = {"refused": errno.EPERM}
KILLED = {"killed": signal.SIGKILL}
HELLO = {"reached": "hello"}
KINDS = ("ip4", "ip6", "mapped")
NEW = [
    *(
        pytest.param(name, kind, HELLO, id=f"{name}-{kind}")
        for name in ("tcp", "fast_open", "mptcp", "udp", "udp_connected")
        for kind in KINDS
    ),
    *(pytest.param("raw", kind, {"reached": "sent"}, id=f"raw-{kind}") for kind in ("ip4", "ip6")),
    *(pytest.param("icmp", kind, {"reached": True}, id=f"icmp-{kind}") for kind in ("ip4", "ip6")),
    pytest.param("ring", "ip4", HELLO, id="io_uring"),
    pytest.param("in_child_cgroup", "ip4", HELLO, id="beneath"),
]


@pytest.mark.parametrize(("attempt", "kind", "reached"), NEW)
def test_nothing_new_is_opened_until_the_release(world: World, enforced: Enforcement, attempt: str, kind: str, reached: object) -> None:
    argument = f"{kind}:{world.server.port}"
    assert world.attempt(attempt, argument) == reached
    enforced.begin(world.wanted("ip4"), Origin.COMMAND)
    assert world.attempt(attempt, argument) == REFUSED
    if attempt != "in_child_cgroup":
        assert world.attempt(attempt, argument, cgroup=world.sibling) == reached
    enforced.end(world.wanted().cgroup_id)
    assert world.attempt(attempt, argument) == reached


def test_who_asks_for_a_packet_socket_is_killed(world: World, enforced: Enforcement) -> None:
    assert enforced.gaps == ()
    assert world.attempt("packet") == {"reached": "made"}
    enforced.begin(world.wanted(), Origin.COMMAND)
    assert world.attempt("packet") == KILLED
    assert world.attempt("packet", cgroup=world.sibling) == {"reached": "made"}
    (standing,) = enforced.quarantines()
    assert standing.refused_sockets == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attempt", ["tcp", "udp", "udp_connected"])
def test_the_gate_is_still_reached(world: World, enforced: Enforcement, attempt: str, kind: str) -> None:
    enforced.begin(world.wanted(kind), Origin.COMMAND)
    assert world.attempt(attempt, f"{kind}:{world.gate.port}") == HELLO
    assert world.attempt(attempt, f"{kind}:{world.server.port}") == REFUSED
    enforced.begin(world.wanted(), Origin.COMMAND)
    assert world.attempt(attempt, f"{kind}:{world.gate.port}") == REFUSED


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_an_open_connection_is_cut_within_a_second(world: World, enforced: Enforcement, protocol: str, kind: str) -> None:
    held = world.start("hold", f"{protocol}:{kind}:{world.server.port}")
    kept = world.start("hold", f"{protocol}:{kind}:{world.gate.port}")
    beside = world.start("hold", f"{protocol}:{kind}:{world.server.port}", cgroup=world.sibling)
    for each in (held, kept, beside):
        assert World.line(each) == "stands\n"
    began = now_ns()
    cut = enforced.begin(world.wanted(kind), Origin.COMMAND)
    said = json.loads(World.line(held))["reached"]
    assert (cut.ended, cut.failed) == (1, 0)
    assert said["said"] == {"refused": errno.ECONNABORTED}
    assert said["at"] - began < 1_000_000_000
    assert kept.poll() is None
    assert beside.poll() is None


def test_a_socket_that_was_handed_on_speaks_no_more(world: World, enforced: Enforcement) -> None:
    """It is its maker's socket, whoever holds it."""
    free = world.start("given_away", f"ip4:{world.server.port}")
    assert World.line(free) == "stands\n"
    assert json.loads(free.communicate("x", timeout=30)[0].splitlines()[0]) == {"child": "again"}
    caught = world.start("given_away", f"ip4:{world.server.port}")
    assert World.line(caught) == "stands\n"
    enforced.begin(world.wanted(), Origin.COMMAND)
    assert json.loads(caught.communicate("x", timeout=30)[0].splitlines()[0]) == {"child": f"refused {errno.ECONNABORTED}"}


def test_packets_of_an_open_connection_are_dropped_also_when_nobody_ends_it(
    world: World, enforced: Enforcement, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught = world.start("given_away", f"ip4:{world.server.port}")
    assert World.line(caught) == "stands\n"
    monkeypatch.setattr("sensor.cutting.cut", lambda *_: None)
    enforced.begin(world.wanted(), Origin.COMMAND)
    said = json.loads(caught.communicate("x", timeout=30)[0].splitlines()[0])
    assert said == {"child": "refused None"}  # nothing came back in time
    (standing,) = enforced.quarantines()
    assert standing.dropped_packets > 0


def test_what_was_refused_is_counted(world: World, enforced: Enforcement) -> None:
    enforced.begin(world.wanted("ip4"), Origin.COMMAND)
    for _ in range(3):
        assert world.attempt("tcp", f"ip4:{world.server.port}") == REFUSED
    assert world.attempt("raw", f"ip4:{world.server.port}") == REFUSED
    assert world.attempt("tcp", f"ip4:{world.gate.port}") == HELLO
    (standing,) = enforced.quarantines()
    assert (standing.subject, standing.origin) == ("demo/planner", Origin.COMMAND)
    assert (standing.refused_connections, standing.refused_sockets, standing.dropped_packets) == (3, 1, 0)
    assert {each.protocol for each in standing.allowed} >= {TCP}
