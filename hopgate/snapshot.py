"""The snapshot: everything that a decision reads, immutable, swapped as a whole by whoever watches the source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hopgate.identity.names import ObjectName
from hopgate.policy.bundle import PolicyBundle
from hopgate.resources.kinds import DialAddress, IdentityProvider, SecretKey, SecretValue
from hopgate.resources.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedHost:
    """What an outside name resolved to, and when (Unix seconds): too old is as good as not resolved."""

    addresses: tuple[str, ...]
    resolved_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstreams:
    """What changes without the resources changing: outside names' addresses, running agents' inbound gates."""

    hosts: Mapping[str, ResolvedHost] = field(default_factory=dict)
    gates: Mapping[ObjectName, DialAddress] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """`digest` names the set of resources (hex SHA-256); `loaded_at` is in Unix seconds."""

    digest: str
    loaded_at: int
    registry: Registry
    policies: PolicyBundle
    secrets: Mapping[SecretKey, SecretValue]
    identity_providers: Mapping[str, IdentityProvider]
    upstreams: Upstreams = field(default_factory=Upstreams)
