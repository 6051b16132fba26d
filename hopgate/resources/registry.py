"""The registry: which record owns which virtual address and name, and what the gate dials for it.

Pure. Built from the whole set of resources at once; `build` is given the addresses of the registry before it,
so that an address does not change while its record lives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from hopgate.identity.names import DestinationKind, DestinationName, ObjectName
from hopgate.resources import addresses, conflicts, reference
from hopgate.resources.conflicts import Conflict, ConflictCode
from hopgate.resources.kinds import Agent, AgentProtocol, DialAddress, ModelProvider, Provider, Resource, Tls, ToolProtocol, ToolServer


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
    """All destinations, found by virtual address and by host name (lower case, no trailing dot).

    `by_service_account` finds the agents by namespace and name of their service account, which is of one agent only.
    """

    agents: Mapping[ObjectName, Agent]
    destinations: Mapping[DestinationName, Destination]
    by_address: Mapping[str, Endpoint]
    by_host: Mapping[str, Endpoint]
    by_service_account: Mapping[tuple[str, str], ObjectName] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        accounts = {(name.namespace, agent.service_account_name): name for name, agent in self.agents.items()}
        object.__setattr__(self, "by_service_account", MappingProxyType(accounts))

    def opens(self, host: str) -> bool:
        """Whether TLS to this host ends at the gate, which shows a certificate of its own for it."""
        endpoint = self.by_host.get(host)
        return endpoint is not None and endpoint.destination.tls is Tls.OPEN

    def providers(self) -> frozenset[Provider]:
        """Those that any record has."""
        records = (destination.record for destination in self.destinations.values())
        return frozenset(record.provider for record in records if isinstance(record, ModelProvider))


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryResult:
    """The registry, or None and every conflict: where two records claim one thing, none of them may have it."""

    registry: Registry | None
    conflicts: tuple[Conflict, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """One endpoint to be: the name that its address is hashed from, and all names that are asked for there."""

    name: str
    hosts: frozenset[str]
    port: int
    dial: DialAddress | None
    destination: Destination


def build(resources: Iterable[Resource], previous: Registry | None = None) -> RegistryResult:
    """The registry of a whole set of resources. `previous` keeps the addresses of names that are still there."""
    given = tuple(resources)
    found = conflicts.find(given)
    if found:
        return RegistryResult(registry=None, conflicts=found)
    before = {} if previous is None else {host: endpoint.address for host, endpoint in previous.by_host.items()}
    registry, without_address = assemble(given, before)
    if without_address:
        return RegistryResult(registry=None, conflicts=tuple(_without_address(given, without_address)))
    return RegistryResult(registry=registry, conflicts=())


def assemble(resources: Sequence[Resource], before: Mapping[str, str]) -> tuple[Registry, Mapping[str, Destination]]:
    """The registry of resources no two of which claim one thing, and the names that no address is left for.

    `before` are the addresses that names had.
    """
    destinations = [_destination(resource) for resource in resources if isinstance(resource, Agent | ToolServer | ModelProvider)]
    places = {place.name: place for destination in destinations for place in _places(destination)}
    given = addresses.allot({name: place.destination.tls for name, place in places.items()}, before)
    endpoints = [
        Endpoint(address=given[name], port=place.port, hosts=place.hosts, destination=place.destination, dial=place.dial)
        for name, place in places.items()
        if name in given
    ]
    registry = Registry(
        agents={resource.name: resource for resource in resources if isinstance(resource, Agent)},
        destinations={destination.name: destination for destination in destinations},
        by_address={endpoint.address: endpoint for endpoint in endpoints},
        by_host={host: endpoint for endpoint in endpoints for host in endpoint.hosts},
    )
    return registry, {name: place.destination for name, place in places.items() if name not in given}


def full_range(destination: Destination) -> str:
    """What to tell the owner of a name that no address is left for."""
    tls = destination.tls
    return f"expected a virtual address in {addresses.RANGES[tls]}, which is full: remove names with tls `{tls.value}`"


def _destination(record: Agent | ToolServer | ModelProvider) -> Destination:
    kind = DestinationKind(reference.of(record).kind)
    tls = Tls.DISABLED if isinstance(record, Agent) else record.tls
    protocol = Protocol.OPAQUE if tls is Tls.SEALED else _protocol(record)
    return Destination(name=DestinationName(kind, record.name), protocol=protocol, tls=tls, record=record)


def _protocol(record: Agent | ToolServer | ModelProvider) -> Protocol:
    """An agent that speaks A2A is read as A2A whatever else it speaks: what is no A2A is then refused, not waved through."""
    if isinstance(record, Agent):
        return Protocol.A2A if AgentProtocol.A2A in record.protocols else Protocol.HTTP
    if isinstance(record, ToolServer):
        return Protocol.MCP if record.protocol is ToolProtocol.MCP else Protocol.HTTP
    return Protocol.ANTHROPIC if record.provider is Provider.ANTHROPIC else Protocol.OPENAI


def _places(destination: Destination) -> Iterator[_Place]:
    """One place for each outside host, one for a service under both of its names, none for an agent without a service."""
    record = destination.record
    dial = None if isinstance(record, Agent) else record.address
    service = None if isinstance(record, ModelProvider) else record.service
    if service is not None:
        names = conflicts.service_names(service.name, record.name.namespace)
        yield _Place(names[0], frozenset(names), service.port, dial, destination)
    if not isinstance(record, Agent):
        for host in record.hosts:
            yield _Place(host, frozenset({host}), record.port, dial, destination)


def _without_address(resources: Sequence[Resource], without: Mapping[str, Destination]) -> Iterator[Conflict]:
    owners = {reference.of(destination.record): destination for destination in without.values()}
    for position, resource in enumerate(resources):
        own = reference.of(resource)
        if own in owners:
            message = full_range(owners[own])
            yield Conflict(position=position, reference=own, path=("spec",), code=ConflictCode.NO_ADDRESS_LEFT, message=message)
