"""What is wrong between objects that are each well-formed: names, hosts and addresses claimed twice, Secrets that are not there.

A `Conflict` names objects by their position in what was given, since two objects of the same name can't be told apart otherwise;
whoever read them knows where each one stands. The later object has the mistake, the earlier one is the `other`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hopgate.identity.names import ObjectName
from hopgate.resources import fields, reference
from hopgate.resources.fields import Path
from hopgate.resources.kinds import Agent, IdentityProvider, ModelProvider, Resource, Secret, SecretKey, SecretValue, ToolServer
from hopgate.resources.reference import ObjectReference


class ConflictCode(StrEnum):
    """What is wrong between objects: stable codes."""

    DUPLICATE_NAME = "DuplicateName"
    DUPLICATE_HOST = "DuplicateHost"
    DUPLICATE_SERVICE = "DuplicateService"
    DUPLICATE_ADDRESS = "DuplicateAddress"
    DUPLICATE_SERVICE_ACCOUNT = "DuplicateServiceAccount"
    DUPLICATE_ISSUER = "DuplicateIssuer"
    MISSING_SECRET = "MissingSecret"  # noqa: S105 - the code of an error, not a password
    MISSING_SECRET_KEY = "MissingSecretKey"  # noqa: S105 - the code of an error, not a password
    UNUSABLE_SECRET = "UnusableSecret"  # noqa: S105 - the code of an error, not a password
    NO_ADDRESS_LEFT = "NoAddressLeft"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """One mistake of an object in its surroundings. `position` and `other` count from 0 in the resources as they were given.

    `other_path` is the field of the other object that stands against this one. `missing` is the object that was referred to and
    is not there.
    """

    position: int
    reference: ObjectReference
    path: Path
    code: ConflictCode
    message: str
    other: int | None = None
    other_path: Path = ()
    missing: ObjectReference | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """That one object wants one thing for itself, and where it says so. No two objects may have a claim of the same code and `wanted`."""

    code: ConflictCode
    wanted: tuple[str, ...]
    path: Path
    said: str

    def refusal(self, owner: ObjectReference) -> str:
        """What to tell whoever claims what `owner` has."""
        return f"{self.said} belongs to {owner} already"

    def refusal_in(self, namespace: str | None, owner: ObjectReference) -> str:
        """The same for whoever can read objects of this namespace: what another namespace has in it is not theirs to know."""
        return self.refusal(owner) if owner.namespace == namespace else f"{self.said} belongs to an object of another namespace already"


# RFC 9110 section 5.5: what a field value may hold, without obs-text; a secret must also not begin or end with a blank.
_HEADER_SAFE = re.compile(rb"[!-~](?:[ -~]*[!-~])?")


def find(resources: Sequence[Resource]) -> tuple[Conflict, ...]:
    """Every conflict within a whole set of resources."""
    return tuple(sorted([*_claimed_twice(resources), *_secrets(resources)], key=lambda conflict: conflict.position))


def service_names(name: str, namespace: str) -> tuple[str, str]:
    """The two names that a service is reached by inside."""
    return f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local"


def secret_values(resources: Iterable[Resource]) -> Mapping[SecretKey, SecretValue]:
    """The value of every Secret's key that some credential refers to; the others are not kept."""
    resources = tuple(resources)
    secrets = {resource.name: resource for resource in resources if isinstance(resource, Secret)}
    wanted = {key for resource in resources if (key := secret_key(resource)) is not None}
    return {key: secrets[key.secret].data[key.key] for key in wanted if key.secret in secrets and key.key in secrets[key.secret].data}


def _claimed_twice(resources: Sequence[Resource]) -> Iterator[Conflict]:
    owners: dict[tuple[ConflictCode, tuple[str, ...]], tuple[int, Path]] = {}
    for position, resource in enumerate(resources):
        for claim in claims(resource):
            owner, owner_path = owners.setdefault((claim.code, claim.wanted), (position, claim.path))
            # The same object written twice has everything twice; saying so once is enough.
            same = claim.code is not ConflictCode.DUPLICATE_NAME and reference.of(resource) == reference.of(resources[owner])
            if owner == position or same:
                continue
            yield Conflict(
                position=position,
                reference=reference.of(resource),
                path=claim.path,
                code=claim.code,
                message=claim.refusal(reference.of(resources[owner])),
                other=owner,
                other_path=owner_path,
            )


def claims(resource: Resource) -> Iterator[Claim]:
    """Everything that the object wants for itself."""
    own = reference.of(resource)
    yield Claim(
        ConflictCode.DUPLICATE_NAME,
        (own.kind, own.namespace or "", own.name),
        ("metadata", "name"),
        f"the name {fields.quote(own.name)}",
    )
    if isinstance(resource, Agent):
        namespace, account = resource.name.namespace, resource.service_account_name
        yield Claim(
            ConflictCode.DUPLICATE_SERVICE_ACCOUNT,
            (namespace, account),
            ("spec", "serviceAccountName"),
            f"the service account {fields.quote(account)} of namespace {fields.quote(namespace)}",
        )
    if isinstance(resource, IdentityProvider):
        yield Claim(ConflictCode.DUPLICATE_ISSUER, (resource.issuer,), ("spec", "issuer"), f"the issuer {fields.quote(resource.issuer)}")
    if isinstance(resource, Agent | ToolServer) and resource.service is not None:
        name, _ = service_names(resource.service.name, resource.name.namespace)
        yield Claim(ConflictCode.DUPLICATE_SERVICE, (name,), ("spec", "service", "name"), f"the service {fields.quote(name)}")
    if isinstance(resource, ToolServer | ModelProvider):
        for place, host in enumerate(resource.hosts):
            yield Claim(ConflictCode.DUPLICATE_HOST, (host,), ("spec", "hosts", place), f"the host {fields.quote(host)}")
        if resource.address is not None:
            address = str(resource.address)
            yield Claim(ConflictCode.DUPLICATE_ADDRESS, (address,), ("spec", "address"), f"the address {fields.quote(address)}")


def secret_key(resource: Resource) -> SecretKey | None:
    """The key of a Secret that the object's credential refers to."""
    credential = resource.credential if isinstance(resource, ToolServer | ModelProvider) else None
    return None if credential is None else credential.secret


def _secrets(resources: Sequence[Resource]) -> Iterator[Conflict]:
    secrets: dict[ObjectName, tuple[int, Secret]] = {}
    for position, resource in enumerate(resources):
        if isinstance(resource, Secret):
            secrets.setdefault(resource.name, (position, resource))
    for position, resource in enumerate(resources):
        yield from credential_conflicts(position, resource, secrets.get)


def credential_conflicts(
    position: int, resource: Resource, find_secret: Callable[[ObjectName], tuple[int, Secret] | None]
) -> Iterator[Conflict]:
    """Why the object's credential can't be used; nothing where it can, or there is none. `find_secret` gives position and Secret."""
    wanted = secret_key(resource)
    if wanted is None:
        return
    own = reference.of(resource)
    place: Path = ("spec", "credential", "secretRef")
    found = find_secret(wanted.secret)
    if found is None:
        missing = ObjectReference(kind="Secret", namespace=wanted.secret.namespace, name=wanted.secret.name)
        message = f"expected the {missing}, which does not exist: add it, in the namespace of what refers to it"
        yield Conflict(
            position=position, reference=own, path=(*place, "name"), code=ConflictCode.MISSING_SECRET, message=message, missing=missing
        )
        return
    other, secret = found
    value = secret.data.get(wanted.key)
    if value is None:
        yield Conflict(
            position=position,
            reference=own,
            path=(*place, "key"),
            code=ConflictCode.MISSING_SECRET_KEY,
            message=f"expected the key {fields.quote(wanted.key)} in {reference.of(secret)}, which has no such key",
            other=other,
            other_path=("metadata", "name"),
        )
    elif _HEADER_SAFE.fullmatch(value.reveal()) is None:
        yield Conflict(
            position=position,
            reference=own,
            path=(*place, "key"),
            code=ConflictCode.UNUSABLE_SECRET,
            message=f"expected the key {fields.quote(wanted.key)} of {reference.of(secret)} to fit into a header, "
            "got an empty value or one with a line break, a blank around it or bytes beyond printable ASCII: often a newline at its end",
            other=other,
            other_path=("metadata", "name"),
        )
