"""A gate on one machine: authz beside it, an Envoy for each governed agent, the resolver, the certificates, the records.

The gate owns what must outlive one authz process (the namespaces' descriptors, the CA of opened TLS, the workload
credentials) and tells authz its state. Nothing it makes is pinned: when the gate ends, however it ends, the kernel ends its Envoys
and its namespaces with it, and every agent still running is left with no way out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import structs

from authz import recording as decisions
from authz import upstream_names
from authz.certificates import CertificateServer
from authz.state import InboundGate, MeshPeers, Resolution, State
from authz.upstream_names import UpstreamNames
from hopgate.audit.errors import AuditError
from hopgate.audit.spool import Durability, Spool, new_writer
from hopgate.identity.names import ObjectName
from hopgate.local import cgroups, recording
from hopgate.local.attachment import Attachment, AttachmentSpec, Surroundings
from hopgate.local.authz_process import AuthzProcess
from hopgate.local.control import Status, Welcome
from hopgate.local.errors import LocalError
from hopgate.local.folders import RunFolder
from hopgate.local.sensor_process import SensorProcess
from hopgate.manifests import snapshots
from hopgate.manifests.snapshots import SnapshotError
from hopgate.manifests.watch import FolderWatcher
from hopgate.resources.registry import Registry
from hopgate.snapshot import ResolvedHost, Snapshot
from sensor.state import GovernedAgent
from sensor.state import State as SensorState
from tokenmint.authority import Authority, Leaf

REPORT_SECONDS = 2.0


class GateError(LocalError):
    """The gate can't start or can't do what was asked of it."""

    code = "GateRefused"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """Where a gate reads and writes. `envoy` is the binary; `say` gets lines for a person; `mesh` says whose Envoys may ask, too."""

    resources: Path
    data: Path
    run: RunFolder
    envoy: Path
    say: Callable[[str], None]
    mesh: MeshPeers | None = None


class Gate:
    """One gate. `start`, then `serve` until cancelled, then `stop`."""

    def __init__(self, spec: GateSpec, authz: AuthzProcess, sensor: SensorProcess) -> None:
        """`authz` has been spawned; it and `sensor` are this object's to stop."""
        self._spec = spec
        self._watcher = FolderWatcher(spec.resources, self._folder_changed)
        self._snapshot: Snapshot | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._mistakes: tuple[str, ...] = ()
        self._authority = Authority.create(int(time.time()))
        self._attachments: list[Attachment] = []
        self._hosts: Mapping[str, ResolvedHost] = {}
        self._sequence = 0
        self._sensor_sequence = 0
        self._pushing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._spool = Spool(spec.data / "spool", new_writer("gate"), clock=time.time, durability=Durability.WRITE)
        self._cgroup = spec.run.make_cgroup()
        own_cgroup = cgroups.own()
        self._surroundings = Surroundings(
            run=spec.run,
            envoy=spec.envoy,
            cgroup=self._cgroup,
            own_cgroup_id=0 if own_cgroup is None else cgroups.identify(own_cgroup),
            record_name=self._record_name,
            say=spec.say,
        )
        self._authz = authz
        self._sensor = sensor
        self._governed: dict[Attachment, GovernedAgent] = {}
        self._certificates = CertificateServer(self._issue, spec.run.certificates)
        self._names = UpstreamNames(self._outside_hosts, on_change=self._names_changed)

    @property
    def registry(self) -> Registry:
        """The registry in force. Raises GateError before `start`."""
        if self._snapshot is None:
            raise GateError("the gate has not started", remedy="start it")
        return self._snapshot.registry

    async def start(self) -> None:
        """Load the resources, start authz and the certificate server. Raises LocalError."""
        try:
            self._snapshot = snapshots.load(self._spec.resources, previous=None, now=int(time.time()))
        except SnapshotError as error:
            raise GateError("\n".join(error.mistakes), remedy="mend what it names; `hopgate policy check` shows it too") from error
        await self._authz.ready()
        await self._tell_sensor()  # who the gate is: what it looks up and dials is nobody's own doing
        await self._certificates.start()
        if self._spec.mesh is not None:
            await self._push()
        self._background(self._names.run())
        self._background(self._watcher.run())

    async def stop(self) -> None:
        """Detach every agent, end authz, close the records."""
        for attachment in tuple(self._attachments):
            await self.detach(attachment)
        for task in tuple(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._certificates.stop()
        await self._sensor.stop()
        await self._authz.stop()
        self._spool.close()

    def require_agent(self, agent: ObjectName) -> None:
        """Raise GateError unless `agent` is registered."""
        if agent not in self.registry.agents:
            raise GateError(
                f"agent `{agent}` is not registered in `{self._spec.resources}`",
                remedy=f"add an Agent named `{agent.name}` in namespace `{agent.namespace}`",
            )

    async def attach(self, spec: AttachmentSpec) -> Attachment:
        """Plug an agent in: credential, Envoy, rules, resolver; it may run when this returns. Raises LocalError."""
        self.require_agent(spec.agent)
        if spec.listen is not None and any(other.spec.agent == spec.agent and other.spec.listen for other in self._attachments):
            raise GateError(f"agent `{spec.agent}` listens already", remedy="stop the other one, or start this one without --listen")
        attachment = Attachment(spec, self._surroundings, self.registry)
        self._attachments.append(attachment)
        try:
            await asyncio.gather(self._push(), attachment.start(), self._watch(attachment))
            if attachment.inbound is not None:
                await self._push()
            self._spool.append(recording.run_change("Start", spec, time.time_ns()))
        except BaseException:  # also when cancelled: nothing is left attached, and it is raised again
            await self.detach(attachment)
            raise
        self._sensor.begin()
        return attachment

    async def detach(self, attachment: Attachment) -> None:
        """Take an agent out: what it could still hold is worth nothing afterwards."""
        if attachment not in self._attachments:
            return
        self._attachments.remove(attachment)
        await attachment.stop()
        if self._governed.pop(attachment, None) is not None:
            await self._tell_sensor()
        with contextlib.suppress(LocalError):
            await self._push()
        with contextlib.suppress(AuditError):
            self._spool.append(recording.run_change("Stop", attachment.spec, time.time_ns()))

    async def status(self) -> Status:
        """How the gate is, for a person."""
        report = await self._authz.report(REPORT_SECONDS)
        snapshot = self._snapshot
        counters = dict(report.counters) if report is not None else {}
        for attachment in self._attachments:
            for key, value in attachment.name_counters().items():
                counters[f"names.{key}"] = counters.get(f"names.{key}", 0) + value
        return Status(
            pid=os.getpid(),
            resources=str(self._spec.resources),
            data=str(self._spec.data),
            snapshot_digest=(report.snapshot_digest if report is not None else "") or (snapshot.digest if snapshot else ""),
            snapshot_loaded_at=report.snapshot_loaded_at if report is not None else 0,
            mistakes=self._mistakes,
            agents=tuple(attachment.status() for attachment in self._attachments),
            authz_pid=self._authz.pid,
            authz_restarts=self._authz.restarts,
            counters=counters,
            sensor=await self._sensor.status(),
        )

    def welcome(self) -> Welcome:
        """What a program must know before it starts."""
        return Welcome(
            authority_pem=self._authority.certificate_pem.decode(),
            providers=tuple(sorted(provider.value for provider in self.registry.providers())),
            hidden=(str(self._spec.data), str(self._spec.resources), str(self._spec.run.path)),
            resources=str(self._spec.resources),
        )

    def _folder_changed(self) -> None:
        self._reloading = asyncio.get_running_loop().create_task(self._reload(self._reloading))

    async def _reload(self, earlier: asyncio.Task[None] | None) -> None:
        """Read the folder in a thread, one reading at a time; a mistake keeps the snapshot in force."""
        if earlier is not None:
            await earlier
        try:
            loaded = await asyncio.to_thread(snapshots.load, self._spec.resources, previous=self._snapshot, now=int(time.time()))
        except SnapshotError as error:
            self._mistakes = error.mistakes
            lines = "\n  ".join(error.mistakes)
            self._spec.say(f"the folder has mistakes; the last good snapshot stays in force:\n  {lines}")
            return
        if self._mistakes:
            self._spec.say("the folder is well again; its snapshot is in force")
        self._mistakes = ()
        self._snapshot = loaded
        self._names.refresh()
        self._certificates.refresh()  # a name that is registered no more must not keep its certificate
        for attachment in self._attachments:
            attachment.registry_changed(loaded.registry)
        await self._tell_sensor()  # who is quarantined

    def _outside_hosts(self) -> set[str]:
        return upstream_names.outside_hosts(self.registry)

    def _names_changed(self, hosts: Mapping[str, ResolvedHost]) -> None:
        self._hosts = dict(hosts)
        self._background(self._push())

    async def _push(self) -> None:
        """Tell authz the whole state and wait until it is in force there."""
        async with self._pushing:
            self._sequence += 1
            await self._authz.update(
                State(
                    sequence=self._sequence,
                    workloads=tuple(attachment.workload() for attachment in self._attachments),
                    gates=tuple(
                        InboundGate(agent=str(attachment.spec.agent), ip=attachment.inbound.ip, port=attachment.inbound.port)
                        for attachment in self._attachments
                        if attachment.inbound is not None
                    ),
                    hosts=tuple(
                        Resolution(host=host, addresses=found.addresses, resolved_at=found.resolved_at)
                        for host, found in self._hosts.items()
                    ),
                    mesh=self._spec.mesh,
                )
            )

    async def _watch(self, attachment: Attachment) -> None:
        """Have the sensor know of an agent before its program begins."""
        try:
            self._governed[attachment] = await asyncio.to_thread(attachment.governed)
        except OSError as error:
            self._spec.say(f"connections of {attachment.spec.agent} are not seen: its network namespace can't be told: {error.strerror}")
            return
        await self._tell_sensor()

    async def _tell_sensor(self) -> None:
        self._sensor_sequence += 1
        own = (os.getpid(), self._authz.pid, *(attachment.envoy_pid for attachment in self._governed))
        await self._sensor.update(
            SensorState(
                sequence=self._sensor_sequence,
                agents=tuple(
                    structs.replace(governed, quarantine=self._is_quarantined(attachment.spec.agent))
                    for attachment, governed in self._governed.items()
                ),
                gate_cgroups=() if self._cgroup is None else (self._cgroup.id,),
                gate_processes=tuple(pid for pid in own if pid is not None),
            )
        )

    def _is_quarantined(self, agent: ObjectName) -> bool:
        registered = self.registry.agents.get(agent)
        return registered is not None and registered.quarantine

    def _issue(self, host: str) -> Leaf | None:
        return self._authority.issue(host, int(time.time())) if self.registry.opens(host) else None

    def _record_name(self, agent: ObjectName, name: str, kind: str, answer: str, transport: str) -> None:
        self._spool.append(decisions.name_question(agent, name, kind, answer, transport, time.time_ns()))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
