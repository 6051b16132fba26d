"""A connection whose bytes the gate can't read: the name in its TLS handshake and the port are all there is."""

from __future__ import annotations

from authz.operations import entities
from authz.verdict import Operation
from hopgate.policy.question import Action, ContextValue
from hopgate.resources.registry import Destination


def connect(server_name: str, port: int, destination: Destination) -> Operation:
    """`Connect` to a sealed destination. `server_name` has been checked to be one of its names."""
    context: dict[str, ContextValue] = {"connection": {"serverName": server_name.lower(), "port": port}}
    return Operation(action=Action.CONNECT, resource=entities.of(destination), server=None, context=context)
