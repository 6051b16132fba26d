"""The snapshot of a cluster, kept: informers fill the cache, one thread builds from it and hands over what it built.

Changes are merged: after one, the builder waits a moment. In a storm of edits it rests as long as it last worked, so that it takes half a
core at most; an edit after a quiet while waits for the moment alone. Nothing is handed over before every kind is synced. While the API
server is away, and whatever goes wrong in building, what was handed over last stays; `state` says since when.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from hopgate.identity.names import ObjectName
from hopgate.kubernetes import api, claims, objects, snapshots
from hopgate.kubernetes.api import Manifest, SecretSource, Source, WatchedKind
from hopgate.kubernetes.informers import Both, Freshness, Informers, Sink
from hopgate.kubernetes.objects import ClusterObject, ClusterService
from hopgate.kubernetes.problems import Problem
from hopgate.kubernetes.secrets import Secrets
from hopgate.kubernetes.snapshots import Built, Seen
from hopgate.resources.reference import ObjectReference

KINDS: Final = (
    api.AGENTS,
    api.TOOL_SERVERS,
    api.MODEL_PROVIDERS,
    api.POLICIES,
    api.CLUSTER_POLICIES,
    api.IDENTITY_PROVIDERS,
    api.SHADOW_AGENTS,
    api.SERVICES,
)
# A person's `kubectl apply -f` of several files is one change; nobody notices this long.
MERGE_SECONDS: Final = 0.1
# The first build reads everything; the edit after it waits no longer than this.
MAX_REST_SECONDS: Final = 0.4
# When building has failed for a reason of its own (a defect): tried again without a change.
_RETRY_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


class Cache:
    """What was last seen of every object, read. Written by the informers' threads, and looked at by the builder."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._objects: dict[ObjectReference, ClusterObject] = {}
        self._services: dict[ObjectName, ClusterService] = {}
        self._dialled: frozenset[ObjectName] = frozenset()

    def replace(self, kind: WatchedKind, manifests: Sequence[Manifest]) -> None:
        """See `informers.Sink`."""
        if kind == api.SERVICES:
            listed = {service.name: service for each in manifests if (service := objects.read_service(each)) is not None}
            with self._lock:
                self._services = listed
        else:
            found = {read.reference: read for each in manifests if (read := self._read(each)) is not None}
            with self._lock:
                others = {own: each for own, each in self._objects.items() if own.kind != kind.kind}
                self._objects = {**others, **found}
        self._changed()

    def put(self, manifest: Manifest) -> None:
        """See `informers.Sink`."""
        if manifest["kind"] == api.SERVICES.kind:
            service = objects.read_service(manifest)
            if service is None:
                self.remove(manifest)
            else:
                self._put_service(service)
            return
        found = self._read(manifest)
        if found is None:
            self.remove(manifest)
            return
        with self._lock:
            earlier = self._objects.get(found.reference)
            self._objects[found.reference] = found
        # A status that somebody writes each second is no change of what is in force.
        if earlier != found:
            self._changed()

    def remove(self, manifest: Manifest) -> None:
        """See `informers.Sink`."""
        own = objects.refer(manifest)
        if own is None:
            return
        if own.kind == api.SERVICES.kind:
            with self._lock:
                gone = [name for name in self._services if (name.namespace, name.name) == (own.namespace, own.name)]
                for name in gone:
                    del self._services[name]
                relevant = any(name in self._dialled for name in gone)
        else:
            with self._lock:
                relevant = self._objects.pop(own, None) is not None
        if relevant:
            self._changed()

    def look(self) -> tuple[dict[ObjectReference, ClusterObject], dict[ObjectName, ClusterService]]:
        """Everything as it is now. From here on, changes of the Services that these objects name count, and no others."""
        with self._lock:
            wanted = (objects.service_of(each.resource) for each in self._objects.values() if each.resource is not None)
            self._dialled = frozenset(service[0] for service in wanted if service is not None)
            return dict(self._objects), {name: self._services[name] for name in self._dialled if name in self._services}

    def _put_service(self, service: ClusterService) -> None:
        with self._lock:
            earlier = self._services.get(service.name)
            self._services[service.name] = service
            relevant = service.name in self._dialled
        if relevant and earlier != service:
            self._changed()

    def _read(self, manifest: Manifest) -> ClusterObject | None:
        own = objects.refer(manifest)
        return objects.read(manifest, None if own is None else self._objects.get(own))


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchState:
    """How things stand: `ready` once a snapshot was handed over; `age_seconds` since the kind that was heard of longest ago was.

    `builds` counts snapshots, `build_seconds` is how long the last took, `failures` counts those that a defect ended.
    `problems` are those of the snapshot in force.
    """

    ready: bool
    age_seconds: float | None
    kinds: tuple[Freshness, ...]
    builds: int
    build_seconds: float
    failures: int
    problems: tuple[Problem, ...]


class Connection(Source, SecretSource, Protocol):
    """What the watcher needs of the API server."""


class SnapshotWatcher:
    """Calls `on_built` with each snapshot, from a thread of its own. `beside` sees what is watched too, before it is built from."""

    def __init__(
        self,
        connection: Connection,
        on_built: Callable[[Built], None],
        *,
        beside: Sink | None = None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_built = on_built
        self._wall = wall
        self._monotonic = monotonic
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._cache = Cache(self._wake.set)
        sink = self._cache if beside is None else Both(beside, self._cache)
        self._informers = Informers(connection, KINDS, sink, monotonic)
        self._secrets = Secrets(connection, monotonic, lambda: random.uniform(0.5, 1.0))  # noqa: S311 - spreads the load, guards nothing
        self._built: Built | None = None
        self._builds = 0
        self._failures = 0
        self._build_seconds = 0.0
        self._rested = 0.0
        self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)

    def __enter__(self) -> SnapshotWatcher:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def start(self) -> None:
        """Begin. Once only."""
        self._informers.start()
        self._thread.start()

    def stop(self) -> None:
        """End all threads."""
        self._stopping.set()
        self._wake.set()
        self._informers.stop()
        self._thread.join(5.0)

    def state(self) -> WatchState:
        """How things stand."""
        kinds = self._informers.freshness()
        ages = [kind.age_seconds for kind in kinds if kind.age_seconds is not None]
        return WatchState(
            ready=self._built is not None,
            age_seconds=max(ages) if len(ages) == len(kinds) else None,
            kinds=kinds,
            builds=self._builds,
            build_seconds=self._build_seconds,
            failures=self._failures,
            problems=() if self._built is None else self._built.problems,
        )

    def _run(self) -> None:
        while not self._stopping.is_set():
            changed = self._wake.wait(self._until_due())
            if changed:
                self._stopping.wait(max(MERGE_SECONDS, self._rested - self._monotonic()))
            if not self._informers.synced:
                # Awake until they are: the kind that comes last is synced a moment after its objects are in the cache.
                self._stopping.wait(MERGE_SECONDS)
                continue
            self._wake.clear()
            try:
                self._build(changed=changed)
            except Exception:  # noqa: BLE001 - a defect here must not end the watch; it is counted and logged
                self._failures += 1
                _log.exception("building a snapshot failed; the last one stays in force")
                self._stopping.wait(_RETRY_SECONDS)
                self._wake.set()

    def _until_due(self) -> float | None:
        due = self._secrets.next_due()
        return None if due is None else max(0.0, due - self._monotonic())

    def _build(self, *, changed: bool) -> None:
        began = self._monotonic()
        found, services = self._cache.look()
        rotated = self._secrets.refresh(claims.secret_names(found.values(), {} if self._built is None else self._built.forms))
        if not changed and not rotated:
            return
        working, spent = self._monotonic(), time.thread_time()
        built = snapshots.build(Seen(objects=found, services=services, secrets=self._secrets.find()), self._built, int(self._wall()))
        self._builds += 1
        ended = self._monotonic()
        self._build_seconds = ended - working
        # By the processor's time: on a machine that is busy with something else the wait would grow with the work.
        self._rested = ended + min(time.thread_time() - spent, MAX_REST_SECONDS)
        self._built = built
        self._on_built(built)
        _log.debug("snapshot %s after %.3f s", built.snapshot.digest[:12], self._monotonic() - began)
