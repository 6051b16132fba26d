"""What an authz process of a cluster has in force: its snapshot, the pods, the API server's keys, the keys of the other authz processes.

Whoever watches the API server tells it each change (`snapshot_changed`, `pods`, `leases`, `jwks_read`); each puts a new value in place of
the one before, so the next check goes by it. Nothing here does I/O or is told the same thing twice: what stops coming leaves the last
good value in force.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from authz import upstream_names
from authz.mesh import NO_MESH, Mesh
from authz.workloads_cluster import ClusterWorkloads
from hopgate.identity.names import ObjectName
from hopgate.kubernetes import keys as published_keys
from hopgate.kubernetes.keys import AuthzPods, PodReference
from hopgate.kubernetes.pods import Pod, Pods
from hopgate.resources.registry import Registry
from hopgate.snapshot import ResolvedHost, Snapshot
from tokenmint import keys as hop_keys
from tokenmint.errors import TokenError
from tokenmint.keys import PublicKey
from tokenmint.shared_keys import SharedKeys

_log = logging.getLogger(__name__)


class ClusterState:
    """The mutable part of the process. `clock` is in Unix seconds."""

    def __init__(
        self,
        *,
        workloads: ClusterWorkloads,
        keys: SharedKeys,
        authz: AuthzPods,
        pod: PodReference,
        clock: Callable[[], float],
        mesh: Mesh = NO_MESH,
    ) -> None:
        self.workloads = workloads
        self.mesh = mesh
        self.pods = PodListener(self._pods_changed)
        self.leases = LeaseListener(self._learn)
        self._keys = keys
        self._authz = authz
        self._pod = pod
        self._clock = clock
        self._snapshot: Snapshot | None = None
        self._outside: Mapping[str, ResolvedHost] = {}

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot in force. Raises RuntimeError before there is one: no check is answered then."""
        if self._snapshot is None:
            raise RuntimeError("no snapshot is in force yet")
        return self._snapshot

    @property
    def registry(self) -> Registry | None:
        """The registry in force; None before there is a snapshot."""
        return None if self._snapshot is None else self._snapshot.registry

    @property
    def missing(self) -> tuple[str, ...]:
        """What is not known yet and must be before checks can be answered rightly; empty once all is, for ever after."""
        lacking = {
            "the resources": self._snapshot is None,
            "the pods": self.pods.index is None,
            "the API server's keys": not self.workloads.cluster.jwks.get("keys"),
            "the keys of the other authz pods": self.leases.objects is None,
            "its own published keys": self._pod.uid not in self.published(),
        }
        return tuple(name for name, lacks in lacking.items() if lacks)

    @property
    def snapshot_at(self) -> int | None:
        """When the snapshot in force was built (Unix seconds); None before there is one."""
        return None if self._snapshot is None else self._snapshot.loaded_at

    def agent_at(self, ip: str) -> ObjectName | None:
        """The agent of the pod that has this address."""
        pod = None if self.pods.index is None else self.pods.index.at(ip)
        return None if pod is None else self.workloads.cluster.agents.get((pod.namespace, pod.service_account))

    def outside_hosts(self) -> set[str]:
        """The names to look up outside."""
        return set() if self._snapshot is None else upstream_names.outside_hosts(self._snapshot.registry)

    def snapshot_changed(self, snapshot: Snapshot) -> None:
        """Put it in force, with what outside names resolve to."""
        before = self._snapshot
        self._put_in_force(snapshot)
        if before is None or before.registry.agents is not snapshot.registry.agents:
            agents = snapshot.registry.by_service_account
            self.workloads.cluster = replace(self.workloads.cluster, agents=agents)

    def outside_changed(self, hosts: Mapping[str, ResolvedHost]) -> None:
        """What outside names resolve to from now on."""
        self._outside = dict(hosts)
        if self._snapshot is not None:
            self._put_in_force(self._snapshot)

    def jwks_read(self, jwks: Mapping[str, Any]) -> None:
        """The API server's keys from now on. The same keys leave the ones in force, and what was found genuine with them."""
        if jwks != self.workloads.cluster.jwks:
            self.workloads.cluster = replace(self.workloads.cluster, jwks=jwks)

    def _put_in_force(self, snapshot: Snapshot) -> None:
        self._snapshot = replace(snapshot, upstreams=replace(snapshot.upstreams, hosts=self._outside))

    def _pods_changed(self, pods: Pods, touched: Iterable[Pod]) -> None:
        self.workloads.cluster = replace(self.workloads.cluster, pods=pods)
        if any(self._authz.has(pod) for pod in touched):
            self._learn()

    def published(self) -> Mapping[str, Mapping[str, Any]]:
        """The JWK Sets that authz pods publish and that count, by the pod's uid; this process's own among them."""
        return published_keys.published((self.leases.objects or {}).values(), self.pods.index or Pods(), self._authz)

    def _learn(self) -> None:
        """Take in the keys that count now."""
        sets: list[Mapping[str, PublicKey]] = []
        for uid, jwks in self.published().items():
            try:
                sets.append(hop_keys.parse(jwks))
            except TokenError as error:
                _log.error("the keys of the authz pod with uid %s are not taken in: %s (%s)", uid, error, error.code)
        self._keys.learn(sets, int(self._clock()))


class PodListener:
    """Keeps the pods that exist. `index` is None until they were listed. `on_change` gets all pods, and those that a change touched."""

    def __init__(self, on_change: Callable[[Pods, Iterable[Pod]], None]) -> None:
        self.index: Pods | None = None
        self._on_change = on_change

    def listed(self, pods: Pods) -> None:
        """All pods there are: those not among them are gone."""
        before = self.index or Pods()
        self.index = pods
        self._on_change(pods, (*before.by_uid.values(), *pods.by_uid.values()))

    def changed(self, uid: str, pod: Pod | None) -> None:
        """A pod that is new or another than before; None: it has ended, or is gone."""
        known = self.index or Pods()
        pods = known.remove(uid) if pod is None else known.put(pod)
        if pods is not known:
            self.index = pods
            self._on_change(pods, [found for found in (known.by_uid.get(uid), pod) if found is not None])


class LeaseListener:
    """Keeps the objects that publish keys, by name. `objects` is None until they were listed."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.objects: Mapping[str, Mapping[str, Any]] | None = None
        self._on_change = on_change

    def listed(self, manifests: Iterable[Mapping[str, Any]]) -> None:
        """All there are."""
        self._swap({manifest["metadata"]["name"]: manifest for manifest in manifests})

    def changed(self, manifest: Mapping[str, Any]) -> None:
        """One that is new, or another than before."""
        self._swap({**(self.objects or {}), manifest["metadata"]["name"]: manifest})

    def removed(self, manifest: Mapping[str, Any]) -> None:
        """One that is gone."""
        gone = manifest["metadata"]["name"]
        self._swap({name: item for name, item in (self.objects or {}).items() if name != gone})

    def _swap(self, objects: Mapping[str, Mapping[str, Any]]) -> None:
        self.objects = objects
        self._on_change()
