"""The objects of a cluster to a snapshot: the folder's registry, policies and snapshot type, with each object's mistakes its own.

Pure. What did not change since the snapshot before is taken from it: the registry while no destination changed, a policy's reading while
nothing that it names did, the compiled policies while no rule changed, and of those that did change each rule that stayed.
Virtual addresses are those that the controller wrote into `status.addresses`; a name without one gets the same stable hash as from a
folder. The addresses of the snapshot before don't count: two processes that see the same objects answer alike, whatever each saw before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from hopgate.identity.names import ObjectName
from hopgate.kubernetes import claims, objects, policies, problems
from hopgate.kubernetes.claims import Forms
from hopgate.kubernetes.objects import ClusterObject, ClusterService, ServiceRefusal
from hopgate.kubernetes.problems import Kept, Problem
from hopgate.kubernetes.secrets import Found
from hopgate.policy import admission, bundle
from hopgate.policy.bundle import Admission, PolicyBundle
from hopgate.policy.index import BoundRule
from hopgate.resources import conflicts, reference, registry
from hopgate.resources.conflicts import ConflictCode
from hopgate.resources.kinds import Agent, DialAddress, IdentityProvider, Policy, Resource, ToolServer
from hopgate.resources.reference import ObjectReference
from hopgate.resources.registry import Endpoint, Registry
from hopgate.snapshot import Snapshot, Upstreams

_POLICIES = frozenset({"Policy", "ClusterPolicy"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the caches and the Secrets hold at one moment."""

    objects: Mapping[ObjectReference, ClusterObject]
    services: Mapping[ObjectName, ClusterService]
    secrets: Mapping[ObjectName, Found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A snapshot, the objects it is of, what is wrong with which, and what the next one starts from: the forms that are in force."""

    snapshot: Snapshot
    problems: tuple[Problem, ...]
    objects: Mapping[ObjectReference, ClusterObject] = field(repr=False)
    forms: Forms = field(repr=False)
    kept: _Kept = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """What is used again as long as what it was made from is the same."""

    resources: tuple[Resource, ...]
    allocated: Mapping[str, str]
    bare: Registry
    without_address: Mapping[str, registry.Destination]
    dialled: Mapping[str, DialAddress]
    registry: Registry
    checked: Mapping[bytes, _Checked]
    rules: tuple[BoundRule, ...]


def build(seen: Seen, before: Built | None, now: int) -> Built:
    """What is in force of all that was seen; `before` is what was in force until now. `now` in Unix seconds."""
    last: Forms = {} if before is None else before.forms
    found = sorted(seen.objects.values(), key=_order)
    chosen = claims.choose((each for each in found if each.reference.kind not in _POLICIES), last, seen.secrets)
    forms = sorted(chosen.forms.values(), key=_order)
    noted = [*chosen.problems]
    laid_out = _lay_out(forms, seen, None if before is None else before.kept)
    gates, dialled, refused = _dial(forms, seen.services)
    noted.extend(refused)
    noted.extend(_without_address(chosen.forms, laid_out.without_address))
    dialling = _dialling(laid_out, dialled)
    checks = _Checks(dialling.registry, None if before is None else before.kept)
    in_force = policies.admit((each for each in found if each.reference.kind in _POLICIES), last, checks.check)
    noted.extend(in_force.problems)
    compiled = _compile(in_force.rules, dialling, before)
    every = {**chosen.forms, **in_force.forms}
    snapshot = Snapshot(
        digest=_digest(every.values(), compiled.digest),
        loaded_at=now,
        registry=dialling.registry,
        policies=compiled,
        secrets=conflicts.secret_values([*_resources(forms), *(each.secret for each in seen.secrets.values() if each.secret is not None)]),
        identity_providers={each.issuer: each for each in _resources(forms) if isinstance(each, IdentityProvider)},
        upstreams=Upstreams(gates=gates),
    )
    return Built(
        snapshot=snapshot,
        problems=tuple(sorted(noted, key=problems.order)),
        objects=seen.objects,
        forms=every,
        kept=replace(dialling, checked=checks.used, rules=in_force.rules),
    )


def _order(found: ClusterObject) -> tuple[str, str, str]:
    own = found.reference
    return own.kind, own.namespace or "", own.name


def _resources(forms: Iterable[ClusterObject]) -> tuple[Resource, ...]:
    return tuple(form.resource for form in forms if form.resource is not None)


def _lay_out(forms: Iterable[ClusterObject], seen: Seen, kept: _Kept | None) -> _Kept:
    """The registry, before anything is known of Services."""
    resources = _resources(forms)
    allocated = _allocated(forms, seen.objects)
    same = kept is not None and len(kept.resources) == len(resources) and all(map(_is_same, kept.resources, resources))
    if kept is not None and same and kept.allocated == allocated:
        return kept
    bare, without = registry.assemble(resources, allocated)
    return _Kept(
        resources=resources,
        allocated=allocated,
        bare=bare,
        without_address=without,
        dialled={},
        registry=bare,
        checked={},
        rules=(),
    )


def _is_same(one: Resource, other: Resource) -> bool:
    return one is other


def _allocated(forms: Iterable[ClusterObject], found: Mapping[ObjectReference, ClusterObject]) -> Mapping[str, str]:
    """What the controller gave to names that the forms in force have."""
    allocated: dict[str, str] = {}
    for form in forms:
        addresses = found[form.reference].addresses
        if addresses and form.resource is not None:
            allocated.update({name: addresses[name] for name in objects.virtual_names(form.resource) if name in addresses})
    return allocated


def _without_address(forms: Forms, without: Mapping[str, registry.Destination]) -> Iterable[Problem]:
    for destination in without.values():
        form = forms[reference.of(destination.record)]
        yield problems.of(form, ("spec",), ConflictCode.NO_ADDRESS_LEFT, registry.full_range(destination), Kept.IN_FORCE)


def _dial(
    forms: Iterable[ClusterObject], services: Mapping[ObjectName, ClusterService]
) -> tuple[Mapping[ObjectName, DialAddress], Mapping[str, DialAddress], list[Problem]]:
    """Agents' gates by agent, tool servers' addresses by name, and services that can't be dialled."""
    gates: dict[ObjectName, DialAddress] = {}
    dialled: dict[str, DialAddress] = {}
    refused: list[Problem] = []
    for form in forms:
        if form.resource is None:
            continue
        found = objects.dial(form.resource, services)
        if isinstance(found, ServiceRefusal):
            refused.append(problems.of(form, ("spec", "service"), found.code, found.message, Kept.IN_FORCE))
        elif found is not None and isinstance(form.resource, Agent):
            gates[form.resource.name] = found
        elif found is not None and isinstance(form.resource, ToolServer):
            dialled[objects.virtual_names(form.resource)[0]] = found
    return gates, dialled, refused


def _dialling(laid_out: _Kept, dialled: Mapping[str, DialAddress]) -> _Kept:
    """The registry with the addresses of Services."""
    if dialled == laid_out.dialled:
        return laid_out
    bare = laid_out.bare
    endpoints: dict[str, Endpoint] = {}
    for address, endpoint in bare.by_address.items():
        dial = next((dialled[host] for host in endpoint.hosts if host in dialled), None)
        endpoints[address] = endpoint if dial is None else replace(endpoint, dial=dial)
    complete = replace(bare, by_address=endpoints, by_host={host: endpoint for endpoint in endpoints.values() for host in endpoint.hosts})
    return replace(laid_out, dialled=dialled, registry=complete)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    """One policy, read against one registry, and what it took from that."""

    admission: Admission
    surroundings: tuple[object, ...]


class _Checks:
    """Readings of policies against one registry: what was read before is read again only where what it names has changed."""

    def __init__(self, against: Registry, kept: _Kept | None) -> None:
        self._against = against
        self._earlier: Mapping[bytes, _Checked] = {} if kept is None else kept.checked
        self._same_registry = kept is not None and kept.registry is against
        self.used: dict[bytes, _Checked] = {}

    def check(self, policy: Policy, key: bytes) -> Admission:
        """`bundle.check`, once for each `key`, the digest of the policy."""
        checked = self._earlier.get(key)
        if checked is None or not self._still_holds(policy, checked):
            read = bundle.check(policy, self._against)
            checked = _Checked(admission=read, surroundings=admission.surroundings(read, self._against))
        self.used[key] = checked
        return checked.admission

    def _still_holds(self, policy: Policy, checked: _Checked) -> bool:
        """A policy's tests name what they like, so they are run again."""
        if self._same_registry:
            return True
        return not policy.tests and checked.surroundings == admission.surroundings(checked.admission, self._against)


def _compile(rules: tuple[BoundRule, ...], dialling: _Kept, before: Built | None) -> PolicyBundle:
    """What judges: the one before, with all that it has prepared, where neither a rule nor an agent changed."""
    if before is not None and before.kept.rules == rules and before.snapshot.registry.agents == dialling.registry.agents:
        return before.snapshot.policies
    return PolicyBundle(rules, dialling.registry, None if before is None else before.snapshot.policies)


def _digest(forms: Iterable[ClusterObject], rules: str) -> str:
    digest = hashlib.sha256(rules.encode())
    for one in sorted(form.digest for form in forms):
        digest.update(one)
    return digest.hexdigest()
