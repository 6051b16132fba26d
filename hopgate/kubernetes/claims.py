"""Which form of each object is in force, where objects may claim the same host, service or account.

A folder is taken whole or not at all. In a cluster many people write, so one object's mistake is that object's alone: its last good form
stays, or it is left out, which denies. Who has a thing keeps it, as long as the object wants it: what the form in force has, and for an
object that is new to this process the names in its `status.addresses` (only the controller writes those). What nobody has goes to
the object that was there before, then to the older one. So nobody takes a host, a service or an account over by writing it into an object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hopgate.identity.names import ObjectName
from hopgate.kubernetes import problems
from hopgate.kubernetes.objects import ClusterObject
from hopgate.kubernetes.problems import Kept, Problem
from hopgate.kubernetes.secrets import Found
from hopgate.resources import conflicts
from hopgate.resources.conflicts import Claim, Conflict, ConflictCode
from hopgate.resources.kinds import Secret
from hopgate.resources.reference import ObjectReference

UNREADABLE_SECRET = "UnreadableSecret"  # noqa: S105 - the code of an error, not a password

Forms = Mapping[ObjectReference, ClusterObject]
_Wanted = tuple[ConflictCode, tuple[str, ...]]

# The claims whose names have virtual addresses.
_NAMES = frozenset({ConflictCode.DUPLICATE_HOST, ConflictCode.DUPLICATE_SERVICE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The version of each object that is in force (it has a resource), and what is wrong with which object."""

    forms: Forms
    problems: tuple[Problem, ...]


def choose(found: Iterable[ClusterObject], before: Forms, secrets: Mapping[ObjectName, Found]) -> Chosen:
    """What is in force of `found`; `before` are the forms that were in force until now."""
    found = tuple(found)
    choice = _pass(found, before, secrets)
    # What one object gave up, another could not get in the same pass.
    while choice.refused:
        again = _pass(found, choice.forms, secrets)
        if again.refused >= choice.refused:
            break
        choice = again
    return Chosen(forms=choice.forms, problems=tuple(choice.problems))


def _pass(found: Iterable[ClusterObject], before: Forms, secrets: Mapping[ObjectName, Found]) -> _Choice:
    choice = _Choice(secrets)
    waiting: list[tuple[ClusterObject, ClusterObject | None]] = []
    for each in found:
        last = before.get(each.reference)
        if last is not None and last.uid != each.uid:
            last = None
        if last is not None and last.digest == each.digest and each.resource is not None:
            choice.keep(each)
        else:
            waiting.append((each, last))
    waiting.sort(key=_seniority)
    for each, last in waiting:
        choice.reserve(each, last)
    for each, last in waiting:
        choice.take(each, last)
    return choice


def _seniority(waiting: tuple[ClusterObject, ClusterObject | None]) -> tuple[bool, str, str, str, str]:
    found, last = waiting
    own = found.reference
    return last is None, found.created, own.kind, own.namespace or "", own.name


class _Choice:
    """Forms are taken one after another; what one has, the next can't get."""

    def __init__(self, secrets: Mapping[ObjectName, Found]) -> None:
        self.forms: dict[ObjectReference, ClusterObject] = {}
        self.problems: list[Problem] = []
        self.refused = 0
        self._secrets = secrets
        self._owners: dict[_Wanted, ObjectReference] = {}
        self._reserved: dict[_Wanted, ObjectReference] = {}

    def keep(self, found: ClusterObject) -> None:
        """What was in force and has not changed: only its Secret can have gone, and then its hops are denied for want of it."""
        self._enter(found)
        self._note(found, self._credential(found), Kept.IN_FORCE)

    def reserve(self, found: ClusterObject, last: ClusterObject | None) -> None:
        """Until it is this object's turn, no other gets what it has."""
        for claim in found.claims if last is None else last.claims:
            if last is not None or _was_given(claim, found):
                self._reserved.setdefault((claim.code, claim.wanted), found.reference)

    def take(self, found: ClusterObject, last: ClusterObject | None) -> None:
        """The form as it is now, else the last good one, else nothing.

        Without a last good form, a resource whose Secret is missing is in force all the same: policies may name it,
        and its hops are denied.
        """
        self._release(found, last)
        lost = self._lost(found)
        self.refused += bool(lost)
        credential = () if found.resource is None or lost else self._credential(found)
        if found.resource is not None and not lost and (last is None or not credential):
            self._enter(found)
            self._note(found, credential, Kept.IN_FORCE)
            return
        kept = Kept.NOTHING
        if last is not None and not self._lost(last):
            self._enter(last)
            kept = Kept.LAST_GOOD
        self.problems.extend(problems.of_spec(found, kept))
        for claim, owner in lost:
            self.problems.append(problems.of(found, claim.path, claim.code, claim.refusal_in(found.reference.namespace, owner), kept))
        self._note(found, credential, kept)

    def _enter(self, form: ClusterObject) -> None:
        self.forms[form.reference] = form
        for claim in form.claims:
            self._owners[claim.code, claim.wanted] = form.reference

    def _release(self, found: ClusterObject, last: ClusterObject | None) -> None:
        for claim in found.claims if last is None else last.claims:
            if self._reserved.get((claim.code, claim.wanted)) == found.reference:
                del self._reserved[claim.code, claim.wanted]

    def _lost(self, form: ClusterObject) -> list[tuple[Claim, ObjectReference]]:
        """The claims that another object has, with their owners."""
        lost = []
        for claim in form.claims:
            wanted = (claim.code, claim.wanted)
            owner = self._owners.get(wanted) or self._reserved.get(wanted)
            if owner is not None:
                lost.append((claim, owner))
        return lost

    def _credential(self, form: ClusterObject) -> tuple[Conflict, ...]:
        return () if form.resource is None else tuple(conflicts.credential_conflicts(0, form.resource, self._find_secret))

    def _find_secret(self, name: ObjectName) -> tuple[int, Secret] | None:
        found = self._secrets.get(name)
        return None if found is None or found.secret is None else (0, found.secret)

    def _note(self, found: ClusterObject, credential: Iterable[Conflict], kept: Kept) -> None:
        for conflict in credential:
            code, message = self._explain(conflict)
            self.problems.append(problems.of(found, conflict.path, code, message, kept))

    def _explain(self, conflict: Conflict) -> tuple[str, str]:
        """A Secret that could not be read is not one that does not exist."""
        missing = conflict.missing
        if missing is None or missing.namespace is None:
            return conflict.code, conflict.message
        found = self._secrets.get(ObjectName(missing.namespace, missing.name))
        if found is None or found.error is None:
            return conflict.code, conflict.message
        remedy = "grant `get` on it to the gate's service account" if found.denied else "it is tried again"
        return UNREADABLE_SECRET, f"expected to read the {missing}, got: {found.error}; {remedy}"


def _was_given(claim: Claim, found: ClusterObject) -> bool:
    return claim.code in _NAMES and claim.wanted[0] in found.addresses


def secret_names(found: Iterable[ClusterObject], before: Forms) -> frozenset[ObjectName]:
    """The Secrets that choosing among these needs."""
    resources = [each.resource for each in (*found, *before.values()) if each.resource is not None]
    return frozenset(key.secret for resource in resources if (key := conflicts.secret_key(resource)) is not None)
