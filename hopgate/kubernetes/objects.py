"""One object as the API server gives it, read: the resource or its mistakes, and what the snapshot needs of the object around it.

Pure. Reading is the folder's (`hopgate.resources.parse`). A Service is read for one thing: what the gate dials for it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address
from typing import Any, Final

from hopgate.identity import names
from hopgate.identity.names import ObjectName
from hopgate.kubernetes.api import Manifest
from hopgate.resources import conflicts, parse
from hopgate.resources.conflicts import Claim, ConflictCode
from hopgate.resources.fields import FieldError
from hopgate.resources.kinds import Agent, DialAddress, ModelProvider, Resource, ToolServer
from hopgate.resources.reference import ObjectReference

MISSING_SERVICE: Final = "MissingService"
UNUSABLE_SERVICE: Final = "UnusableService"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterObject:
    """One version of one object. `resource` is None where it has mistakes.

    `created` is the API server's text (RFC 3339, UTC: it sorts); `addresses` are those of `status.addresses`, by name; `digest` is of
    kind, namespace, name and spec; `claims` are what the resource wants for itself beside its name.
    """

    reference: ObjectReference
    uid: str
    generation: int
    created: str
    resource: Resource | None = field(repr=False)
    mistakes: tuple[FieldError, ...]
    addresses: Mapping[str, str]
    digest: bytes
    claims: tuple[Claim, ...] = field(repr=False)


def read(manifest: Manifest, earlier: ClusterObject | None = None) -> ClusterObject | None:
    """The object, or None for one that is being deleted or has no name. Never raises.

    `earlier` is what was read of it before: of the same generation, its spec is not read again.
    """
    metadata = manifest.get("metadata")
    if not isinstance(metadata, Mapping) or metadata.get("deletionTimestamp") is not None:
        return None
    reference = refer(manifest)
    if reference is None:
        return None
    uid, generation = str(metadata.get("uid") or ""), _integer(metadata.get("generation"))
    addresses = read_addresses(manifest.get("status"))
    if earlier is not None and generation and (earlier.uid, earlier.generation) == (uid, generation):
        resource, mistakes, digest, claims = earlier.resource, earlier.mistakes, earlier.digest, earlier.claims
    else:
        result = parse.parse(manifest)
        resource, mistakes = result.resource, result.mistakes
        digest = _digest(reference, manifest.get("spec"))
        claims = () if resource is None else tuple(claim for claim in conflicts.claims(resource) if _is_shared(claim))
    return ClusterObject(
        reference=reference,
        uid=uid,
        generation=generation,
        created=str(metadata.get("creationTimestamp") or ""),
        resource=resource,
        mistakes=mistakes,
        addresses=addresses,
        digest=digest,
        claims=claims,
    )


def refer(manifest: Manifest) -> ObjectReference | None:
    """Which object a manifest is of, also where all else of it is wrong."""
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(metadata, Mapping) or not isinstance(name, str) or not name:
        return None
    return ObjectReference(kind=str(manifest.get("kind")), namespace=metadata.get("namespace"), name=name)


def virtual_names(resource: Resource) -> tuple[str, ...]:
    """The names that have a virtual address each."""
    service = service_of(resource)
    inside = () if service is None else (conflicts.service_names(service[0].name, service[0].namespace)[0],)
    return (*inside, *resource.hosts) if isinstance(resource, ToolServer | ModelProvider) else inside


def service_of(resource: Resource) -> tuple[ObjectName, int] | None:
    """The Service that an Agent or ToolServer is reached by, and its port."""
    if not isinstance(resource, Agent | ToolServer) or resource.service is None:
        return None
    return ObjectName(resource.name.namespace, resource.service.name), resource.service.port


def _is_shared(claim: Claim) -> bool:
    """A name is the object's own: the API server has no second one of it."""
    return claim.code is not ConflictCode.DUPLICATE_NAME


def _digest(reference: ObjectReference, spec: object) -> bytes:
    described = [reference.kind, reference.namespace, reference.name, spec]
    return hashlib.sha256(json.dumps(described, sort_keys=True, separators=(",", ":")).encode()).digest()


def read_addresses(status: object) -> Mapping[str, str]:
    """What stands in `status.addresses`, by name; what is no IPv4 address is left out."""
    listed = status.get("addresses") if isinstance(status, Mapping) else None
    found: dict[str, str] = {}
    for entry in listed if isinstance(listed, list) else ():
        host, address = (entry.get("host"), entry.get("address")) if isinstance(entry, Mapping) else (None, None)
        if isinstance(host, str) and isinstance(address, str) and _is_ipv4(address):
            found[host] = address
    return found


def _is_ipv4(text: str) -> bool:
    try:
        return str(IPv4Address(text)) == text
    except AddressValueError:
        return False


def _integer(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterService:
    """What the gate can dial for a core Service: an address and TCP ports, or `refusal` says why it can't."""

    name: ObjectName
    address: str | None
    ports: frozenset[int]
    refusal: str | None


def read_service(manifest: Manifest) -> ClusterService | None:
    """A core Service; None for one that is being deleted, or whose names no resource could refer to."""
    reference = refer(manifest)
    if reference is None or manifest["metadata"].get("deletionTimestamp") is not None:
        return None
    if not names.is_label(reference.name) or not names.is_label(reference.namespace or ""):
        return None
    spec: Mapping[str, Any] = manifest.get("spec") or {}
    address = spec.get("clusterIP")
    refusal = None
    if spec.get("type") == "ExternalName":
        refusal = "it is of type ExternalName, a name outside: register that name as a ToolServer with `hosts` instead"
    elif address == "None":
        refusal = "it is headless and has no address of its own: give it a cluster IP"
    elif not isinstance(address, str) or not _is_address(address):
        refusal = "it has no cluster IP yet"
    ports = (port for port in spec.get("ports") or () if port.get("protocol", "TCP") == "TCP")
    return ClusterService(
        name=ObjectName(reference.namespace or "", reference.name),
        address=address if refusal is None else None,
        ports=frozenset(int(port["port"]) for port in ports),
        refusal=refusal,
    )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRefusal:
    """Why nothing can be dialled for a resource's service."""

    code: str
    message: str


def dial(resource: Resource, services: Mapping[ObjectName, ClusterService]) -> DialAddress | ServiceRefusal | None:
    """What the gate dials for the resource's service; None where it has none, or an `address` of its own."""
    wanted = service_of(resource)
    if wanted is None or (isinstance(resource, ToolServer) and resource.address is not None):
        return None
    name, port = wanted
    service = services.get(name)
    if service is None:
        return ServiceRefusal(code=MISSING_SERVICE, message=f"expected the Service {name}, which does not exist: create it")
    if service.address is None:
        return ServiceRefusal(code=UNUSABLE_SERVICE, message=f"the Service {name} can't be dialled: {service.refusal}")
    if port not in service.ports:
        known = ", ".join(str(each) for each in sorted(service.ports)) or "none"
        return ServiceRefusal(code=UNUSABLE_SERVICE, message=f"the Service {name} has no TCP port {port}; it has: {known}")
    return DialAddress(ip=service.address, port=port)
