"""What the gate dials inside a cluster: the addresses that the cluster's DNS gives for the services of the registry. Pure.

A service's own address leads to whichever of its pods is ready, at the port that the pod listens on, through that pod's gate. What a
service can't be given (a look-up that failed for long) is not dialled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from authz.destination import MAX_RESOLUTION_AGE_SECONDS
from hopgate.identity.names import DestinationKind, ObjectName
from hopgate.resources.kinds import DialAddress
from hopgate.resources.registry import Endpoint, Registry
from hopgate.snapshot import ResolvedHost, Upstreams

_SUFFIX: Final = ".svc.cluster.local"


def services(registry: Registry) -> set[str]:
    """The full names (`NAME.NAMESPACE.svc.cluster.local`) of all services that have no fixed address."""
    return {host for _, host in _services(registry)}


def asked(host: str, cluster_domain: str) -> str:
    """What the cluster's DNS is asked for a full name: with the cluster's own domain, and nothing to be added to it."""
    return f"{host.removesuffix('cluster.local')}{cluster_domain}."


def upstreams(registry: Registry, outside: Mapping[str, ResolvedHost], inside: Mapping[str, ResolvedHost], now: int) -> Upstreams:
    """What decisions dial. `inside` has the services by their full names; `now` is in Unix seconds."""
    hosts = dict(outside)
    gates: dict[ObjectName, DialAddress] = {}
    for endpoint, name in _services(registry):
        found = inside.get(name)
        if found is None:
            continue
        if endpoint.destination.name.kind is not DestinationKind.AGENT:
            hosts.update(dict.fromkeys(endpoint.hosts, found))
        elif found.addresses and now - found.resolved_at <= MAX_RESOLUTION_AGE_SECONDS:
            gates[endpoint.destination.name.name] = DialAddress(ip=found.addresses[0], port=endpoint.port)
    return Upstreams(hosts=hosts, gates=gates)


def _services(registry: Registry) -> Iterator[tuple[Endpoint, str]]:
    for endpoint in registry.by_address.values():
        if endpoint.dial is None:
            for host in endpoint.hosts:
                if host.endswith(_SUFFIX):
                    yield endpoint, host
