"""The policies in force: compiled from the resources once, then asked once per hop.

`compile` gives a bundle or every mistake, never a bundle with something left out. `judge` reads nothing but the bundle
and the question, parses no policy that it asked before, and says Allow only for a clean Allow: at least one permit, no
forbid, no error. A bundle without policies denies everything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from hopgate.policy import admission, cedar, trials
from hopgate.policy.admission import Admission, PolicyMistake
from hopgate.policy.cedar import Answer
from hopgate.policy.index import ROUTES, BoundRule, Index
from hopgate.policy.question import Action, Judgement, Observation, Question
from hopgate.resources.kinds import Policy
from hopgate.resources.registry import Registry

__all__ = ["Admission", "CompileResult", "PolicyBundle", "PolicyMistake", "check", "compile"]


class PolicyBundle:
    """Compiled policies. `digest` (hex SHA-256) names the set: ids, modes and text; the order of the resources does not matter."""

    __slots__ = ("_route", "digest", "index", "size")

    def __init__(self, rules: Sequence[BoundRule], registry: Registry, before: PolicyBundle | None = None) -> None:
        """`before` is what was in force until now: what it made of rules that are the same objects is used again."""
        self.digest: str = _digest(rules)
        self.size: int = len(rules)
        self.index: Index = Index(rules, registry, None if before is None else before.index)
        self._route = lru_cache(maxsize=ROUTES)(self.index.route)

    def __repr__(self) -> str:
        return f"PolicyBundle(size={self.size}, digest={self.digest!r})"

    def judge(self, question: Question) -> Judgement:
        """The answer of the policies that can speak of this question. Raises nothing for any question."""
        route = self._route(question.principal, question.action, question.resource, question.server, question.namespace)
        answer = _NOTHING if route.enforced is None else cedar.evaluate(route.enforced, route.subject, question.context)
        observed = None
        if route.observed is not None:
            seen = _combine(answer, cedar.evaluate(route.observed, route.subject, question.context))
            observed = _observe(_keep_house(seen, (*route.housekeeping, *route.observed_housekeeping), question.action))
        elif route.observed_housekeeping:
            observed = _observe(_keep_house(answer, (*route.housekeeping, *route.observed_housekeeping), question.action))
        answer = _keep_house(answer, route.housekeeping, question.action)
        return Judgement(
            allowed=_is_allow(answer),
            policies=_determining(answer),
            errors=answer.errors,
            observed=observed,
            forbidden=bool(answer.forbids),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileResult:
    """A bundle, or every mistake that was found: exactly one of them is there."""

    bundle: PolicyBundle | None
    mistakes: tuple[PolicyMistake, ...]


def compile(policies: Sequence[Policy], registry: Registry) -> CompileResult:  # noqa: A001 - read as `bundle.compile`; the built-in is not used here
    """Read, check and index all policies, and run their own tests. Raises nothing for any text."""
    rules, mistakes = admission.admit(policies, registry)
    if not mistakes:
        for policy in policies:
            if policy.tests:
                mistakes.extend(_try(policy, [rule for rule in rules if rule.policy == str(policy)], registry))
    if mistakes:
        return CompileResult(bundle=None, mistakes=tuple(mistakes))
    return CompileResult(bundle=PolicyBundle(rules, registry), mistakes=())


def check(policy: Policy, registry: Registry) -> Admission:
    """One policy by itself, as `compile` reads it: its rules and every mistake, of its tests too. Raises nothing for any text."""
    admitted = admission.admit_one(policy, registry)
    if admitted.mistakes or not policy.tests:
        return admitted
    return replace(admitted, mistakes=tuple(_try(policy, [each.rule for each in admitted.rules], registry)))


def _try(policy: Policy, rules: Sequence[BoundRule], registry: Registry) -> list[PolicyMistake]:
    """Run the policy's own tests, against its own rules."""
    return trials.run(policy, rules, registry, lambda alone: PolicyBundle(alone, registry).judge)


_NOTHING = Answer()


def _is_allow(answer: Answer) -> bool:
    return bool(answer.permits) and not answer.forbids and not answer.errors


def _determining(answer: Answer) -> tuple[str, ...]:
    """A permit determines nothing where an error took the answer over."""
    if answer.forbids:
        return tuple(sorted(answer.forbids))
    return () if answer.errors else tuple(sorted(answer.permits))


def _combine(one: Answer, other: Answer) -> Answer:
    """What Cedar would say of both sets as one: any forbid wins, permits and errors add up."""
    forbids = one.forbids + other.forbids
    return Answer(permits=() if forbids else one.permits + other.permits, forbids=forbids, errors=one.errors + other.errors)


def _keep_house(answer: Answer, permits: tuple[str, ...], action: Action) -> Answer:
    """Whoever may do anything at a destination may do its protocol's housekeeping, unless a rule or an error speaks against it."""
    if action is not Action.USE_PROTOCOL or answer.permits or answer.forbids or answer.errors:
        return answer
    return Answer(permits=permits)


def _observe(answer: Answer) -> Observation:
    return Observation(allowed=_is_allow(answer), policies=_determining(answer), errors=answer.errors)


def _digest(rules: Sequence[BoundRule]) -> str:
    described = sorted((bound.id, bound.binding or "", "Observe" if bound.observed else "Enforce", bound.rule.text) for bound in rules)
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()
