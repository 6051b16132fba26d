"""The authz process of a cluster: beside the one of one machine (`authz.process`), whose checker and records it shares.

It answers checks over TLS once it knows the resources, the pods, the API server's keys and the other processes' keys, and once they can
know its own; it says so to probes. When it is told to end it says "not ready" first, answers on until every connection has come to its
end, and then goes: no check is lost. Whatever it watches may fall silent for hours: what it knew last stays in force.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import hopgate
from authz import cluster_metrics, dns_sockets, heap, metrics, process, recording
from authz.cluster_metrics import Moment
from authz.cluster_state import ClusterState
from authz.mesh import NO_MESH, Mesh
from authz.metrics_server import MetricsServer
from authz.open_tls import OpenTls
from authz.server import CONNECTION_SECONDS, HealthServer, Server, TlsListener
from authz.shared_resolver import SharedResolver
from authz.upstream_names import Resolve, UpstreamNames
from authz.workloads_cluster import ClusterWorkloads
from hopgate import listening
from hopgate.audit.spool import Durability, Spool, new_writer
from hopgate.identity.names import ObjectName
from hopgate.kubernetes import authz_state
from hopgate.kubernetes import keys as published_keys
from hopgate.kubernetes.authz_state import AuthzState
from hopgate.kubernetes.informers import Freshness
from hopgate.kubernetes.keys import AuthzPods, PodReference
from hopgate.kubernetes.pods import Pod, Pods
from hopgate.kubernetes.watcher import WatchState
from hopgate.snapshot import Snapshot
from hopgate.tls_files import AuthorityFile, TlsFiles
from tokenmint.keys import KeyRing
from tokenmint.shared_keys import SharedKeys

_log = logging.getLogger("authz")

# How long it takes until nobody leads new connections to a pod that is not ready: kubelet, EndpointSlice, kube-proxy.
NOTICE_SECONDS: Final = 5.0
# The other processes see a key as soon as this one does, give or take; a token that comes before its key is refused.
SETTLE_SECONDS: Final = 2.0
# Keys that the API server takes away must go here too, also when no token asks for others.
JWKS_SECONDS: Final = 60.0
PUBLISH_SECONDS: Final = 15.0
RETRY_SECONDS: Final = 1.0
# A stream of certificates is closed so soon after its pod is gone; a check would be refused at once.
EXPEL_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.05


class Listener(Protocol):
    """Is told the objects of one kind: all of them first, and again whenever the watch had to begin anew; then each change."""

    def listed(self, manifests: Iterable[Mapping[str, Any]], /) -> None:
        """All objects there are."""

    def changed(self, manifest: Mapping[str, Any], /) -> None:
        """One that is new or changed."""

    def removed(self, manifest: Mapping[str, Any], /) -> None:
        """One that is gone."""


class PodListener(Protocol):
    """Is told the pods in the same way, read: reading thousands takes longer than a check may wait."""

    def listed(self, pods: Pods, /) -> None:
        """All pods there are."""

    def changed(self, uid: str, pod: Pod | None, /) -> None:
        """One that is new or changed; None: it has ended, or is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """How the watches stand: each kind, and what is built of the resources; None: they are not watched yet."""

    kinds: tuple[Freshness, ...]
    resources: WatchState | None


class Api(Protocol):
    """What the process asks of the API server. Listeners are called in the event loop; following ends only by cancelling."""

    async def follow_pods(self, listener: PodListener, /) -> None:
        """Tell all pods of the cluster, and every change."""

    async def follow_leases(self, namespace: str, label: str, listener: Listener, /) -> None:
        """Tell the Leases of a namespace with a label (`KEY=VALUE`), and every change."""

    async def follow_snapshots(self, on_change: Callable[[Snapshot], None], /) -> None:
        """Tell each snapshot of the resources, the first once every kind is known."""

    async def read_jwks(self) -> Mapping[str, Any]:
        """The JWK Set of `/openid/v1/jwks`. Raises OSError when it can't be read now."""

    async def put_lease(self, manifest: Mapping[str, Any], /) -> None:
        """Make the Lease, or replace the one of its name. Raises OSError when it can't be written now."""

    def watched(self) -> Watched:
        """How the watches stand now. Asks nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshSettings:
    """Where the Envoys of a mesh ask, the file of the authorities that vouch for them (PEM), and which of them are believed about whom."""

    listen: str
    authorities: Path
    believed: Mesh


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the process is run. Addresses are `IP:PORT`; `pod` and `service_account` are its own, as the cluster knows it.

    `open_tls` are the files of the CA that signs for TLS opened at the gate, certificate and key; None: no such TLS is opened.
    Without `metrics` nobody is told any, and without `mesh` no Envoy of a mesh is answered.
    """

    pod: PodReference
    service_account: str
    issuer: str
    audience: str
    listen: str
    health: str
    resolver: str
    certificate: Path
    private_key: Path
    spool: Path
    open_tls: tuple[Path, Path] | None = None
    metrics: str | None = None
    mesh: MeshSettings | None = None
    connection_seconds: float = CONNECTION_SECONDS
    notice_seconds: float = NOTICE_SECONDS
    settle_seconds: float = SETTLE_SECONDS


class ClusterProcess:
    """One process. `run` until told to `end`."""

    def __init__(self, settings: Settings, api: Api, *, resolve: Resolve | None = None) -> None:
        """`resolve` is for outside names (default: as this machine does). Raises TlsFilesError, AuthorityUnusableError, AuditError."""
        self._settings = settings
        self._api = api
        self._ending = asyncio.Event()
        self._keys_asked = asyncio.Event()
        self._publishing_asked = asyncio.Event()
        self._serving = False
        self._ring = KeyRing.create(int(time.time()))
        self._started_at = int(time.time())
        self.keys = SharedKeys(self._ring)
        self.workloads = ClusterWorkloads(issuer=settings.issuer, audience=settings.audience, request_keys=self._keys_asked.set)
        self.state = ClusterState(
            workloads=self.workloads,
            keys=self.keys,
            authz=AuthzPods(namespace=settings.pod.namespace, service_account=settings.service_account),
            pod=settings.pod,
            clock=time.time,
            mesh=NO_MESH if settings.mesh is None else settings.mesh.believed,
        )
        self._names = UpstreamNames(self.state.outside_hosts, on_change=self.state.outside_changed, resolve=resolve)
        self._files = TlsFiles(settings.certificate, settings.private_key)
        self._open_tls = None if settings.open_tls is None else self._new_open_tls(*settings.open_tls)
        self._spool = Spool(settings.spool, new_writer("authz"), clock=time.time, durability=Durability.WRITE)
        self.checker = process.checker_of(self.state, self.keys, self._spool)
        listener = TlsListener(
            address=settings.listen,
            files=self._files,
            ready=lambda: self.ready,
            connection_seconds=settings.connection_seconds,
            certificates=self._open_tls,
        )
        self._servers = [Server(self.checker.check, each) for each in (listener, *_mesh_listeners(settings.mesh, listener))]
        self._health = HealthServer(lambda: self.ready, settings.health)
        self._resolver = SharedResolver(lambda: self.state.snapshot.registry, whose=self.state.agent_at, record=self._record_name)
        self._metrics = None if settings.metrics is None else _metrics_server(self._moment, settings.metrics)
        self._jwks_read_at: float | None = None
        self.resolver_port = 0

    @property
    def ready(self) -> bool:
        """Whether checks should be led here: they are answered rightly, and will be for a while."""
        return self._serving and not self._ending.is_set()

    @property
    def port(self) -> int:
        """Where checks are answered."""
        return self._servers[0].port

    @property
    def health_port(self) -> int:
        """Where probes are answered without TLS."""
        return self._health.port

    @property
    def metrics_port(self) -> int:
        """Where metrics are told; 0 for nowhere."""
        return 0 if self._metrics is None else self._metrics.port

    def end(self) -> None:
        """Let `run` end in an orderly way."""
        self._ending.set()

    async def run(self) -> None:
        """Serve until `end`. Raises what broke one of its parts; the API server's absence breaks none."""
        try:
            async with asyncio.TaskGroup() as parts:
                running = [parts.create_task(part) for part in self._parts()]
                await self._health.start()
                if self._metrics is not None:
                    await self._metrics.start()
                await self._serve()
                for task in running:
                    task.cancel()
        finally:
            await asyncio.gather(*(server.stop(0) for server in self._servers))
            await self._resolver.stop()
            await self._health.stop()
            if self._metrics is not None:
                await self._metrics.stop()
            self._spool.close()

    def _parts(self) -> tuple[Coroutine[Any, Any, None], ...]:
        namespace = self._settings.pod.namespace
        label = f"{published_keys.LABEL}={published_keys.LABEL_VALUE}"
        return (
            self._api.follow_pods(self.state.pods),
            self._api.follow_leases(namespace, label, self.state.leases),
            self._api.follow_snapshots(self._snapshot_changed),
            self._names.run(),
            self._repeat(self._read_jwks, JWKS_SECONDS, self._keys_asked),
            self._repeat(self._publish, PUBLISH_SECONDS, self._publishing_asked),
            self._expel(),
        )

    async def _serve(self) -> None:
        if not await self._known():
            return
        heap.set_aside()
        for server in self._servers:
            await server.start()
        sockets = dns_sockets.open_at(*listening.place(self._settings.resolver))
        await self._resolver.start(sockets)
        self.resolver_port = sockets.port
        self._serving = True
        self._publishing_asked.set()
        _log.info("checks are answered at port %d", self.port)
        await self._ending.wait()
        await asyncio.gather(*(server.drain(self._settings.notice_seconds) for server in self._servers))

    async def _known(self) -> bool:
        """Wait until all is known that checks need; false when told to end before."""
        said: tuple[str, ...] = ()
        while missing := self.state.missing:
            if missing != said:
                _log.info("waiting for %s", ", ".join(missing))
                said = missing
            if await self._ends_within(_POLL_SECONDS):
                return False
        return not await self._ends_within(self._settings.settle_seconds)

    async def _ends_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            return False
        return True

    def _record_name(self, agent: ObjectName, name: str, kind: str, answer: str, transport: str) -> None:
        self._spool.append(recording.name_question(agent, name, kind, answer, transport, time.time_ns()))

    def _snapshot_changed(self, snapshot: Snapshot) -> None:
        before = self.state.registry
        self.state.snapshot_changed(snapshot)
        self._names.refresh()
        if self._open_tls is not None and before is not None and before.by_host != snapshot.registry.by_host:
            self._open_tls.refresh()

    def _new_open_tls(self, certificate: Path, private_key: Path) -> OpenTls:
        return OpenTls(
            certificate, private_key, workloads=lambda: self.workloads, registry=lambda: self.state.snapshot.registry, clock=time.time
        )

    async def _expel(self) -> None:
        """End the streams of pods that are gone."""
        while True:
            await asyncio.sleep(EXPEL_SECONDS)
            if self._open_tls is not None:
                self._open_tls.expel()

    async def _repeat(self, work: Callable[[], Awaitable[None]], seconds: float, asked: asyncio.Event) -> None:
        """Do it every so often, and when asked; soon again when it failed."""
        while True:
            asked.clear()
            wait = seconds
            try:
                await work()
            except OSError as error:
                _log.warning("the API server could not be asked: %s", error)
                wait = RETRY_SECONDS
            try:
                async with asyncio.timeout(wait):
                    await asked.wait()
            except TimeoutError:
                continue

    async def _read_jwks(self) -> None:
        self.state.jwks_read(await self._api.read_jwks())
        self._jwks_read_at = time.time()

    async def _publish(self) -> None:
        """Publish the keys, the next one always among them, long before it signs; and how this process stands."""
        now = time.time()
        self._ring.announce()
        since = int((now - authz_state.LAST_SEEN_SECONDS) * 1e9)
        last_seen = {agent: at // 1_000_000_000 for agent, at in self.checker.counters.seen_since(since).items()}
        shown = authz_state.write(self._describe(now), last_seen)
        await self._api.put_lease(published_keys.manifest(self._settings.pod, self._ring.jwks(int(now)), now, shown))

    def _describe(self, now: float) -> AuthzState:
        counters = self.checker.counters
        kinds = self._api.watched().kinds
        return AuthzState(
            version=hopgate.__version__,
            started_at=self._started_at,
            snapshot_at=self.state.snapshot_at,
            watches={kind.kind: None if kind.age_seconds is None else int(now - kind.age_seconds) for kind in kinds},
            certificate_ends_at=self._files.pair.expires_at,
            key_made_at=self._ring.made_at,
            allowed=counters.allowed,
            denied=counters.denied,
            failed_open=counters.allowed_on_failure,
        )

    def _moment(self) -> Moment:
        watched = self._api.watched()
        return Moment(
            now=time.time(),
            started_at=self._started_at,
            ready=self.ready,
            checker=self.checker,
            state=self.state,
            workloads=self.workloads,
            kinds=watched.kinds,
            resources=watched.resources,
            jwks_read_at=self._jwks_read_at,
            certificate_ends_at=self._files.pair.expires_at,
            key_made_at=self._ring.made_at,
            open_tls=self._open_tls,
            written=self._spool.written,
            resolver=self._resolver.counters,
        )


def _mesh_listeners(mesh: MeshSettings | None, listener: TlsListener) -> tuple[TlsListener, ...]:
    """The listener for a mesh's Envoys beside the one for sidecars. Raises TlsFilesError."""
    if mesh is None:
        return ()
    return (replace(listener, address=mesh.listen, certificates=None, mesh_authorities=AuthorityFile(mesh.authorities)),)


def _metrics_server(moment: Callable[[], Moment], address: str) -> MetricsServer:
    registry = metrics.registry_of(lambda: cluster_metrics.observe(moment()))
    return MetricsServer(lambda: metrics.render(registry), metrics.CONTENT_TYPE, address)


async def serve(settings: Settings, api: Api) -> int:
    """Run until SIGTERM or SIGINT. Returns the process's exit code."""
    running = ClusterProcess(settings, api)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.end)
    await running.run()
    return 0
