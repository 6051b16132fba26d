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
    """A `Sink` for the three kinds; `changed` is called in the watches' threads."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._held: dict[str, dict[str, Manifest]] = {kind: {} for kind in _READ}
        self._read: dict[str, dict[str, Any]] = {kind: {} for kind in _READ}

    def look(self) -> Told:
        """Everything as it is now."""
        with self._lock:
            pods, agents, shadows = (list(self._read[kind.kind].values()) for kind in (PODS, AGENTS, SHADOW_AGENTS))
            manifests = {each["metadata"]["name"]: each for each in self._held[SHADOW_AGENTS.kind].values()}
        return Told(
            pods=node_pods.index(each for each in pods if each is not None),
            agents=dict(each for each in agents if each is not None),
            shadows={each.name: each for each in shadows if each is not None},
            manifests=manifests,
        )

    def replace(self, kind: WatchedKind, manifests: Sequence[Manifest]) -> None:
        """See `hopgate.kubernetes.informers.Sink`."""
        held = {each["metadata"]["uid"]: each for each in manifests}
        read = {uid: _READ[kind.kind](each) for uid, each in held.items()}
        with self._lock:
            self._held[kind.kind], self._read[kind.kind] = held, read
        self._changed()

    def put(self, manifest: Manifest) -> None:
        """See `hopgate.kubernetes.informers.Sink`."""
        uid, kind = manifest["metadata"]["uid"], manifest["kind"]
        read = _READ[kind](manifest)
        with self._lock:
            before = self._read[kind].get(uid)
            self._held[kind][uid], self._read[kind][uid] = manifest, read
        if read != before:
            self._changed()

    def remove(self, manifest: Manifest) -> None:
        """See `hopgate.kubernetes.informers.Sink`."""
        uid, kind = manifest["metadata"]["uid"], manifest["kind"]
        with self._lock:
            self._held[kind].pop(uid, None)
            self._read[kind].pop(uid, None)
        self._changed()


def _pod(manifest: Manifest) -> NodePod | None:
    return node_pods.read(manifest)


def _agent(manifest: Manifest) -> tuple[tuple[str, str], Registered] | None:
    """By namespace and name of its service account; None for one that is no valid `Agent`, as authz has it."""
    found = parse.parse(dict(manifest)).resource
    if not isinstance(found, Agent):
        return None
    account = (found.name.namespace, found.service_account_name)
    return account, Registered(name=str(found.name), quarantine=found.quarantine)


def _shadow(manifest: Manifest) -> Shadow | None:
    spec, status = manifest.get("spec") or {}, manifest.get("status") or {}
    where = status.get("where")
    return Shadow(
        name=str(manifest["metadata"]["name"]),
        quarantine=spec.get("quarantine") is True,
        where=where if isinstance(where, Mapping) else {},
    )


_READ: Final[Mapping[str, Callable[[Manifest], Any]]] = {PODS.kind: _pod, AGENTS.kind: _agent, SHADOW_AGENTS.kind: _shadow}
