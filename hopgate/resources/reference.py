"""Which object is meant: kind, namespace (None: cluster-scoped) and name, for messages and look-ups."""

from __future__ import annotations

from dataclasses import dataclass

from hopgate.resources.kinds import Policy, Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectReference:
    """One object of a set. `str()` gives `ToolServer demo/tickets`, or `ClusterPolicy floor`."""

    kind: str
    namespace: str | None
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.namespace is None else f"{self.kind} {self.namespace}/{self.name}"


def of(resource: Resource) -> ObjectReference:
    """The reference to a resource."""
    if isinstance(resource, Policy):
        kind = "ClusterPolicy" if resource.namespace is None else "Policy"
        return ObjectReference(kind=kind, namespace=resource.namespace, name=resource.name)
    kind = type(resource).__name__
    if isinstance(resource.name, str):
        return ObjectReference(kind=kind, namespace=None, name=resource.name)
    return ObjectReference(kind=kind, namespace=resource.name.namespace, name=resource.name.name)
