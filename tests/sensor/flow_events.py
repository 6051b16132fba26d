"""Events of a governed agent's connections as the kernel tells them, and a tracker that knows the agent."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from sensor.events import TCP, UDP, Endpoint, Event, Flag, Operation
from sensor.flows import FlowTracker
from sensor.verdict import Governance, Governed, Listener

AGENT, GATE, OTHER = 101, 7, 55  # cgroups
OWN, HOST = 4001, 1  # cookies of network namespaces
MS = 1_000_000
SECOND = 1000 * MS
BOOT_WALL = 1_700_000_000 * SECOND


def at(ip: str, port: int) -> Endpoint:
    return Endpoint(ip_address(ip), port)


PROXY, RESOLVER = at("127.0.0.1", 15001), at("127.0.0.1", 15053)
QUESTION, OUTSIDE = at("192.0.2.1", 53), at("198.18.0.7", 443)
GOVERNANCE = Governance(
    agents=(
        Governed(
            agent="demo/planner",
            cgroups=frozenset({AGENT}),
            namespaces=frozenset({OWN}),
            listeners=(
                Listener(protocol=TCP, endpoint=PROXY, cgroup_id=GATE),
                Listener(protocol=UDP, endpoint=RESOLVER, cgroup_id=1),
                Listener(protocol=TCP, endpoint=RESOLVER, cgroup_id=1),
            ),
        ),
    ),
    gate_cgroups=frozenset({GATE}),
)


def tracker(governance: Governance = GOVERNANCE, **settings: Any) -> FlowTracker:
    made = FlowTracker(boot="boot", wall_ns=lambda time_ns: BOOT_WALL + time_ns, **settings)
    made.govern(governance)
    return made


def event(operation: Operation, time_ns: int, cookie: int = 0, **more: Any) -> Event:
    told = {"family": 2, "protocol": TCP, "cgroup_id": AGENT, "netns_cookie": OWN, **more}
    return Event(operation=operation, time_ns=time_ns, cookie=cookie, **told)


def asked(time_ns: int, cookie: int, **more: Any) -> Event:
    told = {"remote": OUTSIDE, "process": 4242, "started_ns": 5, "uid": 1000, "command": "python3", **more}
    return event(Operation.CONNECT, time_ns, cookie, **told)


def sent(time_ns: int, cookie: int, **more: Any) -> Event:
    told = {"remote": PROXY, "asked": OUTSIDE, "interface": 1, "netns_cookie": 0, **more}
    return event(Operation.SENT, time_ns, cookie, **told)


def closed(time_ns: int, cookie: int, **more: Any) -> Event:
    return event(Operation.CLOSED, time_ns, cookie, **{"sent_bytes": 10, "received_bytes": 20, **more})


def through(cookie: int, start_ns: int, *, by: int = GATE, end_ns: int | None = None) -> list[Event]:
    """All events of a connection that the gate took; its client port follows from the cookie."""
    client = at("192.0.2.2", 1024 + cookie % 60_000)
    made = [
        asked(start_ns, cookie),
        sent(start_ns + 1, cookie),
        event(Operation.ACCEPTED, start_ns + 2, 1 << 40 | cookie, cgroup_id=by, local=PROXY, remote=client),
        event(Operation.ESTABLISHED, start_ns + 3, cookie, local=client, remote=OUTSIDE),
    ]
    return made if end_ns is None else [*made, replace(closed(end_ns, cookie), local=client)]


def around(cookie: int, start_ns: int, *, end_ns: int | None = None) -> list[Event]:
    """All events of a connection that nothing redirected."""
    client = at("192.0.2.2", 1024 + cookie % 60_000)
    made = [
        asked(start_ns, cookie),
        sent(start_ns + 1, cookie, remote=OUTSIDE, interface=2),
        event(Operation.ESTABLISHED, start_ns + 3, cookie, local=client, remote=OUTSIDE),
    ]
    return made if end_ns is None else [*made, closed(end_ns, cookie)]


def refused(cookie: int, start_ns: int) -> list[Event]:
    """An attempt of which no packet left."""
    return [asked(start_ns, cookie), closed(start_ns + 2, cookie, sent_bytes=0, received_bytes=0)]


def question(cookie: int, start_ns: int, destination: Endpoint = QUESTION, went: Endpoint = RESOLVER, *, hook: bool = True) -> list[Event]:
    """A datagram to `destination`, over a socket that is not connected, or one that is."""
    flags = Flag.DATAGRAM_HOOK if hook else Flag(0)
    return [
        asked(start_ns, cookie, protocol=UDP, remote=destination, flags=flags),
        sent(
            start_ns + 1, cookie, protocol=UDP, remote=went, asked=None if hook else destination, interface=1 if went != destination else 2
        ),
    ]
