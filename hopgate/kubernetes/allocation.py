"""Which virtual address each name of a cluster is given, for `status.addresses`. Pure.

A name without an address gets the one that every process gives it by itself (`hopgate.resources.addresses`), so what was answered before
it stood in `status` is what is then written. A name keeps its address while it is there, also while its object has a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from hopgate.kubernetes import objects
from hopgate.kubernetes.claims import Forms
from hopgate.kubernetes.objects import ClusterObject
from hopgate.resources import addresses
from hopgate.resources.addresses import RANGES
from hopgate.resources.kinds import Agent, ModelProvider, Tls, ToolServer
from hopgate.resources.reference import ObjectReference

Given = Mapping[str, str]

KINDS = frozenset({"Agent", "ToolServer", "ModelProvider"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """The addresses of each object's names, and all of them by name."""

    by_object: Mapping[ObjectReference, Given]
    by_name: Given


def allocate(
    found: Mapping[ObjectReference, ClusterObject], forms: Forms, stands: Mapping[ObjectReference, Given], own: Given
) -> Allocation:
    """The addresses of all names of `found`, of which `forms` are in force.

    `stands` is what each object's `status.addresses` says. `own` is what was given here before: it counts for a name of which nothing
    stands there, since it may have been written without an answer.
    """
    owners = {name: reference for reference, names in _names(found, forms, stands).items() for name in names}
    wanted = {name: _tls(reference, name, forms, stands) for name, reference in owners.items()}
    written = {name: stands[reference][name] for name, reference in owners.items() if name in stands.get(reference, {})}
    before = {**{name: address for name, address in own.items() if name in wanted}, **written}
    given = addresses.allot(wanted, before)
    by_object: dict[ObjectReference, dict[str, str]] = {reference: {} for reference in found if reference.kind in KINDS}
    for name, address in given.items():
        by_object[owners[name]][name] = address
    return Allocation(by_object=by_object, by_name=given)


def _names(
    found: Mapping[ObjectReference, ClusterObject], forms: Forms, stands: Mapping[ObjectReference, Given]
) -> dict[ObjectReference, tuple[str, ...]]:
    """The names that each object has: of its form in force; without one, those that it was given and nobody else has now."""
    names: dict[ObjectReference, tuple[str, ...]] = {}
    for reference in sorted(found.keys() & forms.keys(), key=str):
        resource = forms[reference].resource
        if reference.kind in KINDS and resource is not None:
            names[reference] = objects.virtual_names(resource)
    used = {name for each in names.values() for name in each}
    for reference in sorted(found.keys() - forms.keys(), key=str):
        if reference.kind in KINDS:
            names[reference] = tuple(name for name in sorted(stands.get(reference, {})) if name not in used)
            used.update(names[reference])
    return names


def _tls(reference: ObjectReference, name: str, forms: Forms, stands: Mapping[ObjectReference, Given]) -> Tls:
    form = forms.get(reference)
    if form is not None and isinstance(form.resource, ToolServer | ModelProvider):
        return form.resource.tls
    if form is not None and isinstance(form.resource, Agent):
        return Tls.DISABLED
    address = IPv4Address(stands[reference][name])
    return next((tls for tls, network in RANGES.items() if address in network), Tls.DISABLED)


def repair(name: str, before: str, after: str) -> str:
    """What to tell people of a name whose address was not left as it stood."""
    if not any(IPv4Address(before) in network for network in RANGES.values()):
        return f"`{name}` had {before}, which is none of the gate's virtual addresses; it has {after}"
    return f"`{name}` had {before}, which is another name's or of another range than its `tls`; it has {after}"
