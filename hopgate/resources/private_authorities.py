"""Destinations of a `caBundle` of their own, by bundle: trust in one must not spread to other names."""

from __future__ import annotations

from dataclasses import dataclass

from hopgate.resources.kinds import Agent
from hopgate.resources.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateAuthority:
    """Destinations' virtual addresses (IPv4), and the bundle (PEM) that alone vouches for them."""

    addresses: tuple[str, ...]
    pem: str


def private_authorities(registry: Registry) -> tuple[PrivateAuthority, ...]:
    """Those of a registry, in one order whatever the registry's is."""
    addresses: dict[str, list[str]] = {}
    for endpoint in registry.by_address.values():
        record = endpoint.destination.record
        if not isinstance(record, Agent) and record.ca_bundle is not None:
            addresses.setdefault(record.ca_bundle, []).append(endpoint.address)
    return tuple(PrivateAuthority(addresses=tuple(sorted(found)), pem=pem) for pem, found in sorted(addresses.items()))
