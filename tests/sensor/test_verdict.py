"""The verdict: every way around the gate, both families, and beside each the neighbour that differs in one fact."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from sensor.events import TCP, UDP, Endpoint
from sensor.verdict import (
    SENTENCES,
    VERDICTS,
    Attribution,
    Connection,
    Governance,
    Governed,
    Listener,
    Reason,
    SpecialSocket,
    Verdict,
    judge,
)

AGENT, GATE, OTHER = 101, 7, 55  # cgroups
OWN, HOST = 4001, 1  # cookies of network namespaces
PROXY_PORT, DNS_PORT = 15001, 15053


@dataclass(frozen=True)
class Family:
    name: str
    outside: Endpoint
    elsewhere: Endpoint
    loopback: Endpoint
    proxy: Endpoint
    resolver: Endpoint
    question: Endpoint


V4 = Family(
    "IPv4",
    Endpoint(IPv4Address("203.0.113.7"), 443),
    Endpoint(IPv4Address("203.0.113.8"), 443),
    Endpoint(IPv4Address("127.0.0.1"), 8080),
    Endpoint(IPv4Address("127.0.0.1"), PROXY_PORT),
    Endpoint(IPv4Address("127.0.0.1"), DNS_PORT),
    Endpoint(IPv4Address("192.0.2.1"), 53),
)
V6 = Family(
    "IPv6",
    Endpoint(IPv6Address("2001:db8::7"), 443),
    Endpoint(IPv6Address("2001:db8::8"), 443),
    Endpoint(IPv6Address("::1"), 8080),
    Endpoint(IPv6Address("::1"), PROXY_PORT),
    Endpoint(IPv6Address("::1"), DNS_PORT),
    Endpoint(IPv6Address("2001:db8:192:2::1"), 53),
)
GOVERNED = Governed(
    agent="demo/planner",
    cgroups=frozenset({AGENT}),
    namespaces=frozenset({OWN}),
    listeners=tuple(
        Listener(protocol=protocol, endpoint=endpoint, cgroup_id=GATE)
        for family in (V4, V6)
        for protocol, endpoint in ((TCP, family.proxy), (TCP, family.resolver), (UDP, family.resolver))
    ),
)
GOVERNANCE = Governance(agents=(GOVERNED,), gate_cgroups=frozenset({GATE}))


def through(family: Family) -> Connection:
    """A connection that went through the gate; every other row is a change of it."""
    return Connection(
        protocol=TCP,
        cgroups=frozenset({AGENT}),
        netns_cookie=OWN,
        process=4242,
        asked=family.outside,
        went=family.proxy,
        loopback=True,
        established=True,
        accepted_by=GATE,
    )


def table(family: Family) -> dict[str, tuple[Connection, Reason | None]]:
    """What is seen, and what is to be said of it; None: no governed agent's."""
    base = through(family)
    direct = replace(base, went=family.outside, loopback=False, accepted_by=None)
    datagram = replace(base, protocol=UDP, established=False, accepted_by=None)
    before = replace(base, went=None, loopback=False, accepted_by=None, from_start=False)
    return {
        "redirected and accepted by the gate": (base, Reason.ACCEPTED_BY_GATE),
        "redirected, the netns not told": (replace(base, netns_cookie=0), Reason.ACCEPTED_BY_GATE),
        "redirected and accepted by a program of the agent": (replace(base, accepted_by=AGENT), Reason.LOOPBACK),
        "redirected and accepted by a stranger": (replace(base, accepted_by=OTHER), Reason.ACCEPTED_BY_ANOTHER),
        "redirected and accepted, by whose cgroup is not known": (replace(base, accepted_by=0), Reason.ACCEPTED_AT_GATE),
        "redirected and refused": (replace(base, accepted_by=None, established=False), Reason.NOT_ACCEPTED),
        "redirected, refused or lost": (replace(base, accepted_by=None, established=False, whole=False), Reason.NOT_CONFIRMED),
        "redirected, the acceptance not seen": (replace(base, accepted_by=None), Reason.NOT_CONFIRMED),
        "the gate's own to its upstream": (replace(direct, cgroups=frozenset({GATE}), netns_cookie=HOST), None),
        "the gate's own inside the agent's namespace": (replace(direct, cgroups=frozenset({GATE})), None),
        "a program of nobody's": (replace(direct, cgroups=frozenset({OTHER}), netns_cookie=HOST), None),
        "not redirected, as any user": (direct, Reason.NOT_REDIRECTED),
        "not redirected, over a socket that a stranger made": (
            replace(direct, cgroups=frozenset({AGENT, OTHER})),
            Reason.NOT_REDIRECTED,
        ),
        "redirected, over a socket that a stranger made": (replace(base, cgroups=frozenset({AGENT, OTHER})), Reason.ACCEPTED_BY_GATE),
        "redirected elsewhere": (replace(direct, went=family.elsewhere), Reason.REDIRECTED_ELSEWHERE),
        "the resolver, redirected datagram": (replace(datagram, asked=family.question, went=family.resolver), Reason.ANSWERED_BY_GATE),
        "the resolver, redirected connection": (replace(base, asked=family.question, went=family.resolver), Reason.ACCEPTED_BY_GATE),
        "the resolver's port, by itself": (replace(datagram, asked=family.resolver, went=family.resolver), Reason.GATE_PORT),
        "datagram to a stranger": (replace(datagram, went=family.outside, loopback=False), Reason.NOT_REDIRECTED),
        "datagram to a DNS server of its own": (
            replace(datagram, asked=family.question, went=family.question, loopback=False),
            Reason.NOT_REDIRECTED,
        ),
        "datagram, the destination not seen": (replace(datagram, asked=None), Reason.NOT_SEEN),
        "datagram that a rule refused": (replace(datagram, went=None, loopback=False), Reason.NOTHING_SENT),
        "raw TCP packet that the rules turned": (replace(base, asked=None, established=False, accepted_by=None), Reason.RAW_SOCKET),
        "raw TCP packet": (replace(direct, asked=None, established=False), Reason.RAW_SOCKET),
        "raw socket": (replace(direct, special=SpecialSocket.RAW, asked=None, went=None), Reason.RAW_SOCKET),
        "packet socket": (replace(direct, special=SpecialSocket.PACKET, asked=None, went=None), Reason.PACKET_SOCKET),
        "in the host's namespace": (replace(direct, netns_cookie=HOST), Reason.OTHER_NAMESPACE),
        "in the host's namespace, to loopback": (
            replace(base, netns_cookie=HOST, asked=family.loopback, went=family.loopback, accepted_by=OTHER),
            Reason.OTHER_NAMESPACE,
        ),
        "in another agent's namespace, to that one's gate": (replace(base, netns_cookie=OWN + 1), Reason.OTHER_NAMESPACE),
        "in the host's namespace, nothing sent": (
            replace(direct, netns_cookie=HOST, went=None, established=False),
            Reason.NOTHING_SENT,
        ),
        "to the gate's port itself": (replace(base, asked=family.proxy), Reason.GATE_PORT),
        "to a port of its own": (replace(base, asked=family.loopback, went=family.loopback, accepted_by=AGENT), Reason.LOOPBACK),
        "to a port of a stranger in its namespace": (
            replace(base, asked=family.loopback, went=family.loopback, accepted_by=OTHER),
            Reason.ACCEPTED_BY_ANOTHER,
        ),
        "to an address of its own": (replace(base, went=family.outside, accepted_by=AGENT), Reason.LOOPBACK),
        "refused by a rule": (replace(direct, went=None, established=False), Reason.NOTHING_SENT),
        "refused, or not seen": (replace(direct, went=None, established=False, whole=False), Reason.NOT_SEEN),
        "established, its packet not seen": (replace(direct, went=None), Reason.NOT_SEEN),
        "refused by a quarantine": (replace(direct, went=None, established=False, blocked=True), Reason.QUARANTINED),
        "open at the start, accepted by the gate": (replace(before, went=family.proxy, accepted_by=GATE), Reason.ACCEPTED_BY_GATE),
        "open at the start, no match": (before, Reason.BEGAN_BEFORE),
        "open at the start, on loopback": (replace(before, asked=family.loopback), Reason.LOOPBACK),
        "open at the start, in the host's namespace": (replace(before, netns_cookie=HOST), Reason.OTHER_NAMESPACE),
    }


@pytest.mark.parametrize("name", table(V4))
@pytest.mark.parametrize("family", [V4, V6], ids=lambda family: family.name)
def test_each_row(family: Family, name: str) -> None:
    connection, expected = table(family)[name]
    judged = judge(connection, GOVERNANCE)
    if expected is None:
        assert judged is None
    else:
        assert judged is not None
        assert (judged.agent, judged.reason, judged.attribution) == ("demo/planner", expected, Attribution.CGROUP)
        assert judged.verdict is VERDICTS[expected]


def test_the_table_has_every_reason() -> None:
    said = {reason for family in (V4, V6) for _, reason in table(family).values()}
    assert said - {None} == set(Reason)
    assert set(VERDICTS) == set(SENTENCES) == set(Reason)


@pytest.mark.parametrize("family", [V4, V6], ids=lambda family: family.name)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, Verdict.THROUGH_GATE),
        ({"process": 9}, None),  # the gate's own process
        ({"process": 0}, None),  # no process known: it may be the gate's
        ({"netns_cookie": HOST}, None),
        ({"went": None, "accepted_by": None, "established": False}, Verdict.LOCAL),
        ({"accepted_by": None}, Verdict.UNATTRIBUTABLE),
    ],
)
def test_without_a_cgroup_the_namespace_tells_whose_it_is(family: Family, change: dict[str, object], expected: Verdict | None) -> None:
    governed = replace(GOVERNED, cgroups=frozenset(), listeners=tuple(replace(item, cgroup_id=0) for item in GOVERNED.listeners))
    governance = Governance(agents=(governed,), gate_processes=frozenset({9}))
    judged = judge(replace(through(family), **{"cgroups": frozenset({1}), "accepted_by": 1, **change}), governance)  # type: ignore[arg-type]
    if expected is None:
        assert judged is None
    else:
        assert judged is not None
        assert (judged.verdict, judged.attribution) == (expected, Attribution.NAMESPACE)


def test_of_two_agents_each_has_its_own() -> None:
    second = Governed(agent="demo/other", cgroups=frozenset({AGENT + 1}), namespaces=frozenset({OWN + 1}))
    governance = Governance(agents=(GOVERNED, second), gate_cgroups=frozenset({GATE}))
    judged = judge(replace(through(V4), cgroups=frozenset({AGENT + 1}), netns_cookie=OWN + 1), governance)
    assert judged is not None
    assert (judged.agent, judged.reason) == ("demo/other", Reason.LOOPBACK)  # it has no listener there: a loopback of its own
