"""Cedar's entities of a destination."""

from __future__ import annotations

from authz.verdict import Operation, RpcEnvelope
from hopgate.policy.question import Action, Entity
from hopgate.resources.registry import Destination


def of(destination: Destination) -> Entity:
    """The destination itself: `Kind::"namespace/name"`."""
    return Entity(destination.name.kind.value, str(destination.name.name))


def child(destination: Destination, kind: str, name: str) -> Entity:
    """A tool or a model of it: `Kind::"namespace/server/name"`."""
    return Entity(kind, f"{destination.name.name}/{name}")


def housekeeping(destination: Destination, rpc: RpcEnvelope | None = None) -> Operation:
    """What keeps a protocol going and does nothing at the destination by itself."""
    return Operation(action=Action.USE_PROTOCOL, resource=of(destination), server=None, context={}, rpc=rpc)
