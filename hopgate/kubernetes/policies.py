"""Which rules are in force, where some policies have mistakes. What is in force never permits more than the policies as they are meant.

A mistake in a permit can only deny too much if the permit is left out; a mistake in a forbid must not. So:

- A policy with a mistake stays in its last good form. What that form names may have changed since, so that it has mistakes itself now:
  then those of its permits are left out that have one of their own, and a forbid that has one forbids its whole scope, without its
  conditions. (Cedar finds a number unequal to every string without an error, so a condition of wrong types may silently not hold.)
- A policy that was never good in this process (it was there before the process was) permits nothing. Its forbids are in force, as above.
  Where a part of it, or the scope of a forbid, can't be read, it may forbid anything: everything that the policy may speak of is
  forbidden, which is its namespace, or for a ClusterPolicy the cluster.
- A policy that is new, or that was not edited, and names what is not registered, is in force all the same: no hop has such a caller or
  destination, and the other objects come and go.
- An Observe policy changes no answer, so nothing stands in for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hopgate.kubernetes import problems
from hopgate.kubernetes.claims import Forms
from hopgate.kubernetes.objects import ClusterObject
from hopgate.kubernetes.problems import Kept, Problem
from hopgate.policy import admission as admissions
from hopgate.policy import cedar
from hopgate.policy.bundle import Admission, PolicyMistake
from hopgate.policy.index import BoundRule
from hopgate.resources.kinds import Policy, PolicyMode
from hopgate.resources.reference import ObjectReference

# What comes and goes with other objects, and lets a rule match nothing.
_HARMLESS: Final = frozenset({"UnknownEntity"})
# No rule that a person names has a blank in its id.
_STAND_IN: Final = "(unreadable)"
_FORBID_ALL: Final = "forbid (principal, action, resource);"

# A policy and the digest of its object, which names the reading.
Check = Callable[[Policy, bytes], Admission]


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """The rules, the form of each policy that they are of (none for one that was never good), and what is wrong."""

    rules: tuple[BoundRule, ...]
    forms: Forms
    problems: tuple[Problem, ...]


def admit(found: Iterable[ClusterObject], before: Forms, check: Check) -> InForce:
    """What is in force of the policies `found`; `before` are the forms that were. `check` reads one against the registry in force."""
    rules: list[BoundRule] = []
    forms: dict[ObjectReference, ClusterObject] = {}
    noted: list[Problem] = []
    for each in found:
        last = before.get(each.reference)
        own, form, new = _admit_one(each, last if last is not None and last.uid == each.uid else None, check)
        rules.extend(own)
        noted.extend(new)
        if form is not None:
            forms[each.reference] = form
    return InForce(rules=tuple(rules), forms=forms, problems=tuple(noted))


def _admit_one(
    found: ClusterObject, last: ClusterObject | None, check: Check
) -> tuple[Sequence[BoundRule], ClusterObject | None, Sequence[Problem]]:
    policy = found.resource if isinstance(found.resource, Policy) else None
    admission = None if policy is None else check(policy, found.digest)
    edited = last is not None and last.digest != found.digest
    if admission is not None and not admission.unread and _is_harmless(admission.mistakes) and not (admission.mistakes and edited):
        return _all(admission), found, _problems(found, admission, Kept.IN_FORCE)
    if last is not None and isinstance(last.resource, Policy):
        kept = Kept.IN_FORCE if last.digest == found.digest else Kept.LAST_GOOD
        return _still_sound(last.resource, check(last.resource, last.digest)), last, _problems(found, admission, kept)
    kept = Kept.NOTHING if policy is not None and policy.mode is PolicyMode.OBSERVE else Kept.FORBIDS
    return _closed(found, policy, admission), None, _problems(found, admission, kept)


def _is_harmless(mistakes: Iterable[PolicyMistake]) -> bool:
    return all(mistake.code in _HARMLESS for mistake in mistakes)


def _all(admission: Admission) -> Sequence[BoundRule]:
    return [admitted.rule for admitted in admission.rules]


def _still_sound(policy: Policy, admission: Admission) -> Sequence[BoundRule]:
    """Of a form that was good: every forbid, and each permit that is good still."""
    good = [admitted.rule for admitted in admission.rules if admitted.rule.rule.permits and _is_harmless(admitted.mistakes)]
    return [*good, *_forbids(policy, admission)]


def _closed(found: ClusterObject, policy: Policy | None, admission: Admission | None) -> Sequence[BoundRule]:
    """Of a policy that was never good: what it forbids, and what it may forbid."""
    if policy is None or admission is None:
        own = found.reference
        name = own.name if own.namespace is None else f"{own.namespace}/{own.name}"
        return [_forbid_all(name, own.namespace)]
    if policy.mode is PolicyMode.OBSERVE:
        return []
    forbids = _forbids(policy, admission)
    return [*forbids, _forbid_all(str(policy), policy.namespace)] if admission.unread else forbids


def _forbids(policy: Policy, admission: Admission) -> list[BoundRule]:
    """Every forbid, those with a mistake without their conditions."""
    forbids: list[BoundRule] = []
    for admitted in admission.rules:
        if admitted.rule.rule.permits:
            continue
        if _is_harmless(admitted.mistakes):
            forbids.append(admitted.rule)
            continue
        wide = admissions.widen(admitted.rule.rule)
        everything = _forbid_all(str(policy), policy.namespace)
        forbids.append(replace(everything, observed=admitted.rule.observed) if wide is None else replace(admitted.rule, rule=wide))
    return forbids


def _forbid_all(policy: str, namespace: str | None) -> BoundRule:
    return BoundRule(id=f"{policy}/{_STAND_IN}", policy=policy, binding=namespace, observed=False, rule=cedar.read(_FORBID_ALL))


def _problems(found: ClusterObject, admission: Admission | None, kept: Kept) -> Sequence[Problem]:
    if admission is None:
        return problems.of_spec(found, kept)
    return [problems.of(found, mistake.path, mistake.code, _placed(mistake), kept) for mistake in admission.mistakes]


def _placed(mistake: PolicyMistake) -> str:
    """The message with its line in the Cedar text; a test's mistake has its field."""
    return f"line {mistake.line}: {mistake.message}" if mistake.path == ("spec", "cedar") else mistake.message
