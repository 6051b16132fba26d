"""From events, first bytes and what /proc says to sightings. Does no I/O: whoever makes it hands in how processes and cgroups are read.

A call is attributed by its socket's cookie to the process that asked for the connection, as the kernel named it then; where that is not
known, by its cgroup to a container or unit. A process is read when it begins a program and when it first connects, since a short one is
gone before anything can be said of its call, and again with the evidence, since libraries are loaded later. All memory is bounded; what
is dropped is counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from sensor import call_evidence, containers, process_evidence, sightings
from sensor.bounded import remember
from sensor.events import TCP, Event, Operation, Wanted
from sensor.evidence import DEFINITIONS, REPEATED_CONNECTIONS, Aspect, Evidence, EvidenceKind, weigh
from sensor.handshakes.seen import Answer, Hello, Http2, Origin, Request, Seen
from sensor.processes import Process
from sensor.providers import Providers
from sensor.sightings import Program, Reached, Sighting
from sensor.verdict import Governance

_SECOND: Final = 1_000_000_000
# The events that are looked at; the rest need not be read.
WANTED: Final = Wanted(operations=frozenset({Operation.CONNECT, Operation.ESTABLISHED, Operation.EXECUTED}))
MAX_SIGHTINGS: Final = 1024
# Of one sighting.
MAX_REACHED: Final = 32
MAX_EVIDENCE: Final = 64
_MAX_SOCKETS: Final = 65_536
_MAX_PROCESSES: Final = 4096
_MAX_UNSPOKEN: Final = 8192
# One read is some 0.3 ms: 6 % of a core at most for a machine that starts programs without end. Beyond, a process is read when it matters.
_READS_PER_SECOND: Final = 200
# What is older is read again when there is something to say of the process.
_FRESH_NS: Final = _SECOND
# A connection whose address is known by name says whom it is for by its handshake, if it makes one that can be read.
_HANDSHAKE_NS: Final = 3 * _SECOND
# Numbers alone are told no more often.
_TELL_NS: Final = 5 * _SECOND

ReadProcess = Callable[[int, int], Process | None]
NamesOf = Callable[[int, IPv4Address | IPv6Address, int], tuple[str, ...]]


@dataclass(slots=True)
class Counters:
    """What discovery has done. `unread` calls are of processes gone before they could be read, `evicted` sightings dropped for room."""

    calls: int = 0
    unread: int = 0
    evicted: int = 0


@dataclass(slots=True)
class _Known:
    """A process as it was read; `early`: before it did anything but begin."""

    process: Process | None
    started_ns: int
    read_ns: int
    early: bool = False


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who called, as the kernel's events name it; 0 where they don't."""

    cgroup_id: int = 0
    netns_cookie: int = 0
    process: int = 0


@dataclass(slots=True)
class _Held:
    """A sighting while it grows."""

    program: Program
    first_ns: int
    last_ns: int
    agent: str = ""
    caller: _Caller = _Caller()
    processes: set[tuple[int, int]] = field(default_factory=set)
    evidence: dict[Evidence, None] = field(default_factory=dict)
    reached: dict[str, list[int]] = field(default_factory=dict)
    others: int = 0
    connections: int = 0
    model_calls: int = 0
    told: object = None
    told_ns: int = 0
    changed: bool = True

    def add(self, pieces: Iterable[Evidence]) -> None:
        for piece in pieces:
            # The first of a kind always has room: the weight hangs on it.
            if len(self.evidence) < MAX_EVIDENCE or all(piece.kind is not known.kind for known in self.evidence):
                self.evidence[piece] = None
        self.changed = True


class Discovery:
    """All sightings.

    `read_process` takes a process id and a start time (0: not known); `cgroup_path` a cgroup's id, and gives nothing when it is gone;
    `names_of` a cgroup's id, an address and a time, and gives the names that it was looked up by, the last one first.
    """

    def __init__(
        self,
        *,
        providers: Providers,
        read_process: ReadProcess,
        cgroup_path: Callable[[int], str],
        names_of: NamesOf,
        wall_ns: Callable[[int], int],
    ) -> None:
        self.counters = Counters()
        self._providers = providers
        self._read_process = read_process
        self._cgroup_path = cgroup_path
        self._names_of = names_of
        self._wall_ns = wall_ns
        self._governance = Governance()
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._sockets: OrderedDict[int, Event] = OrderedDict()
        self._processes: OrderedDict[int, _Known] = OrderedDict()
        self._executed: OrderedDict[int, str] = OrderedDict()
        self._unspoken: OrderedDict[int, tuple[int, str]] = OrderedDict()
        self._reads = (0, 0)

    def govern(self, governance: Governance) -> None:
        """Put `governance` in force, also for what was seen before; an agent that has ended meanwhile stays one."""
        self._governance = governance
        for key, held in list(self._held.items()):
            if self._is_gate(held.caller.cgroup_id, held.caller.process):
                del self._held[key]
            elif agent := self._agent(held.caller):
                held.changed |= agent != held.agent
                held.agent = agent

    def add_event(self, event: Event) -> None:
        """Take in one event, in the order of the ring."""
        match event.operation:
            case Operation.CONNECT:
                remember(self._sockets, event.cookie, event, _MAX_SOCKETS)
                self._read_early(event, early=False)
            case Operation.ESTABLISHED:
                self._expect_handshake(event)
            case Operation.EXECUTED:
                self._processes.pop(event.process, None)
                self._read_early(event, early=True)
            case _:
                pass

    def _expect_handshake(self, event: Event) -> None:
        if event.remote is None or event.protocol != TCP:
            return
        # Several names share an address: what was looked up last is what the connection is for.
        name = next(iter(self._names_of(event.cgroup_id, event.remote.ip, event.time_ns)), "")
        if name and self._providers.provider_of(name) is not None:
            remember(self._unspoken, event.cookie, (event.time_ns, name), _MAX_UNSPOKEN)

    def add_executed(self, process: int, path: str) -> None:
        """The file that a process executes now."""
        remember(self._executed, process, path, _MAX_PROCESSES)

    def add_seen(self, seen: Seen) -> None:
        """What first bytes said."""
        match seen:
            case Hello():
                self._hello(seen)
            case Request():
                self._request(seen)
            case Answer():
                if (found := call_evidence.of_name(seen.answer.name, self._providers)) is not None:
                    self._call(seen.origin, [found], "")
            case Http2():
                self._unspoken.pop(seen.origin.cookie, None)

    def _hello(self, hello: Hello) -> None:
        self._unspoken.pop(hello.origin.cookie, None)
        found = call_evidence.of_hello(hello.server_name, self._providers)
        if found is None:
            self._reach_if_held(hello.origin, hello.server_name)
            return
        pieces = [found]
        program, _ = self._program(self._sockets.get(hello.origin.cookie), hello.origin)
        if call_evidence.greets_as_browser(hello.ja4) and not process_evidence.is_browser(program.executable or program.name):
            pieces.append(Evidence(kind=EvidenceKind.BORROWED_HELLO, subject=hello.ja4))
        self._call(hello.origin, pieces, hello.server_name)

    def _request(self, request: Request) -> None:
        origin, head = request.origin, request.head
        self._unspoken.pop(origin.cookie, None)
        port = origin.remote.port if origin.remote is not None else 0
        pieces = call_evidence.of_request(head.method, head.target, head.headers, port, self._providers)
        if pieces:
            host = next((piece.subject.partition(" ")[0] for piece in pieces if DEFINITIONS[piece.kind].aspect is Aspect.MODEL), "")
            self._call(origin, pieces, host or str(origin.remote or ""))

    def add_running(self, process: Process, now_ns: int, netns_cookie: Callable[[], int]) -> bool:
        """A process that runs already; whether it is a sighting.

        Its files make it one. A key does not: a shell hands that to all that it starts. `netns_cookie` gives its network namespace.
        """
        pieces = tuple(process_evidence.of_process(process))
        if not any(DEFINITIONS[piece.kind].aspect is Aspect.FILES for piece in pieces) or self._is_gate(0, process.process):
            return False
        held = self._hold(sightings.program_of(process), now_ns)
        self._count_caller(held, _Caller(0, netns_cookie(), process.process), process.started_ns)
        held.add(pieces)
        return True

    def add_open(self, process: Process, remote: str, now_ns: int) -> None:
        """A connection that was open before the events began; told only of a program that is a sighting already."""
        held = self._held.get(sightings.program_of(process).id)
        if held is not None:
            self._reach(held, remote)
            held.last_ns = max(held.last_ns, now_ns)

    def settle(self, now_ns: int) -> None:
        """What time alone decides: a connection to a model's address that made no handshake is one by its address."""
        while self._unspoken:
            cookie, (began_ns, name) = next(iter(self._unspoken.items()))
            if now_ns - began_ns < _HANDSHAKE_NS:
                return
            del self._unspoken[cookie]
            socket = self._sockets.get(cookie)
            provider = self._providers.provider_of(name)
            if socket is not None and provider is not None:
                piece = Evidence(kind=EvidenceKind.MODEL_ADDRESS, subject=f"{name} ({provider.name})")
                self._sight(socket, *self._program(socket, None), [piece], name, began_ns)

    def sightings(self) -> list[Sighting]:
        """All of them, what is most likely an agent first."""
        found = [self._sighting(held) for held in self._held.values()]
        return sorted(found, key=lambda sighting: (-sighting.weight, -sighting.last_seen_ns, sighting.program.id))

    def changed(self, now_ns: int) -> list[Sighting]:
        """Those of which there is something new to say since the last call: evidence and places at once, numbers every few seconds."""
        told = []
        for held in self._held.values():
            if not held.changed:
                continue
            signature = (frozenset(held.evidence), frozenset(held.reached), held.agent)
            if signature == held.told and now_ns - held.told_ns < _TELL_NS:
                continue
            held.told, held.told_ns, held.changed = signature, now_ns, False
            told.append(self._sighting(held))
        return told

    def _call(self, origin: Origin, pieces: Iterable[Evidence], host: str) -> None:
        socket = self._sockets.get(origin.cookie)
        self._sight(socket or origin, *self._program(socket, origin), pieces, host, origin.time_ns)

    def _sight(
        self, seen: Event | Origin, program: Program, process: Process | None, pieces: Iterable[Evidence], host: str, time_ns: int
    ) -> None:
        """One call of a program. The gate's own calls are those of the agents behind it, and told by it."""
        caller = _Caller(seen.cgroup_id, seen.netns_cookie if isinstance(seen, Event) else 0, seen.process)
        if self._is_gate(caller.cgroup_id, caller.process):
            return
        self.counters.calls += 1
        held = self._hold(program, time_ns)
        self._count_caller(held, caller, seen.started_ns if isinstance(seen, Event) else 0)
        held.add(pieces)
        held.add(process_evidence.of_process(process) if process is not None else _of_program(program))
        if host:
            self._reach(held, host)
            held.model_calls += self._providers.provider_of(host) is not None
        if held.model_calls >= REPEATED_CONNECTIONS:
            held.add((Evidence(kind=EvidenceKind.REPEATED),))

    def _is_gate(self, cgroup_id: int, process: int) -> bool:
        return cgroup_id in self._governance.gate_cgroups or process in self._governance.gate_processes

    def _agent(self, caller: _Caller) -> str:
        """The governed agent that called; empty for none."""
        cgroups = frozenset({caller.cgroup_id})
        found = self._governance.attribute(cgroups=cgroups, netns_cookie=caller.netns_cookie, process=caller.process)
        return found[0].agent if found is not None else ""

    def _reach_if_held(self, origin: Origin, host: str) -> None:
        """A place that says nothing by itself: told of a program that is a sighting already, without reading the process for it."""
        socket = self._sockets.get(origin.cookie)
        known = self._processes.get(socket.process) if socket is not None else None
        if known is None or known.process is None or socket is None or known.started_ns != socket.started_ns:
            return
        held = self._held.get(sightings.program_of(known.process).id)
        if held is not None and host:
            self._reach(held, host)
            held.last_ns = max(held.last_ns, origin.time_ns)

    def _reach(self, held: _Held, host: str) -> None:
        held.connections += 1
        held.changed = True
        if host in held.reached:
            held.reached[host][0] += 1
        elif len(held.reached) < MAX_REACHED:
            held.reached[host] = [1]
        else:
            held.others += 1

    def _hold(self, program: Program, time_ns: int) -> _Held:
        held = self._held.get(program.id)
        if held is None:
            held = self._held[program.id] = _Held(program=program, first_ns=time_ns, last_ns=time_ns)
            if len(self._held) > MAX_SIGHTINGS:
                self._evict()
        held.last_ns = max(held.last_ns, time_ns)
        self._held.move_to_end(program.id)
        return held

    def _evict(self) -> None:
        """Drop what speaks least for an agent; of equals, what was seen the longest ago."""
        least = min(list(self._held)[:-1], key=lambda key: weigh(self._held[key].evidence))
        del self._held[least]
        self.counters.evicted += 1

    def _count_caller(self, held: _Held, caller: _Caller, started_ns: int) -> None:
        held.caller = caller
        held.agent = self._agent(caller)
        if caller.process and len(held.processes) < _MAX_PROCESSES:
            # /proc and the kernel's events give start times of different precision.
            held.processes.add((caller.process, started_ns // (_SECOND // 10)))

    def _program(self, socket: Event | None, origin: Origin | None) -> tuple[Program, Process | None]:
        """Who opened a socket: as /proc says, else as the kernel said at the event."""
        process, started_ns = (socket.process, socket.started_ns) if socket is not None else (origin.process if origin else 0, 0)
        cgroup_id = socket.cgroup_id if socket is not None else (origin.cgroup_id if origin else 0)
        time_ns = origin.time_ns if origin is not None else (socket.time_ns if socket is not None else 0)
        cgroup = self._cgroup_path(cgroup_id) if cgroup_id else ""
        found = self._process(process, started_ns, time_ns) if process else None
        if found is not None:
            return sightings.program_of(found, cgroup), found
        self.counters.unread += process != 0
        executable = self._executed.get(process, "") if process else ""
        name = executable.rpartition("/")[2] or (socket.command if socket is not None else "")
        uid = socket.uid if socket is not None else -1
        program = Program(name=name, executable=executable, shown=name, uid=uid, placement=containers.place(cgroup), cgroup=cgroup)
        return program, None

    def _read_early(self, event: Event, *, early: bool) -> None:
        """Read a process before there is anything to say of it, unless too many begin or connect at once."""
        known = self._processes.get(event.process)
        if not event.process or (known is not None and known.started_ns == event.started_ns and not known.early):
            return
        second = event.time_ns // _SECOND
        since, count = self._reads
        if second != since:
            since, count = second, 0
        if count < _READS_PER_SECOND:
            self._read(event.process, event.started_ns, event.time_ns, early=early)
        self._reads = (since, count + 1)

    def _process(self, process: int, started_ns: int, time_ns: int) -> Process | None:
        known = self._processes.get(process)
        if known is not None and known.started_ns == started_ns and not known.early and time_ns - known.read_ns < _FRESH_NS:
            return known.process
        return self._read(process, started_ns, time_ns, early=False)

    def _read(self, process: int, started_ns: int, time_ns: int, *, early: bool) -> Process | None:
        known = self._processes.get(process)
        found = self._read_process(process, started_ns)
        if found is None and known is not None and known.started_ns == started_ns:
            # What was read while it lived stays true of what it did.
            found = known.process
        kept = _Known(process=found, started_ns=started_ns, read_ns=time_ns, early=early)
        remember(self._processes, process, kept, _MAX_PROCESSES)
        return found

    def _sighting(self, held: _Held) -> Sighting:
        reached = [
            Reached(host=host, provider=provider.name if (provider := self._providers.provider_of(host)) else "", connections=count)
            for host, [count] in held.reached.items()
        ]
        return Sighting(
            program=held.program,
            process=held.caller.process,
            processes=len(held.processes),
            agent=held.agent,
            evidence=tuple(sorted(held.evidence, key=lambda piece: (-abs(piece.weight), piece))),
            reached=tuple(sorted(reached, key=lambda place: (not place.provider, -place.connections, place.host))),
            others=held.others,
            connections=held.connections,
            first_seen_ns=self._wall_ns(held.first_ns),
            last_seen_ns=self._wall_ns(held.last_ns),
        )


def _of_program(program: Program) -> Iterator[Evidence]:
    """What is known without /proc: the program's name, and the place that its cgroup names."""
    if program.placement.unattended:
        yield Evidence(kind=EvidenceKind.UNATTENDED, subject=str(program.placement))
    yield from process_evidence.of_program(program.executable or program.name)
