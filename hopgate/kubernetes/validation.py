"""Whether a change of one of hopgate's objects is accepted, as a function of the change and what is in force.

What a folder would refuse is refused here, by the same readers: `resources.parse`, the claims of `resources.conflicts`, and
`policy.bundle.check`, which also runs a policy's own tests. Beyond that a cluster has users with rights, and these count:

- A `credential` may name a Secret only if whoever writes it may `get` that Secret: the gate would send its value where the object says.
  So it counts again at each change of the spec, which may lead the value elsewhere.
- An `address` that is not on the public internet may be dialled only if whoever writes it has the right to that in the whole cluster: it
  leads to other namespaces' pods and services, past the policies that name them.
- Who owns what another object claims already is told only to those who may `get` the owner. Others learn that it is taken, not by whom.

A deletion is accepted, and so is an update that leaves the spec alone: labels, finalizers and owner references are nothing that the
gate reads, and an object whose surroundings have changed must still be possible to remove.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hopgate.audit.records import Change
from hopgate.kubernetes import admission, claims, objects
from hopgate.kubernetes.admission import AdmissionRequest, Allowed, Operation, Refused, Requester, Verdict
from hopgate.kubernetes.api import Manifest
from hopgate.kubernetes.claims import Forms
from hopgate.kubernetes.objects import ClusterObject
from hopgate.kubernetes.snapshots import Built
from hopgate.policy import bundle
from hopgate.policy.bundle import PolicyMistake
from hopgate.resources import conflicts, fields, network, parse, reference, registry
from hopgate.resources.conflicts import Claim, ConflictCode
from hopgate.resources.kinds import GROUP, DialAddress, ModelProvider, Policy, Resource, ToolServer
from hopgate.resources.reference import ObjectReference
from hopgate.resources.registry import Registry

SECRET_NOT_ALLOWED: Final = "SecretNotAllowed"  # noqa: S105 - the code of an error, not a password
ADDRESS_NOT_ALLOWED: Final = "AddressNotAllowed"
UNREADABLE_OBJECT: Final = "UnreadableObject"
# The verb on `toolservers` or `modelproviders` of hopgate, in the whole cluster, of whoever may name an address inside.
DIAL_INSIDE_VERB: Final = "dial-inside"

_POLICIES: Final = frozenset({"Policy", "ClusterPolicy"})
_PLURALS: Final[Mapping[str, str]] = {
    "Agent": "agents",
    "ToolServer": "toolservers",
    "ModelProvider": "modelproviders",
    "IdentityProvider": "identityproviders",
}
_OPERATIONS: Final = {Operation.CREATE: "Create", Operation.UPDATE: "Update", Operation.DELETE: "Delete"}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is in force: who owns what can be claimed once, and the registry that policies are read against."""

    owners: Mapping[tuple[ConflictCode, tuple[str, ...]], ObjectReference]
    registry: Registry
    forms: Forms = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One question of rights: may this user do this? Fits a SubjectAccessReview's `resourceAttributes`."""

    verb: str
    resource: str
    namespace: str | None
    name: str = ""
    group: str = ""


# Whether the requester may. Raises ClientError where nobody answers.
MayAccess = Callable[[Requester, Access], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One reason to refuse. `surroundings` says that other objects are part of it, so that a newer view of them may see it otherwise."""

    field: str
    message: str
    code: str
    surroundings: bool = False
    forbidden: bool = False

    def __str__(self) -> str:
        return f"{self.field}: {self.message} ({self.code})" if self.field else f"{self.message} ({self.code})"


def world_of(built: Built) -> World:
    """The world of a snapshot that is in force."""
    return _world(built.forms, built.snapshot.registry)


def world_of_objects(manifests: Iterable[Manifest], before: Forms) -> World:
    """The world of objects that were listed just now; `before` says who had what until now.

    Secrets are no part of it: a resource counts also where its credential can't be used.
    """
    read = (objects.read(manifest) for manifest in manifests)
    found = [_without_credential(each) for each in read if each is not None]
    chosen = claims.choose(found, {own: _without_credential(form) for own, form in before.items()}, {})
    resources = [form.resource for form in chosen.forms.values() if form.resource is not None]
    assembled, _ = registry.assemble(resources, {name: address for each in found for name, address in each.addresses.items()})
    return _world(chosen.forms, assembled)


def find_mistakes(request: AdmissionRequest, world: World, may: MayAccess) -> tuple[Mistake, ...]:
    """Every reason to refuse the change; none where it is accepted. `may` raises ClientError where rights can't be learned."""
    if not _is_judged(request):
        return ()
    if request.object is None:
        return (Mistake(field="", message="expected the object, got none", code=UNREADABLE_OBJECT),)
    result = parse.parse(request.object)
    if result.resource is None:
        return tuple(Mistake(field=fields.show(each.path), message=each.message, code=each.code) for each in result.mistakes)
    own = reference.of(result.resource)
    if (own.kind, own.namespace, own.name) != (request.kind, request.namespace, request.name or own.name):
        message = f"expected {request.kind} {request.namespace or ''} {request.name}, got {own}"
        return (Mistake(field="metadata", message=message, code=UNREADABLE_OBJECT),)
    return (
        *_claimed(result.resource, request.requester, world, may),
        *_credential(result.resource, request.requester, may),
        *_address(result.resource, _before(request), request.requester, may),
        *_policy(result.resource, world.registry),
    )


def new_claims(request: AdmissionRequest) -> tuple[Claim, ...]:
    """What the object wants for itself and did not want before; nothing where it can't be read."""
    if not _is_judged(request) or request.object is None:
        return ()
    resource, before = parse.parse(request.object).resource, _before(request)
    had = set() if before is None else {(claim.code, claim.wanted) for claim in conflicts.claims(before)}
    wanted = () if resource is None else conflicts.claims(resource)
    return tuple(claim for claim in wanted if claim.code is not ConflictCode.DUPLICATE_NAME and (claim.code, claim.wanted) not in had)


def contested(claim: Claim) -> Mistake:
    """That another object is being given the same at this moment."""
    message = f"{claim.said} is being given to another object at this moment: try again"
    return Mistake(field=fields.show(claim.path), message=message, code=claim.code)


def refer(request: AdmissionRequest) -> ObjectReference:
    """The object that is asked about."""
    return ObjectReference(kind=request.kind, namespace=request.namespace, name=_name(request))


def verdict(request: AdmissionRequest, mistakes: Iterable[Mistake]) -> Verdict:
    """What the API server is told."""
    found = tuple(mistakes)
    if not found:
        return Allowed()
    message = f"{refer(request)}: {admission.lines(str(each) for each in found)}"
    if all(each.forbidden for each in found):
        return Refused(message=message, status=403, reason="Forbidden")
    return Refused(message=message)


def change(request: AdmissionRequest, time_us: int) -> Change | None:
    """The record of an accepted change; None for what is no change of a resource: a dry run, a status. `time_us`: Unix microseconds.

    The record's id is the API server's for the request, so that a request which is asked about twice can be told.
    """
    operation = _OPERATIONS.get(request.operation)
    if operation is None or request.dry_run or request.subresource or request.group != GROUP:
        return None
    before, after = _content(request.old_object), _content(request.object)
    if request.operation is Operation.UPDATE and before == after:
        return None
    name = _name(request)
    return Change(
        id=request.uid.replace("-", ""),
        time=time_us,
        who=who(request.requester),
        operation=operation,
        kind=request.kind,
        name=name if request.namespace is None else f"{request.namespace}/{name}",
        before=before,
        after=after,
    )


def who(requester: Requester) -> str:
    """User name and groups, as a record has them: `alice (developers, system:authenticated)`."""
    return f"{requester.name} ({', '.join(requester.groups)})" if requester.groups else requester.name


def _world(forms: Forms, assembled: Registry) -> World:
    owners = {(claim.code, claim.wanted): own for own, form in forms.items() for claim in form.claims}
    return World(owners=owners, registry=assembled, forms=forms)


def _without_credential(found: ClusterObject) -> ClusterObject:
    resource = found.resource
    if not isinstance(resource, ToolServer | ModelProvider) or resource.credential is None:
        return found
    return replace(found, resource=replace(resource, credential=None))


def _is_judged(request: AdmissionRequest) -> bool:
    if request.subresource or request.operation not in (Operation.CREATE, Operation.UPDATE):
        return False
    old = request.old_object
    same = request.operation is Operation.UPDATE and old is not None and request.object is not None
    return not (same and old is not None and request.object is not None and old.get("spec") == request.object.get("spec"))


def _claimed(resource: Resource, requester: Requester, world: World, may: MayAccess) -> Iterator[Mistake]:
    own = reference.of(resource)
    for claim in conflicts.claims(resource):
        owner = world.owners.get((claim.code, claim.wanted))
        if owner is None or owner == own or claim.code is ConflictCode.DUPLICATE_NAME:
            continue
        access = Access(verb="get", resource=_PLURALS[owner.kind], namespace=owner.namespace, name=owner.name, group=GROUP)
        message = claim.refusal(owner) if may(requester, access) else f"{claim.said} belongs to an object already that you may not see"
        yield Mistake(field=fields.show(claim.path), message=message, code=claim.code, surroundings=True)


def _credential(resource: Resource, requester: Requester, may: MayAccess) -> Iterator[Mistake]:
    """What is told is the same whether the Secret exists or not."""
    key = conflicts.secret_key(resource)
    if key is None:
        return
    namespace, name = key.secret.namespace, key.secret.name
    if not may(requester, Access(verb="get", resource="secrets", namespace=namespace, name=name)):
        yield Mistake(
            field="spec.credential.secretRef.name",
            message=f"expected a Secret that you may `get`, got {fields.quote(f'{namespace}/{name}')}: "
            "ask for that right, or have somebody who has it write this object",
            code=SECRET_NOT_ALLOWED,
            forbidden=True,
        )


def _address(resource: Resource, before: Resource | None, requester: Requester, may: MayAccess) -> Iterator[Mistake]:
    """An address that stays as it was leads nowhere new."""
    dialled = _dialled(resource)
    if dialled is None or network.is_public(dialled.ip) or dialled == _dialled(before):
        return
    plural = _PLURALS[reference.of(resource).kind]
    if not may(requester, Access(verb=DIAL_INSIDE_VERB, resource=plural, namespace=None, group=GROUP)):
        yield Mistake(
            field="spec.address",
            message=f"expected an address on the public internet, got {fields.quote(str(dialled))}: name a `service` of your namespace, or "
            f"ask for the right to `{DIAL_INSIDE_VERB}` on `{plural}.{GROUP}` in the cluster",
            code=ADDRESS_NOT_ALLOWED,
            forbidden=True,
        )


def _dialled(resource: Resource | None) -> DialAddress | None:
    return resource.address if isinstance(resource, ToolServer | ModelProvider) else None


def _before(request: AdmissionRequest) -> Resource | None:
    """The object as it was, where that can be read."""
    updated = request.operation is Operation.UPDATE and request.old_object is not None
    return parse.parse(request.old_object).resource if updated and request.old_object is not None else None


def _policy(resource: Resource, against: Registry) -> Iterator[Mistake]:
    if not isinstance(resource, Policy):
        return
    for mistake in bundle.check(resource, against).mistakes:
        yield Mistake(field=_place(mistake), message=mistake.message, code=mistake.code, surroundings=True)


def _place(mistake: PolicyMistake) -> str:
    """The field, and for Cedar text the line and column in it."""
    shown = fields.show(mistake.path)
    return f"{shown} line {mistake.line}, column {mistake.column}" if mistake.path == ("spec", "cedar") else shown


def _name(request: AdmissionRequest) -> str:
    metadata = (request.object or request.old_object or {}).get("metadata")
    named = metadata.get("name") if isinstance(metadata, Mapping) else None
    return request.name or (named if isinstance(named, str) else "")


def _content(manifest: Manifest | None) -> Mapping[str, Any]:
    """What of an object is recorded: what people write, without annotations, in which tools keep copies."""
    if manifest is None:
        return {}
    metadata = manifest.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    return {"labels": labels or {}, "spec": manifest.get("spec") or {}}
