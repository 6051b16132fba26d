"""Events to flows: each connection once, whatever order its events come in, and how often."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopgate.audit.records import Flow
from sensor.connections import OpenSocket
from sensor.events import TCP, UDP, Endpoint, Event, Flag, Operation
from sensor.flows import LASTING_NS, SETTLE_NS, UNANSWERED_NS, UNSENT_NS, FlowTracker
from sensor.verdict import Governance
from tests.sensor.flow_events import (
    AGENT,
    GATE,
    GOVERNANCE,
    HOST,
    MS,
    OTHER,
    OUTSIDE,
    OWN,
    PROXY,
    QUESTION,
    RESOLVER,
    SECOND,
    around,
    asked,
    at,
    closed,
    event,
    question,
    refused,
    sent,
    through,
    tracker,
)

PRIME = 97


def told(made: FlowTracker, events: Iterable[Event], now_ns: int) -> list[Flow]:
    """What is told of events that were read at one time, once they have settled."""
    for each in events:
        made.add_event(each, now_ns)
    assert made.due(now_ns) == []
    return made.due(now_ns + SETTLE_NS)


def verdicts(flows: Iterable[Flow]) -> list[tuple[str, str, str]]:
    return [(flow.phase, flow.verdict, flow.reason) for flow in flows]


def test_a_connection_through_the_gate_is_one_record_that_says_all() -> None:
    made = tracker()
    [flow] = told(made, through(12, SECOND, end_ns=3 * SECOND), 4 * SECOND)
    assert flow == Flow(
        id=flow.id,
        time=(1_700_000_000 + 1) * 1_000_000,
        phase="Ended",
        agent="demo/planner",
        attribution="Cgroup",
        verdict="ThroughGate",
        reason="AcceptedByGate",
        message="the connection was turned to the gate, and the gate accepted it",
        protocol="TCP",
        source="192.0.2.2:1036",
        destination="198.18.0.7:443",
        went="127.0.0.1:15001",
        name="",
        program="python3",
        pid=4242,
        user=1000,
        cgroup=AGENT,
        namespace=OWN,
        from_start=True,
        duration_us=2_000_000,
        sent_bytes=10,
        received_bytes=20,
    )
    assert made.due(90 * SECOND) == made.finish(90 * SECOND) == []


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (through(1, 0, end_ns=9), ("ThroughGate", "AcceptedByGate")),
        (through(1, 0, by=OTHER, end_ns=9), ("Bypass", "AcceptedByAnother")),
        (through(1, 0, by=AGENT, end_ns=9), ("Local", "Loopback")),
        (around(1, 0, end_ns=9), ("Bypass", "NotRedirected")),
        (refused(1, 0), ("Local", "NothingSent")),
        ([*refused(1, 0)[:1], sent(1, 1), closed(2, 1)], ("Local", "NotAccepted")),
        ([each for each in through(1, 0, end_ns=9) if each.operation is not Operation.ACCEPTED], ("Unattributable", "NotConfirmed")),
        ([each for each in through(1, 0, end_ns=9) if each.operation is not Operation.SENT], ("Unattributable", "NotSeen")),
        ([replace(each, netns_cookie=HOST) for each in around(1, 0, end_ns=9)], ("Bypass", "OtherNamespace")),
        # A socket that another program made and handed over: its packets have that one's cgroup.
        (
            [asked(0, 1, netns_cookie=HOST), sent(1, 1, cgroup_id=OTHER, remote=OUTSIDE, interface=2), closed(9, 1)],
            ("Bypass", "OtherNamespace"),
        ),
        ([asked(0, 1, flags=Flag.BLOCKED), closed(9, 1)], ("Local", "Quarantined")),
    ],
)
def test_what_is_said_of_a_connection(events: list[Event], expected: tuple[str, str]) -> None:
    assert verdicts(told(tracker(), events, SECOND)) == [("Ended", *expected)]


@given(st.integers(0, 2**32), st.integers(1, 3))
def test_in_any_order_and_told_twice_a_prime_number_of_connections_is_that_number(seed: int, copies: int) -> None:
    generator = random.Random(seed)
    events: list[Event] = []
    expected: dict[str, int] = {}
    for cookie in range(1, PRIME + 1):
        start_ns = generator.randrange(SECOND)
        kind = generator.choice(("through", "around", "refused", "question", "datagram"))
        expected[kind] = expected.get(kind, 0) + 1
        events += {
            "through": lambda: through(cookie, start_ns, end_ns=start_ns + MS),  # noqa: B023 - called at once
            "around": lambda: around(cookie, start_ns, end_ns=start_ns + MS),  # noqa: B023
            "refused": lambda: refused(cookie, start_ns),  # noqa: B023
            "question": lambda: question(cookie, start_ns),  # noqa: B023
            "datagram": lambda: question(cookie, start_ns, OUTSIDE, OUTSIDE, hook=False),  # noqa: B023
        }[kind]()
    events *= copies
    generator.shuffle(events)
    made = tracker()
    flows = told(made, events, 2 * SECOND)
    assert len(flows) == len({flow.id for flow in flows}) == PRIME
    found = [flow.reason for flow in flows]
    reasons = {"through": "AcceptedByGate", "refused": "NothingSent", "question": "AnsweredByGate"}
    for kind, reason in reasons.items():
        assert found.count(reason) == expected.get(kind, 0)
    assert found.count("NotRedirected") == expected.get("around", 0) + expected.get("datagram", 0)
    # Told late, once more: nothing is told of it again.
    assert told(made, events, 4 * SECOND) == []
    assert made.finish(5 * SECOND) == []


@given(st.data())
def test_connections_of_one_socket_are_told_in_turn_whatever_order_they_come_in(data: st.DataObject) -> None:
    """A socket whose attempt failed tries again: each attempt is a connection."""
    events = [*refused(5, 0), asked(10, 5), *through(5, 20, end_ns=40)]
    shuffled = data.draw(st.permutations(events))
    flows = told(tracker(), shuffled, SECOND)
    assert verdicts(flows) == [("Ended", "Local", "NothingSent")] * 2 + [("Ended", "ThroughGate", "AcceptedByGate")]
    assert len({flow.id for flow in flows}) == 3


def test_what_lasts_is_told_when_it_has_and_again_at_its_end() -> None:
    made = tracker()
    assert told(made, through(3, 0), MS) == []
    assert made.due(LASTING_NS - 1) == []
    [begun] = made.due(LASTING_NS + SECOND)
    assert (begun.phase, begun.verdict, begun.sent_bytes) == ("Begun", "ThroughGate", 0)
    assert made.due(LASTING_NS + 9 * SECOND) == []
    [ended] = told(made, [closed(20 * SECOND, 3)], 20 * SECOND)
    assert (ended.phase, ended.verdict, ended.id, ended.duration_us) == ("Ended", "ThroughGate", begun.id, 20_000_000)


def test_what_goes_around_the_gate_is_told_at_once() -> None:
    made = tracker()
    [begun] = told(made, around(3, 0), MS)
    assert (begun.phase, begun.verdict) == ("Begun", "Bypass")
    assert made.due(LASTING_NS + SECOND) == []
    [ended] = told(made, [closed(20 * SECOND, 3)], 20 * SECOND)
    assert (ended.phase, ended.verdict, ended.id) == ("Ended", "Bypass", begun.id)


def test_what_turns_out_to_go_around_the_gate_is_told_again() -> None:
    made = tracker()
    assert told(made, [asked(0, 3)], MS) == []
    [begun] = made.due(LASTING_NS + SECOND)
    assert verdicts([begun]) == [("Begun", "Local", "NothingSent")]
    [again] = told(made, [sent(7 * SECOND, 3, remote=OUTSIDE, interface=2)], 7 * SECOND)
    assert (again.phase, again.verdict, again.id) == ("Begun", "Bypass", begun.id)
    assert again.duration_us > begun.duration_us


def test_an_attempt_that_nothing_answers_is_over_when_the_kernel_gives_up() -> None:
    made = tracker()
    told(made, [asked(0, 3)], MS)
    assert verdicts(made.due(UNANSWERED_NS + SECOND)) == [("Ended", "Local", "NothingSent")]


def test_at_the_end_what_is_open_is_told_as_begun_and_what_has_ended_as_that() -> None:
    made = tracker()
    for each in (*through(3, 0), *through(4, 0, end_ns=MS), *question(5, 0)):
        made.add_event(each, MS)
    assert sorted(verdicts(made.finish(2 * MS))) == [
        ("Begun", "ThroughGate", "AcceptedByGate"),
        ("Begun", "ThroughGate", "AnsweredByGate"),
        ("Ended", "ThroughGate", "AcceptedByGate"),
    ]


def test_datagrams_are_told_once_for_each_destination() -> None:
    other = at("203.0.113.7", 443)
    events = [*question(6, 0), *question(6, 10, other, other), *question(6, 20)]
    made = tracker()
    flows = told(made, events, SECOND)
    assert [(flow.destination, flow.reason) for flow in flows] == [("192.0.2.1:53", "AnsweredByGate"), ("203.0.113.7:443", "NotRedirected")]
    assert told(made, question(6, SECOND), 2 * SECOND) == []


def test_a_datagram_that_was_refused_is_told_and_a_socket_that_only_asked_its_way_is_not() -> None:
    made = tracker()
    assert verdicts(told(made, question(6, 0)[:1], SECOND)) == [("Begun", "Local", "NothingSent")]
    assert told(made, question(7, 0, hook=False)[:1], 2 * SECOND) == []
    assert made.due(UNSENT_NS + 5 * SECOND) == made.finish(UNSENT_NS + 6 * SECOND) == []


def test_raw_and_packet_sockets_are_told_once() -> None:
    raw = event(Operation.SPECIAL_SOCKET, 0, 8, protocol=6)
    packet = event(Operation.SPECIAL_SOCKET, 1, 0, family=17, protocol=3, process=4242)
    flows = told(tracker(), [raw, packet, sent(5, 8, asked=None)], SECOND)
    assert [(flow.protocol, flow.verdict, flow.reason) for flow in flows] == [
        ("Raw", "Bypass", "RawSocket"),
        ("Packet", "Bypass", "PacketSocket"),
    ]


def test_a_stranger_s_sockets_are_not_kept() -> None:
    made = tracker()
    strange = [replace(each, cgroup_id=OTHER, netns_cookie=HOST) for each in (*around(3, 0), *question(4, 0))]
    assert told(made, strange, SECOND) == []
    assert made.counters.events == 0


def test_only_the_end_of_a_socket_is_no_connection() -> None:
    made = tracker()
    assert told(made, [closed(0, 3)], SECOND) == []


def test_losses_make_what_was_not_seen_uncertain() -> None:
    made = tracker()
    made.lose(3, SECOND)
    [before] = told(made, refused(3, SECOND - 1), 2 * SECOND)
    [after] = told(made, refused(4, SECOND + 1), 3 * SECOND)
    assert [(flow.verdict, flow.reason) for flow in (before, after)] == [("Unattributable", "NotSeen"), ("Local", "NothingSent")]
    assert made.counters.lost_events == 3


def test_more_sockets_than_are_kept_are_told_and_counted() -> None:
    made = tracker(max_sockets=11)
    for cookie in range(1, PRIME + 1):
        for each in through(cookie, cookie):
            made.add_event(each, MS)
    flows = made.finish(2 * MS)
    assert len({flow.id for flow in flows}) == PRIME
    assert {flow.phase for flow in flows} == {"Begun"}
    assert made.counters.evicted == PRIME - 11


def open_socket(**more: object) -> OpenSocket:
    told = {"cookie": 9, "protocol": TCP, "cgroup_id": AGENT, "netns_cookie": OWN, "uid": 1000, "seen_ns": SECOND}
    return OpenSocket(**{**told, "local": at("192.0.2.2", 5000), "remote": OUTSIDE, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (open_socket(accepted_at=PROXY, accepted_by=GATE), "AcceptedByGate"),
        (open_socket(), "BeganBefore"),
        (open_socket(netns_cookie=HOST), "OtherNamespace"),
        (open_socket(remote=at("127.0.0.1", 80)), "Loopback"),
    ],
)
def test_a_connection_that_began_before_is_told_at_its_end_with_its_verdict(found: OpenSocket, expected: str) -> None:
    made = tracker()
    made.add_open(found, SECOND)
    begun = made.due(8 * SECOND)
    assert [flow.reason for flow in begun] == [expected]
    [ended] = told(made, [closed(9 * SECOND, 9)], 9 * SECOND)
    assert (ended.phase, ended.reason, ended.from_start, ended.id) == ("Ended", expected, False, begun[0].id)
    made.add_open(found, 10 * SECOND)
    assert made.finish(11 * SECOND) == []


def test_a_connection_that_began_before_ends_when_it_is_not_there_any_more() -> None:
    made = tracker()
    made.add_open(open_socket(), SECOND)
    for each in through(4, 0):
        made.add_event(each, SECOND)
    assert made.older() == {9}
    assert made.end_older({4}, 2 * SECOND) == []  # its end is told by an event
    [ended] = made.end_older({9}, 3 * SECOND)
    assert (ended.phase, ended.reason, ended.duration_us) == ("Ended", "BeganBefore", 2_000_000)
    assert made.older() == frozenset()
    assert made.end_older({9}, 4 * SECOND) == []


def test_an_open_connection_that_events_told_of_is_not_told_twice() -> None:
    made = tracker()
    for each in through(9, 0):
        made.add_event(each, 0)
    made.add_open(open_socket(), MS)
    [flow] = made.finish(SECOND)
    assert (flow.reason, flow.from_start) == ("AcceptedByGate", True)


def test_the_same_connection_has_the_same_id_from_another_sensor_and_another_boot_another() -> None:
    [first] = told(tracker(), through(9, 0, end_ns=9), SECOND)
    [second] = told(tracker(), [replace(each, time_ns=each.time_ns + 5) for each in through(9, 0, end_ns=9)], SECOND)
    other = FlowTracker(boot="another", wall_ns=lambda time_ns: time_ns)
    other.govern(GOVERNANCE)
    [third] = told(other, through(9, 0, end_ns=9), SECOND)
    assert first.id == second.id != third.id
    assert len(first.id) == 32


def test_names_come_from_the_handshake_then_from_dns() -> None:
    made = tracker()
    made.name_address(AGENT, "198.18.0.7", "api.example")
    made.name_address(OTHER, "198.18.0.7", "not.example")
    made.name_socket(4, "hello.example")
    flows = told(made, [*through(3, 0, end_ns=9), *through(4, 0, end_ns=9)], SECOND)
    assert [flow.name for flow in flows] == ["api.example", "hello.example"]


def test_an_agent_that_is_no_more_has_no_more_flows() -> None:
    made = tracker()
    for each in through(3, 0):
        made.add_event(each, 0)
    made.govern(Governance())
    assert made.finish(SECOND) == []


endpoints = st.none() | st.builds(
    Endpoint, st.sampled_from([IPv4Address("127.0.0.1"), OUTSIDE.ip, RESOLVER.ip, QUESTION.ip]), st.sampled_from([0, 53, 443, 15001, 65535])
)
numbers = st.sampled_from([0, 1, 2, AGENT, GATE, OTHER, OWN, (1 << 64) - 1])
any_event = st.builds(
    Event,
    operation=st.sampled_from(list(Operation)),
    time_ns=st.integers(0, 20),
    flags=st.sampled_from([Flag(0), *Flag]),
    family=st.sampled_from([0, 2, 10, 17, 255]),
    protocol=st.sampled_from([0, TCP, UDP, 136, 255]),
    cookie=st.integers(0, 3),
    cgroup_id=numbers,
    netns_cookie=numbers,
    process=st.integers(0, 2),
    interface=st.integers(0, 2),
    remote=endpoints,
    local=endpoints,
    asked=endpoints,
    sent_bytes=numbers,
    received_bytes=numbers,
)


@given(st.lists(st.tuples(any_event, st.integers(0, 400)), max_size=40))
def test_whatever_the_kernel_tells_nothing_breaks_and_each_connection_ends_once(events: list[tuple[Event, int]]) -> None:
    made = tracker(max_sockets=3)
    flows, now_ns = [], 0
    for each, passed_ms in events:
        now_ns += passed_ms * MS
        made.add_event(each, now_ns)
        flows += made.due(now_ns)
    flows += made.due(now_ns + 200 * SECOND)
    flows += made.finish(now_ns + 300 * SECOND)
    ended = [flow.id for flow in flows if flow.phase == "Ended"]
    assert len(ended) == len(set(ended))
    assert not any(flow.verdict == "ThroughGate" and flow.destination == flow.went for flow in flows)
