"""Why the policies answered as they did: each rule that could speak, each of its conditions with the values that it looked at, and the
narrowest permit that would have allowed the request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hopgate.policy import cedar
from hopgate.policy.bundle import PolicyBundle
from hopgate.policy.cedar import Rule, Subject
from hopgate.policy.question import Entity, Judgement, Question

# Facts that the next request of the same kind would not share: the time, and who was before on the way.
_PASSING: Final = frozenset({"now", "chain"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One condition of a rule. `value` is None where it was not reached, or failed with `error`. In `facts` None is an absent value."""

    text: str
    wanted: bool
    value: bool | None
    error: str
    facts: tuple[tuple[str, Any], ...]

    @property
    def met(self) -> bool:
        """Whether the rule may go on to its next condition."""
        return self.value is self.wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """A rule whose scope matches. `matched` says whether all its conditions were met."""

    id: str
    permits: bool
    observed: bool
    matched: bool
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """`permit` is the narrowest permit that would allow what was denied; empty where it was allowed, or where no permit can help."""

    judgement: Judgement
    speakers: tuple[Speaker, ...]
    permit: str


def explain(policies: PolicyBundle, question: Question) -> Explanation:
    """Judge the question and say why. Raises nothing for any question."""
    about = (question.principal, question.action, question.resource, question.server, question.namespace)
    subject = policies.index.route(*about).subject
    judgement = policies.judge(question)
    speakers = []
    for bound in policies.index.speaking(*about):
        findings = tuple(_findings(bound.rule, subject, question.context))
        matched = all(finding.met for finding in findings)
        speakers.append(Speaker(id=bound.id, permits=bound.rule.permits, observed=bound.observed, matched=matched, findings=findings))
    permit = "" if judgement.allowed or judgement.forbidden or judgement.errors else narrowest_permit(question)
    if permit and not _allows(permit, subject, question):
        permit = ""
    return Explanation(judgement=judgement, speakers=tuple(speakers), permit=permit)


def _findings(rule: Rule, subject: Subject, context: Mapping[str, Any]) -> Iterator[Finding]:
    reached = True
    for condition in cedar.conditions(rule):
        facts = tuple((".".join(("context", *path)), _fact(context, path)) for path in condition.reads)
        value, error = None, ""
        if reached:
            answer = cedar.evaluate(condition.alone, subject, context)
            error = answer.errors[0].message if answer.errors else ""
            value = None if error else bool(answer.permits)
        finding = Finding(text=condition.text, wanted=condition.wanted, value=value, error=error, facts=facts)
        reached = reached and finding.met
        yield finding


def _fact(context: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = context
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def _allows(permit: str, subject: Subject, question: Question) -> bool:
    alone = cedar.slice_of([("permit", cedar.read(permit))])
    answer = cedar.evaluate(alone, subject, question.context)
    return bool(answer.permits) and not answer.errors


def narrowest_permit(question: Question) -> str:
    """A permit for this caller, action and resource with the facts of this request and no others, but for the time and the way."""
    scope = (
        f"principal == {_entity(question.principal)}",
        f"action == {_entity(Entity('Action', question.action.value))}",
        f"resource == {_entity(question.resource)}",
    )
    facts = [fact for name, value in question.context.items() if name not in _PASSING for fact in _pinned("context", name, value)]
    between, both = ",\n    ", " &&\n    "
    condition = f"\nwhen {{\n    {both.join(facts)}\n}}" if facts else ""
    return f"permit (\n    {between.join(scope)}\n){condition};"


def _pinned(base: str, name: str, value: Any) -> Iterator[str]:
    """Conditions under which an attribute has exactly this value."""
    yield f"{base} has {_text(name)}"
    path = f"{base}[{_text(name)}]"
    if isinstance(value, Mapping):
        for inner, item in value.items():
            yield from _pinned(path, inner, item)
    else:
        yield f"{path} == {_literal(value)}"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(name)}: {_literal(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return _text(value) if isinstance(value, str) else str(value)


def _text(value: str) -> str:
    """A string in Cedar's form: what is not printable, and what would end it, as its code."""
    return '"' + "".join(item if item.isprintable() and item not in '"\\' else f"\\u{{{ord(item):x}}}" for item in value) + '"'


def _entity(name: Entity) -> str:
    return f"{cedar.NAMESPACE}::{name.type}::{_text(name.id)}"
