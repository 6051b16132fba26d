"""What the authz process is made of: the snapshot and its watcher, keys, spool, checker and server.

The snapshot is swapped as one reference; a folder with a mistake leaves the last good one in force and is reported. The
gate's state (`authz.state`) is merged into the snapshot's upstreams the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from authz import heap
from authz import state as states
from authz.check import Checker, Keys, Sources
from authz.mesh import NO_MESH, Mesh
from authz.server import Server
from authz.state import Report, State
from authz.workloads import HeldCredentials, Workloads
from hopgate import children
from hopgate.audit.errors import AuditError
from hopgate.audit.spool import Durability, Spool, new_writer
from hopgate.children import Applied, Failed, MessageError, Ready
from hopgate.manifests import snapshots
from hopgate.manifests.snapshots import SnapshotError
from hopgate.manifests.watch import FolderWatcher
from hopgate.snapshot import Snapshot
from tokenmint.keys import KeyRing
from tokenmint.replay import ReplayCache

_log = logging.getLogger("authz")
GRACE_SECONDS = 1.0


class Process:
    """The mutable part: which snapshot and which state are in force."""

    def __init__(self, resources: Path, snapshot: Snapshot) -> None:
        self._resources = resources
        self._state = State(sequence=0)
        self.snapshot = snapshot
        self.workloads: Workloads = HeldCredentials(self._state)
        self.mesh = NO_MESH
        self.mistakes: tuple[str, ...] = ()
        self._reloading: asyncio.Task[None] | None = None

    def apply(self, state: State) -> None:
        """Put the gate's state in force."""
        self._state = state
        self.workloads = HeldCredentials(state)
        self.mesh = (
            NO_MESH
            if state.mesh is None
            else Mesh(credential_sha256=state.mesh.credential_sha256, trust_domains=frozenset(state.mesh.trust_domains))
        )
        self.snapshot = replace(self.snapshot, upstreams=states.upstreams(state))

    def folder_changed(self) -> None:
        """Read the folder again, beside the checks that are being answered."""
        self._reloading = asyncio.get_running_loop().create_task(self._reload(self._reloading))

    async def _reload(self, earlier: asyncio.Task[None] | None) -> None:
        """One reading at a time, in their order; a mistake keeps the snapshot in force."""
        if earlier is not None:
            await earlier
        try:
            loaded = await asyncio.to_thread(snapshots.load, self._resources, previous=self.snapshot, now=int(time.time()))
        except SnapshotError as error:
            self.mistakes = error.mistakes
            return
        self.mistakes = ()
        self.snapshot = replace(loaded, upstreams=self.snapshot.upstreams)


async def serve(resources: Path, spool_folder: Path, socket: Path) -> int:
    """Serve until standard input ends. Returns the process's exit code."""
    watcher = FolderWatcher(resources, lambda: process.folder_changed())  # noqa: PLW0108 - the process is made after the first load, the watcher before
    try:
        snapshot = snapshots.load(resources, previous=None, now=int(time.time()))
        spool = Spool(spool_folder, new_writer("authz"), clock=time.time, durability=Durability.WRITE)
    except SnapshotError as error:
        children.tell(Failed(messages=error.mistakes))
        return 1
    except AuditError as error:
        children.tell(Failed(messages=(str(error),)))
        return 1
    process = Process(resources, snapshot)
    checker = checker_of(process, KeyRing.create(int(time.time())), spool)
    server = Server(checker.check, socket)
    watching = asyncio.create_task(watcher.run())
    heap.set_aside()
    children.tell(Ready())
    try:
        await _follow_gate(process, checker, server)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        await server.stop(GRACE_SECONDS)
        spool.close()
    return 0


class InForce(Protocol):
    """What the checks of a process are answered by; each is swapped as one reference."""

    @property
    def snapshot(self) -> Snapshot:
        """What decisions read."""

    @property
    def workloads(self) -> Workloads:
        """Who is behind a credential."""

    @property
    def mesh(self) -> Mesh:
        """Which Envoys of a mesh are believed."""


def checker_of(process: InForce, keys: Keys, spool: Spool) -> Checker:
    """The checker of a process: its snapshot and workloads, this machine's clocks, random ids, records in the spool."""
    sources = Sources(
        snapshot=lambda: process.snapshot,
        workloads=lambda: process.workloads,
        mesh=lambda: process.mesh,
        wall_ns=time.time_ns,
        monotonic_ns=time.monotonic_ns,
        new_id=lambda: secrets.token_hex(16),
    )
    return Checker(sources, keys, ReplayCache(), spool.append)


async def _follow_gate(process: Process, checker: Checker, server: Server) -> None:
    """Checks are answered once the gate's first state is in force: before it, every caller would be unknown."""
    serving = False
    async for line in children.lines_of_gate():
        try:
            message = states.decode_from_gate(line)
        except MessageError as error:
            _log.error("%s", error)
            continue
        if isinstance(message, State):
            process.apply(message)
            if not serving:
                await server.start()
                serving = True
            children.tell(Applied(sequence=message.sequence))
        else:
            children.tell(_report(process, checker))


def counters_of(checker: Checker) -> dict[str, int]:
    """What has been answered, by name."""
    counters = checker.counters
    return {
        "checks": counters.checks,
        "allowed": counters.allowed,
        "denied": counters.denied,
        "allowed_on_failure": counters.allowed_on_failure,
        **checker.replay_counters(),
        **{f"reason.{reason}": count for reason, count in sorted(counters.reasons.items())},
    }


def _report(process: Process, checker: Checker) -> Report:
    return Report(
        snapshot_digest=process.snapshot.digest,
        snapshot_loaded_at=process.snapshot.loaded_at,
        mistakes=process.mistakes,
        counters=counters_of(checker),
    )
