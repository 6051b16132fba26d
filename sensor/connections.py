"""What the events of one socket amount to: its connections one after the other, or its destinations, as values to be judged. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sensor.events import Endpoint, Event, Flag, Operation
from sensor.verdict import Connection, SpecialSocket

# linux/if.h: the loopback interface is the first of every network namespace.
_LOOPBACK_INTERFACE: Final = 1
_PACKET_FAMILY: Final = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSocket:
    """A connection that stood before the events began, as sock_diag lists it. `accepted_at` and `accepted_by` are of its other end, where
    that was found among the accepted sockets of the same network namespace; /proc/PID/fd of who holds it names `inode`."""

    cookie: int
    protocol: int
    cgroup_id: int
    netns_cookie: int
    uid: int
    seen_ns: int
    local: Endpoint | None
    remote: Endpoint | None
    inode: int = 0
    accepted_at: Endpoint | None = None
    accepted_by: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A connection with what its record says of it beside the verdict. Times are nanoseconds since boot."""

    connection: Connection
    cookie: int
    cgroup_id: int
    began_ns: int
    local: Endpoint | None
    program: Event | None
    uid: int
    closed: Event | None


def attempts_of(events: Sequence[Event]) -> list[list[Event]]:
    """The connections of a stream socket in turn; `events` in the order of their times. A socket whose attempt failed may try again."""
    attempts: list[list[Event]] = []
    for event in events:
        if not attempts or event.operation is Operation.CONNECT:
            attempts.append([])
        attempts[-1].append(event)
    return attempts


def datagrams_of(events: Sequence[Event]) -> list[list[Event]]:
    """The events of a datagram socket by destination: each begins with its CONNECT, or is a SENT without one.

    A packet belongs to the question for the same destination; one that the rules turned, to the last question before it.
    """
    asked = [[event] for event in events if event.operation is Operation.CONNECT]
    alone = []
    for event in events:
        if event.operation is Operation.CONNECT:
            continue
        named = (event.asked or event.remote,)
        exact = next((group for group in asked if group[0].remote in named), None)
        before = [group for group in asked if group[0].time_ns <= event.time_ns]
        if exact is not None:
            exact.append(event)
        elif before and event.asked is None:
            before[-1].append(event)
        else:
            alone.append([event])
    return asked + alone


def started_of(events: Sequence[Event], before: OpenSocket | None) -> int:
    """When a connection began, or was first seen."""
    return events[0].time_ns if before is None else before.seen_ns


def clients_of(events: Sequence[Event], before: OpenSocket | None) -> list[tuple[int, Endpoint]]:
    """The network namespace and the local endpoints of the asking side, as far as they are known: its other end knows it by one of them.

    The socket's own comes first; its first packet may have another.
    """
    if before is not None:
        return [(before.netns_cookie, before.local)] if before.local is not None else []
    netns_cookie = next((event.netns_cookie for event in events if event.netns_cookie), 0)
    by_socket = sorted(events, key=lambda event: event.operation is Operation.SENT)
    return [(netns_cookie, event.local) for event in by_socket if event.local is not None]


def see(events: Sequence[Event], before: OpenSocket | None, acceptance: Event | None, *, whole: bool) -> Seen:
    """What is known of one connection, from its events, or from what sock_diag said of it; of one of the two at least.

    `acceptance` is the event of its other end; `whole`: no event was lost meanwhile.
    """
    asking = next((event for event in events if event.operation is Operation.CONNECT), None)
    sent = next((event for event in events if event.operation is Operation.SENT), None)
    program = next((event for event in events if event.process), None)
    client = next(iter(clients_of(events, before)), None)
    if before is not None:
        connection = _open_connection(before)
    else:
        connection = Connection(
            protocol=next((event.protocol for event in events if event.protocol), 0),
            cgroups=frozenset(event.cgroup_id for event in events if event.cgroup_id),
            netns_cookie=next((event.netns_cookie for event in events if event.netns_cookie), 0),
            process=program.process if program is not None else 0,
            asked=_asked(asking, sent, events),
            went=sent.remote if sent is not None else None,
            loopback=sent is not None and sent.interface == _LOOPBACK_INTERFACE,
            established=any(event.operation is Operation.ESTABLISHED for event in events),
            accepted_by=acceptance.cgroup_id if acceptance is not None and sent is not None and acceptance.local == sent.remote else None,
            special=_special(events),
            blocked=any(event.flags & Flag.BLOCKED for event in events),
            whole=whole,
        )
    return Seen(
        connection=connection,
        cookie=before.cookie if before is not None else events[0].cookie,
        cgroup_id=before.cgroup_id if before is not None else events[0].cgroup_id,
        began_ns=started_of(events, before),
        local=client[1] if client is not None else None,
        program=program,
        uid=program.uid if program is not None else before.uid if before is not None else 0,
        closed=next((event for event in events if event.operation is Operation.CLOSED), None),
    )


def _open_connection(before: OpenSocket) -> Connection:
    return Connection(
        protocol=before.protocol,
        cgroups=frozenset({before.cgroup_id}),
        netns_cookie=before.netns_cookie,
        asked=before.remote,
        went=before.accepted_at,
        loopback=before.accepted_at is not None,
        established=True,
        accepted_by=before.accepted_by,
        from_start=False,
    )


def _asked(asking: Event | None, sent: Event | None, events: Sequence[Event]) -> Endpoint | None:
    """What the program asked for; else what its socket did; else, of a connection whose first packet was not seen, where it stands."""
    if asking is not None and asking.remote is not None:
        return asking.remote
    if sent is not None:
        return sent.asked
    return next((event.remote for event in events if event.operation is Operation.ESTABLISHED), None)


def _special(events: Iterable[Event]) -> SpecialSocket | None:
    found = next((event for event in events if event.operation is Operation.SPECIAL_SOCKET), None)
    if found is None:
        return None
    return SpecialSocket.PACKET if found.family == _PACKET_FAMILY else SpecialSocket.RAW
