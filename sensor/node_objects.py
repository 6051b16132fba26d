"""What the API server tells of a node's pods, of agents and of shadow agents, kept as values for any number of threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hopgate.kubernetes.api import AGENTS, PODS, SHADOW_AGENTS, Manifest, WatchedKind
from hopgate.resources import parse
from hopgate.resources.kinds import Agent
from sensor import node_pods
from sensor.node_governance import Registered, Shadow
from sensor.node_pods import NodePod


def pods_of(node: str) -> WatchedKind:
    """The pods of one node. Of others nothing is asked."""
    return replace(PODS, field=f"spec.nodeName={node}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """All of it at one moment. `manifests` are the shadow agents' objects, by name."""

    pods: Mapping[str, NodePod] = field(default_factory=dict)
    agents: Mapping[tuple[str, str], Registered] = field(default_factory=dict)
    shadows: Mapping[str, Shadow] = field(default_factory=dict)
    manifests: Mapping[str, Manifest] = field(default_factory=dict, repr=False)


class Objects:
    """A `Sink` for the three kinds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read: dict[str, dict[str, Any]] = {kind: {} for kind in _READ}

    def look(self) -> Told:
        """Everything as it is now."""
        with self._lock:
            pods, agents, shadows = (list(self._read[kind.kind].values()) for kind in (PODS, AGENTS, SHADOW_AGENTS))
        return Told(
            pods=node_pods.index(pods),
            agents=dict(each for each in agents if each is not None),
            shadows={shadow.name: shadow for shadow, _ in shadows},
            manifests={shadow.name: manifest for shadow, manifest in shadows},
        )

    def replace(self, kind: WatchedKind, manifests: Sequence[Manifest]) -> None:
        """See `hopgate.kubernetes.informers.Sink`."""
        read = {each["metadata"]["uid"]: _READ[kind.kind](each) for each in manifests}
        with self._lock:
            self._read[kind.kind] = read

    def put(self, manifest: Manifest) -> None:
        """See `hopgate.kubernetes.informers.Sink`."""
        read = _READ[manifest["kind"]](manifest)
        with self._lock:
            self._read[manifest["kind"]][manifest["metadata"]["uid"]] = read

    def remove(self, manifest: Manifest) -> None:
        """See `hopgate.kubernetes.informers.Sink`."""
        with self._lock:
            self._read[manifest["kind"]].pop(manifest["metadata"]["uid"], None)


def _agent(manifest: Manifest) -> tuple[tuple[str, str], Registered] | None:
    """By namespace and name of its service account; None for one that is no valid `Agent`, as authz has it."""
    found = parse.parse(dict(manifest)).resource
    if not isinstance(found, Agent):
        return None
    account = (found.name.namespace, found.service_account_name)
    return account, Registered(name=str(found.name), quarantine=found.quarantine)


def _shadow(manifest: Manifest) -> tuple[Shadow, Manifest]:
    spec, status = manifest.get("spec") or {}, manifest.get("status") or {}
    where = status.get("where")
    shadow = Shadow(
        name=str(manifest["metadata"]["name"]),
        quarantine=spec.get("quarantine") is True,
        where=where if isinstance(where, Mapping) else {},
    )
    return shadow, manifest


_READ: Final[Mapping[str, Callable[[Manifest], Any]]] = {PODS.kind: node_pods.read, AGENTS.kind: _agent, SHADOW_AGENTS.kind: _shadow}
