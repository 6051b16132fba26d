"""The sensor beside a gate: reads the kernel, tracks the connections of the gate's agents, writes flows.

It asks for nothing and decides nothing: without it agents run as before, and what it does not see is said. The kernel's rings are read by a
timer, since they hold seconds of events at any rate worth speaking of, and a wake-up for each event costs more than the event.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

from hopgate import children
from hopgate.audit.errors import AuditError
from hopgate.audit.records import Record
from hopgate.audit.spool import Durability, Spool, new_writer
from hopgate.children import Applied, Failed, MessageError, Ready
from sensor import discovery, enforcement, open_connections, shadow_agents, sighting_records, state
from sensor.bounded import remember
from sensor.clock import now_ns, wall_ns
from sensor.connections import OpenSocket
from sensor.discovery import Discovery
from sensor.events import Event, Payload, Wanted
from sensor.flows import FlowTracker
from sensor.handshakes.first_bytes import FirstBytes
from sensor.handshakes.seen import Answer, Hello, Seen
from sensor.kernel import Kernel, KernelError
from sensor.open_connections import ListingError
from sensor.providers import Providers
from sensor.resource_quarantines import ResourceQuarantines
from sensor.shadow_folder import ShadowFolder
from sensor.sightings import Sighting
from sensor.state import Report, State
from sensor.verdict import Governance, Governed
from sensor.watch import Watch

_log = logging.getLogger("sensor")
POLL_SECONDS: Final = 0.05
# A second, of the whole machine: beyond it events of nobody's here are passed over, so that none of a governed agent's is lost.
MOST_SHADOW_EVENTS: Final = 10_000
# How late the end of a connection that is older than the sensor is told; nothing is listed while there is none.
OLDER_SECONDS: Final = 5.0
# Cgroups and namespaces are never numbered again, so agents that have ended do no harm; their last events come after their end.
_KEPT_AGENTS: Final = 1_024
_MOST_UNTOLD: Final = 16
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class ShadowTeller(Protocol):
    """Where shadow agents are told of beside the records."""

    def tell(self, seen: Sighting) -> bool:
        """Tell what was seen. False when it can't be: there is no room, or what was told before can't be read. Raises OSError."""


class Sensor:
    """What the process is made of. `spool`, `kernel` and `shadows` are the caller's to close; None: shadow agents are not looked for.

    `missing` says which rights the process lacks, a sentence each; `folder` is where shadow agents are told as resources; `quarantines`
    puts in force what resources say.
    """

    def __init__(
        self,
        kernel: Kernel,
        spool: Spool,
        shadows: Watch | None = None,
        *,
        missing: Sequence[str] = (),
        folder: ShadowTeller | None = None,
        quarantines: ResourceQuarantines | None = None,
    ) -> None:
        self._missing = tuple(missing)
        self._folder = folder
        self._quarantines = quarantines
        self._untold: OrderedDict[str, str] = OrderedDict()
        self._kernel = kernel
        self._shadows = shadows
        self._attempts = 0
        self._polled_ns = now_ns()
        self._not_looked_at = 0
        self._spool = spool
        self._tracker = FlowTracker(boot=_BOOT_ID.read_text(encoding="ascii").strip(), wall_ns=wall_ns)
        self._agents: OrderedDict[Governed, None] = OrderedDict()
        self._first_bytes = FirstBytes()
        self._lost = 0
        self._unwritten = 0
        self._unlisted = ""

    def apply(self, told: State) -> None:
        """Put the gate's state in force. Raises ValueError for one that can't be read."""
        governance = state.governance(told)
        if self._quarantines is not None:
            self._quarantines.govern(told)
        self.govern(governance)

    def govern(self, governance: Governance) -> None:
        """Judge by this from now on; what happened before is judged by the one before."""
        self.poll()
        for governed in governance.agents:
            self._agents[governed] = None
            self._agents.move_to_end(governed)
        while len(self._agents) > max(_KEPT_AGENTS, len(governance.agents)):
            self._agents.popitem(last=False)
        # The newest first: of two that name one namespace it is the one that is there.
        in_force = Governance(
            agents=tuple(reversed(self._agents)), gate_cgroups=governance.gate_cgroups, gate_processes=governance.gate_processes
        )
        self._tracker.govern(in_force)
        if self._shadows is not None:
            self._shadows.discovery.govern(in_force)

    async def list_open(self) -> None:
        """Take in what stood before the events began."""
        found = await self._listed()
        self.poll()
        for each in found or ():
            self._tracker.add_open(each, now_ns())

    def look_around(self) -> None:
        """Take in what runs already and may be a shadow agent."""
        if self._shadows is not None:
            self._shadows.begin()

    async def end_older(self) -> None:
        """Tell of the end of what stood before the events began: no event does."""
        older = self._tracker.older()
        if older and (found := await self._listed()) is not None:
            self._write(self._tracker.end_older(older - {each.cookie for each in found}, now_ns()))

    async def _listed(self) -> list[OpenSocket] | None:
        try:
            found = await asyncio.to_thread(open_connections.find, now_ns())
        except ListingError as error:
            self._unlisted = f"connections older than the sensor: {error}"
            return None
        self._unlisted = ""
        return found

    def poll(self) -> None:
        """Read what the kernel has, and write what is to be told by now."""
        read_at = now_ns()
        payloads = self._kernel.payloads()
        events = self._kernel.events(self._wanted(read_at))
        for seen in self._read_payloads(events, payloads):
            self._name(seen)
        for event in events:
            self._tracker.add_event(event, read_at)
        self._count_losses(read_at)
        self._write(self._tracker.due(read_at))
        if self._shadows is not None:
            self._tell_sightings(self._shadows.discovery)

    def _wanted(self, read_at: int) -> Wanted:
        """What is read of the ring: all that can be a flow, and what shadow agents are found by while there is not too much of it."""
        wanted = self._tracker.wanted()
        if self._shadows is None:
            return wanted
        attempts = self._kernel.counters()["events"].attempts
        told, self._attempts = attempts - self._attempts, attempts
        seconds, self._polled_ns = (read_at - self._polled_ns) / 1e9, read_at
        if told > MOST_SHADOW_EVENTS * max(POLL_SECONDS, seconds):
            self._not_looked_at += told
            return wanted
        return replace(wanted, operations=discovery.WANTED.operations)

    def _read_payloads(self, events: list[Event], payloads: list[Payload]) -> list[Seen]:
        """What the payloads say. Where shadow agents are looked for these are read there, with the events, and not once more."""
        if self._shadows is None:
            return [seen for payload in payloads for seen in self._first_bytes.take(payload)]
        return self._shadows.take([event for event in events if event.operation in discovery.WANTED.operations], payloads)

    def _tell_sightings(self, found: Discovery) -> None:
        at = now_ns()
        found.settle(at)
        changed = found.changed(at)
        told = (sighting_records.record(seen, time.time_ns()) for seen in changed)
        self._write([each for each in told if each is not None])
        for seen in changed:
            if self._folder is not None and shadow_agents.is_told(seen):
                self._file(self._folder, seen)

    def _file(self, folder: ShadowTeller, seen: Sighting) -> None:
        name = shadow_agents.name(seen.program)
        try:
            written = folder.tell(seen)
            reason = "its file can't be read, or there are too many"
        except OSError as error:
            written, reason = False, error.strerror or str(error)
        if written:
            self._untold.pop(name, None)
        else:
            remember(self._untold, name, f"the file of shadow agent `{name}` is not written: {reason}", _MOST_UNTOLD)

    async def finish(self) -> None:
        """Write what was not told yet."""
        self.poll()
        await self.end_older()
        self._write(self._tracker.finish(now_ns()))

    def report(self) -> Report:
        """How the sensor is."""
        counters = self._tracker.counters
        kernel = self._kernel.counters()
        return Report(
            loader=self._kernel.loader.value,
            why=self._kernel.why,
            unseen=(
                *(f"{hook.name}: {hook.reason or 'not attached'}" for hook in self._kernel.hooks if not hook.attached),
                *self._missing,
                *((self._unlisted,) if self._unlisted else ()),
                *self._untold.values(),
            ),
            unenforced=() if self._quarantines is None else self._quarantines.problems,
            counters={
                "events": counters.events,
                "flows": counters.flows,
                "bypasses": counters.bypasses,
                "evicted": counters.evicted,
                "records_unwritten": self._unwritten,
                "not_looked_at": self._not_looked_at,
                **{f"{ring}.attempts": counted.attempts for ring, counted in kernel.items()},
                **{f"{ring}.lost": counted.lost for ring, counted in kernel.items()},
            },
        )

    def _name(self, seen: Seen) -> None:
        """Keep the name that first bytes give a socket or an address; the flows that have it are told later."""
        match seen:
            case Hello(origin=origin, server_name=name) if name:
                self._tracker.name_socket(origin.cookie, name)
            case Answer(origin=origin, answer=answer):
                for address in answer.addresses:
                    self._tracker.name_address(origin.cgroup_id, str(address.ip), answer.name)
            case _:
                pass

    def _count_losses(self, read_at: int) -> None:
        counted = self._kernel.counters().get("events")
        if counted is not None and counted.lost > self._lost:
            self._tracker.lose(counted.lost - self._lost, read_at)
            self._lost = counted.lost

    def _write(self, made: Sequence[Record]) -> None:
        for record in made:
            try:
                self._spool.append(record)
            except AuditError as error:
                self._unwritten += 1
                if self._unwritten == 1:
                    _log.error("%s; what can't be written is counted", error)


async def serve(kernel: Kernel, spool_folder: Path, providers: Providers | None, missing: Sequence[str] = ()) -> int:
    """Serve until standard input ends; with `providers` shadow agents are looked for, too. Returns the process's exit code.

    `missing` says which rights the process lacks, a sentence each.
    """
    spool = Spool(spool_folder, new_writer("sensor"), clock=time.time, durability=Durability.WRITE)
    shadows = None if providers is None else Watch(providers, None)
    folder = None if providers is None else ShadowFolder(spool_folder.parent)
    quarantines = ResourceQuarantines(enforcement.pins_folder(), folder, time.monotonic)
    sensor = Sensor(kernel, spool, shadows, missing=missing, folder=folder, quarantines=quarantines)
    try:
        async with running(sensor, quarantines.run()):
            children.tell(Ready())
            await _follow_gate(sensor)
    finally:
        if shadows is not None:
            shadows.close()
        kernel.close()
        spool.close()
    return 0


def fail(error: KernelError) -> int:
    """Tell the gate why the sensor can't start. Returns the process's exit code."""
    children.tell(Failed(messages=(f"{error}; {error.remedy}" if error.remedy else str(error),)))
    return 1


@contextlib.asynccontextmanager
async def running(sensor: Sensor, *works: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Let the sensor read the kernel, and do these works beside it, while the block lasts; what it has seen by then is written."""
    tasks = [asyncio.create_task(work) for work in (_poll(sensor), _end_older(sensor), *works)]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await sensor.finish()


async def _poll(sensor: Sensor) -> None:
    while True:
        await asyncio.sleep(POLL_SECONDS)
        sensor.poll()


async def _end_older(sensor: Sensor) -> None:
    while True:
        await asyncio.sleep(OLDER_SECONDS)
        await sensor.end_older()


async def _follow_gate(sensor: Sensor) -> None:
    first = True
    async for line in children.lines_of_gate():
        try:
            message = state.decode_from_gate(line)
            if isinstance(message, State):
                sensor.apply(message)
        except (MessageError, ValueError) as error:
            _log.error("%s", error)
            continue
        if not isinstance(message, State):
            children.tell(sensor.report())
            continue
        children.tell(Applied(sequence=message.sequence))
        if first:
            first = False
            await sensor.list_open()
            sensor.look_around()
