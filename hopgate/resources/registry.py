"""The registry: which record owns which virtual address and name, and what the gate dials for it.

Pure. Built from the whole set of resources at once; `build` is given the addresses of the registry before it,
so that an address does not change while its record lives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from hopgate.identity.names import DestinationName, ObjectName
from hopgate.resources.kinds import Agent, DialAddress, ModelProvider, Tls, ToolServer


class Protocol(StrEnum):
    """What is spoken at a destination: chooses the operation extractor."""

    A2A = "A2A"
    MCP = "MCP"
    OPENAI = "OpenAI"
    ANTHROPIC = "Anthropic"
    HTTP = "HTTP"
    OPAQUE = "Opaque"  # a Sealed destination: bytes that the gate can't read


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A record that hops can go to, whatever its kind."""

    name: DestinationName
    protocol: Protocol
    tls: Tls
    record: Agent | ToolServer | ModelProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What one virtual address stands for: the names that may be asked for at it, its port, what to dial.

    `dial` is a fixed address; None means that the gate dials what `Upstreams` says of `hosts` or of the agent.
    """

    address: str
    port: int
    hosts: frozenset[str]
    destination: Destination
    dial: DialAddress | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """All destinations, found by virtual address and by host name (lower case, no trailing dot)."""

    agents: Mapping[ObjectName, Agent]
    destinations: Mapping[DestinationName, Destination]
    by_address: Mapping[str, Endpoint]
    by_host: Mapping[str, Endpoint]
