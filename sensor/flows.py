"""Events to flows: what the kernel told of one socket, joined by its cookie, judged, and told as records. Pure: time comes in.

A connection is told once when it is over (`Ended`), and before that when it has been open for a while or is known to go around the gate
(`Begun`). A datagram socket is told once for each destination, since nothing tells its end. Ids follow from the boot, the cookie and the
place in the cookie's life, so that two sensors, or one that was started again, tell of the same connection by the same id.

Nothing is decided before a socket has been quiet for a moment: events of one connection come from several processors, in any order, and
may come twice. Only sockets of governed agents are kept, and a bounded number of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from hopgate.audit.records import Flow
from sensor import flow_records
from sensor.bounded import remember
from sensor.connections import OpenSocket, Seen, attempts_of, clients_of, datagrams_of, see, started_of
from sensor.events import TCP, Endpoint, Event, Flag, Operation, Wanted
from sensor.flow_records import Phase
from sensor.verdict import Governance, Judgement, Verdict, judge

_SECOND: Final = 1_000_000_000
# Events of one connection are in one ring and read together; this is for those that a busy processor wrote late.
SETTLE_NS: Final = _SECOND // 5
# Open for so long, a connection is told before its end.
LASTING_NS: Final = 5 * _SECOND
# An attempt without an answer is given up by the kernel after 127 s (tcp_syn_retries 6, ip-sysctl).
UNANSWERED_NS: Final = 150 * _SECOND
# A datagram socket that was connected and has not sent: libraries do that to learn their own address.
UNSENT_NS: Final = 60 * _SECOND
_LOOK_NS: Final = _SECOND
# Of about 3 KB each. What is beyond is told as it is, and counted.
MAX_SOCKETS: Final = 8_192
_MAX_DONE: Final = 32_768
# Of one socket that are not told yet; a socket of a program that does nothing but try again has no more to say.
_MAX_EVENTS: Final = 64
_FOR_EVER: Final = 1 << 64
_OF_SOCKETS: Final = frozenset({Operation.CONNECT, Operation.SENT, Operation.ESTABLISHED, Operation.CLOSED, Operation.SPECIAL_SOCKET})


@dataclass(slots=True)
class Counters:
    """What the tracker has done. `events` are those of governed agents' sockets; `evicted` sockets were told before their end."""

    events: int = 0
    flows: int = 0
    bypasses: int = 0
    evicted: int = 0
    lost_events: int = 0


@dataclass(slots=True)
class _Socket:
    """One cookie. `number` counts the connections that it had before the first in `events`, `told` is what was said of that one.

    What happened until `over_ns` is told already. Times are nanoseconds since boot.
    """

    number: int = 0
    over_ns: int = -1
    events: list[Event] = field(default_factory=list)
    before: OpenSocket | None = None
    changed_ns: int = 0
    told: Verdict | None = None


class FlowTracker:
    """The open sockets of governed agents. `boot` is the machine's boot id, `wall_ns` turns the kernel's times into Unix ones."""

    def __init__(self, *, boot: str, wall_ns: Callable[[int], int], max_sockets: int = MAX_SOCKETS) -> None:
        self.counters = Counters()
        self._boot = boot
        self._wall_ns = wall_ns
        self._max_sockets = max_sockets
        self._governance = Governance()
        self._cgroups: frozenset[int] = frozenset()
        self._namespaces: frozenset[int] = frozenset()
        self._sockets: OrderedDict[object, _Socket] = OrderedDict()
        self._changed: dict[object, None] = {}
        self._done: OrderedDict[object, tuple[int, int]] = OrderedDict()
        self._told_ids: OrderedDict[str, None] = OrderedDict()
        self._accepted: OrderedDict[tuple[int, Endpoint], Event] = OrderedDict()
        self._names: OrderedDict[object, str] = OrderedDict()
        self._evicted: list[Flow] = []
        self._lost_ns = -1
        self._looked_ns = 0

    def govern(self, governance: Governance) -> None:
        """Put `governance` in force for what is judged from now on."""
        self._governance = governance
        self._cgroups = frozenset().union(*(governed.cgroups for governed in governance.agents))
        self._namespaces = frozenset().union(*(governed.namespaces for governed in governance.agents))

    def wanted(self) -> Wanted:
        """Which events can be of governed agents' connections; a zero cookie or namespace names none."""
        return Wanted(cgroups=self._cgroups, namespaces=self._namespaces, cookies=self._sockets)

    def add_event(self, event: Event, now_ns: int) -> None:
        """Take in one event; any order, also twice. `now_ns` is when it was read."""
        if event.operation is Operation.ACCEPTED:
            self._accept(event)
            return
        if event.operation not in _OF_SOCKETS:
            return
        key: object = event.cookie or (event.process, event.started_ns, event.time_ns)
        held = self._sockets.get(key)
        if held is None:
            if not self._is_governed(event.cgroup_id, event.netns_cookie, event.process):
                return
            number, over_ns = self._done.get(key, (0, -1))
            if event.time_ns <= over_ns:
                return
            held = self._hold(key, _Socket(number=number, over_ns=over_ns), now_ns)
        elif event.time_ns <= held.over_ns or event in held.events or len(held.events) >= _MAX_EVENTS:
            return
        self.counters.events += 1
        held.events.append(event)
        held.events.sort(key=lambda each: (each.time_ns, each.operation))
        self._touch(key, held, now_ns)

    def add_open(self, found: OpenSocket, now_ns: int) -> None:
        """Take in a connection that stood before the events began. Of one that events told of already, those count."""
        known = found.cookie in self._sockets or found.cookie in self._done
        if not known and (found.cgroup_id in self._cgroups or found.netns_cookie in self._namespaces):
            self._touch(found.cookie, self._hold(found.cookie, _Socket(before=found), now_ns), now_ns)

    def older(self) -> frozenset[int]:
        """The cookies of connections that stood before the events began: the kernel does not tell their end."""
        return frozenset(held.before.cookie for held in self._sockets.values() if held.before is not None)

    def end_older(self, cookies: Iterable[int], now_ns: int) -> list[Flow]:
        """Tell of the end of those older connections that are no longer there."""
        told: list[Flow] = []
        for cookie in cookies:
            held = self._sockets.get(cookie)
            if held is not None and held.before is not None:
                told += self._flow(self._see(held.events, held.before), (cookie, held.number), Phase.ENDED, now_ns)
                held.number, held.over_ns = held.number + 1, now_ns
                self._drop(cookie, held)
        return told

    def name_socket(self, cookie: int, name: str) -> None:
        """The name that a handshake on this socket asked for."""
        remember(self._names, cookie, name, self._max_sockets)

    def name_address(self, cgroup_id: int, address: str, name: str) -> None:
        """The name whose answer this address was, asked by a program of this cgroup."""
        remember(self._names, (cgroup_id, address), name, self._max_sockets)

    def lose(self, count: int, now_ns: int) -> None:
        """`count` events were lost before `now_ns`: what began before that is not taken as seen whole."""
        self.counters.lost_events += count
        self._lost_ns = now_ns

    def due(self, now_ns: int) -> list[Flow]:
        """What is to be told by now."""
        told, self._evicted = self._evicted, []
        if now_ns - self._looked_ns >= _LOOK_NS:
            self._looked_ns = now_ns
            self._changed = dict.fromkeys(self._sockets)
        for key in tuple(self._changed):
            held = self._sockets[key]
            if now_ns - held.changed_ns >= SETTLE_NS:
                del self._changed[key]
                told += self._tell(key, held, now_ns, last=False)
        return told

    def finish(self, now_ns: int) -> list[Flow]:
        """What was not told yet, at the end of the sensor: what is open stays open, and is told as begun."""
        told, self._evicted = self._evicted, []
        for key, held in tuple(self._sockets.items()):
            told += self._tell(key, held, now_ns, last=True)
        return told

    def _is_governed(self, cgroup_id: int, netns_cookie: int, process: int) -> bool:
        if cgroup_id in self._cgroups:
            return True
        if netns_cookie not in self._namespaces:
            return False
        of = self._governance.attribute(cgroups=frozenset({cgroup_id}), netns_cookie=netns_cookie, process=process)
        return of is not None

    def _accept(self, event: Event) -> None:
        """Keep who accepted, by who asked. The newest counts: a port is used again only when its connection is over."""
        if event.remote is None or event.netns_cookie not in self._namespaces:
            return
        key = (event.netns_cookie, event.remote)
        known = self._accepted.get(key)
        if known is None or known.time_ns < event.time_ns:
            remember(self._accepted, key, event, 2 * self._max_sockets)

    def _acceptance(self, events: list[Event], before: OpenSocket | None) -> Event | None:
        began_ns = started_of(events, before)
        found = (self._accepted.get(client) for client in clients_of(events, before))
        return next((event for event in found if event is not None and event.time_ns >= began_ns), None)

    def _hold(self, key: object, made: _Socket, now_ns: int) -> _Socket:
        if len(self._sockets) >= self._max_sockets:
            oldest, held = next(iter(self._sockets.items()))
            self.counters.evicted += 1
            self._evicted += self._tell(oldest, held, now_ns, last=True)
            held.over_ns = _FOR_EVER  # without what was let go its end can't be judged
            self._drop(oldest, held)
        self._sockets[key] = made
        return made

    def _touch(self, key: object, held: _Socket, now_ns: int) -> None:
        held.changed_ns = now_ns
        self._changed[key] = None

    def _drop(self, key: object, held: _Socket) -> None:
        self._sockets.pop(key, None)
        self._changed.pop(key, None)
        remember(self._done, key, (held.number, held.over_ns), _MAX_DONE)

    def _tell(self, key: object, held: _Socket, now_ns: int, *, last: bool) -> list[Flow]:
        if any(event.operation is Operation.SPECIAL_SOCKET for event in held.events):
            return list(self._tell_special(key, held, now_ns))
        if held.before is None and held.events[0].protocol != TCP:
            return list(self._tell_datagrams(key, held, now_ns, last=last))
        return list(self._tell_connections(key, held, now_ns, last=last))

    def _tell_special(self, key: object, held: _Socket, now_ns: int) -> Iterator[Flow]:
        """Once: what goes over such a socket afterwards adds nothing."""
        yield from self._flow(self._see(held.events, None), (key, 0), Phase.BEGUN, now_ns)
        held.over_ns = _FOR_EVER
        self._drop(key, held)

    def _tell_connections(self, key: object, held: _Socket, now_ns: int, *, last: bool) -> Iterator[Flow]:
        attempts = attempts_of(held.events) or [[]]
        for place, events in enumerate(attempts):
            seen = self._see(events, held.before)
            if place + 1 == len(attempts) and not _is_over(seen, now_ns):
                yield from self._tell_open(key, held, seen, now_ns, told=last)
                held.events = events
                return
            if held.before is not None or any(event.operation is not Operation.CLOSED for event in events):
                yield from self._flow(seen, (key, held.number), Phase.ENDED, now_ns)
                held.number += 1
            held.over_ns = max(held.over_ns, events[-1].time_ns)
            held.before = held.told = None
        self._drop(key, held)

    def _tell_open(self, key: object, held: _Socket, seen: Seen, now_ns: int, *, told: bool) -> Iterator[Flow]:
        """Tell of an open connection once when it is time to, and when it turns out to go around the gate."""
        judged = judge(seen.connection, self._governance)
        if judged is None or held.told is Verdict.BYPASS:
            return
        around = judged.verdict is Verdict.BYPASS
        if around or (held.told is None and (told or now_ns - seen.began_ns >= LASTING_NS)):
            held.told = judged.verdict
            yield from self._flow(seen, (key, held.number), Phase.BEGUN, now_ns)

    def _tell_datagrams(self, key: object, held: _Socket, now_ns: int, *, last: bool) -> Iterator[Flow]:
        kept = []
        for events in datagrams_of(held.events):
            asked_only = len(events) == 1 and events[0].operation is Operation.CONNECT and not events[0].flags & _REFUSED
            if not asked_only:
                seen = self._see(events, None)
                identifier = flow_records.identify(self._boot, key, seen.connection.asked or seen.connection.went)
                if identifier not in self._told_ids:
                    remember(self._told_ids, identifier, None, _MAX_DONE)
                    yield from self._flow(seen, (key, seen.connection.asked or seen.connection.went), Phase.BEGUN, now_ns)
            elif now_ns - events[0].time_ns < UNSENT_NS and not last:
                kept += events
        held.events = kept
        if not kept:
            self._drop(key, held)

    def _see(self, events: list[Event], before: OpenSocket | None) -> Seen:
        whole = self._lost_ns < started_of(events, before)
        return see(events, before, self._acceptance(events, before), whole=whole)

    def _flow(self, seen: Seen, place: tuple[object, object], phase: Phase, now_ns: int) -> Iterator[Flow]:
        judged = judge(seen.connection, self._governance)
        if judged is not None:
            self._count(judged)
            identifier = flow_records.identify(self._boot, *place)
            yield flow_records.flow(identifier, seen, judged, phase, name=self._name(seen), now_ns=now_ns, wall_ns=self._wall_ns)

    def _count(self, judged: Judgement) -> None:
        self.counters.flows += 1
        self.counters.bypasses += judged.verdict is Verdict.BYPASS

    def _name(self, seen: Seen) -> str:
        asked = seen.connection.asked
        keys: list[object] = [seen.cookie]
        if asked is not None:
            keys += [(cgroup_id, str(asked.ip)) for cgroup_id in seen.connection.cgroups]
        return next((self._names[key] for key in keys if key in self._names), "")


# A datagram whose hook saw it asked for, and that nothing followed, was refused; a connect hook's question is no datagram yet.
_REFUSED: Final = Flag.DATAGRAM_HOOK | Flag.BLOCKED


def _is_over(seen: Seen, now_ns: int) -> bool:
    """Also when nobody tells: an attempt that was refused, or never answered, leaves no other event."""
    return seen.closed is not None or (not seen.connection.established and now_ns - seen.began_ns >= UNANSWERED_NS)
