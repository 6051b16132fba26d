"""Pods as values: which exist, found by uid, by address and by service account. Pure.

What a workload's identity is checked against: a token is good while the pod that it was made for exists. A pod that has ended is not
there; one that is being deleted is until the API server has removed it, since it may still answer what is under way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Self

# A pod in one of these phases never runs a container again (Kubernetes API, PodStatus.phase).
_ENDED: Final = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod that exists. `ips` are empty until it has a network; `ready` is its condition of that name."""

    uid: str
    namespace: str
    name: str
    service_account: str
    ips: tuple[str, ...] = ()
    ready: bool = False
    host_network: bool = False


def read(manifest: Mapping[str, Any]) -> Pod | None:
    """The pod of an object of the API (`v1` Pod, as JSON). None for one that has ended."""
    metadata, spec, status = manifest["metadata"], manifest.get("spec") or {}, manifest.get("status") or {}
    if status.get("phase") in _ENDED:
        return None
    conditions = status.get("conditions") or ()
    return Pod(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        service_account=spec.get("serviceAccountName") or "default",
        ips=tuple(entry["ip"] for entry in status.get("podIPs") or ()),
        ready=any(condition.get("type") == "Ready" and condition.get("status") == "True" for condition in conditions),
        host_network=bool(spec.get("hostNetwork")),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """All pods that exist. Made by `of`; compared by identity where it matters that nothing changed."""

    by_uid: Mapping[str, Pod] = field(default_factory=dict)
    by_ip: Mapping[str, Pod] = field(default_factory=dict)

    @classmethod
    def of(cls, pods: Iterable[Pod]) -> Self:
        """The index of these pods. An address that two of them have names neither: the address alone says nothing then."""
        by_uid = {pod.uid: pod for pod in pods}
        by_ip: dict[str, Pod | None] = {}
        for pod in by_uid.values():
            if not pod.host_network:  # its address is the node's, which others share
                for ip in pod.ips:
                    by_ip[ip] = None if ip in by_ip else pod
        return cls(by_uid=MappingProxyType(by_uid), by_ip=MappingProxyType({ip: pod for ip, pod in by_ip.items() if pod is not None}))

    def __len__(self) -> int:
        return len(self.by_uid)
