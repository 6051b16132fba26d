"""Which policies may come into force: each rule read apart, named, validated strictly, and checked to be able to match.

Every mistake is found in one pass and has its place. Refused are: text that Cedar can't read, templates, rules that share an id,
whatever strict validation refuses, and rules that can never match: known to be false by their types, bound to another
namespace than they name, or naming what is not registered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hopgate.policy import cedar, registered, schema, syntax
from hopgate.policy.cedar import Rule
from hopgate.policy.errors import CedarSyntaxError
from hopgate.policy.index import BoundRule
from hopgate.policy.question import Action, Entity
from hopgate.policy.syntax import Piece, Position
from hopgate.resources.kinds import Policy, PolicyMode, Tool
from hopgate.resources.registry import Registry

# The id is a part of `NAMESPACE/POLICY/RULE` in records and messages.
_RULE_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_ARGUMENTS = re.compile(r"`arguments[.`\[]")
_ACTION = re.compile(r'Hopgate::Action::"(\w+)"')
# What Cedar says besides of a scope that it could not read, and what says nothing then.
_NO_ACTION = "unable to find an applicable action given the policy scope constraints"
# Actions that one message lists; a rule that leaves its action open can miss an attribute in nearly all of them.
_LISTED_ACTIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyMistake:
    """One thing to mend in one policy: `path` leads to the field. `line` and `column` count from 1 within it; `code` is stable."""

    namespace: str | None
    name: str
    line: int
    column: int
    code: str
    message: str
    path: tuple[str | int, ...] = ("spec", "cedar")


def admit(policies: Sequence[Policy], registry: Registry) -> tuple[list[BoundRule], list[PolicyMistake]]:
    """The rules of all policies, and every mistake. The rules are to be used only where there is no mistake."""
    rules: list[BoundRule] = []
    mistakes: list[PolicyMistake] = []
    seen: set[str] = set()
    for policy in policies:
        report = _Report(policy)
        if str(policy) in seen:
            report.add("DuplicatePolicy", f"policy `{policy}` is there twice", Position(line=1, column=1))
        seen.add(str(policy))
        rules.extend(_admit_one(policy, registry, report))
        mistakes.extend(report.mistakes)
    return rules, mistakes


class _Report:
    """The mistakes of one policy."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.mistakes: list[PolicyMistake] = []

    def add(self, code: str, message: str, position: Position) -> None:
        self.mistakes.append(
            PolicyMistake(
                namespace=self._policy.namespace,
                name=self._policy.name,
                line=position.line,
                column=position.column,
                code=code,
                message=message,
            )
        )


def _admit_one(policy: Policy, registry: Registry, report: _Report) -> Iterator[BoundRule]:
    pieces = syntax.cut(policy.cedar)
    if not pieces:
        report.add("NoRule", "expected at least one Cedar policy, found none", Position(line=1, column=1))
    seen: dict[str, int] = {}
    for number, piece in enumerate(pieces):
        danger = syntax.find_danger(piece)
        if danger is not None:
            report.add(CedarSyntaxError.code, danger[0], danger[1])
            continue
        try:
            rule = cedar.read(piece.text)
        except CedarSyntaxError as mistake:
            code = "Template" if "template" in str(mistake) else mistake.code
            report.add(code, str(mistake), syntax.locate_syntax(piece, str(mistake), cedar.read))
            continue
        name = _rule_name(rule, number, piece, report)
        if name in seen:
            report.add("DuplicateRule", f"rule `{name}` is already on line {seen[name]}", piece.start)
        seen.setdefault(name, piece.start.line)
        _check(policy, rule, piece, registry, report)
        yield BoundRule(
            id=f"{policy}/{name}",
            policy=str(policy),
            binding=policy.namespace,
            observed=policy.mode is PolicyMode.OBSERVE,
            rule=rule,
        )
    if not report.mistakes and not _is_whole(policy.cedar, len(pieces)):
        report.add(
            CedarSyntaxError.code, "Cedar reads other policies out of this text than its semicolons mark", Position(line=1, column=1)
        )


def _is_whole(text: str, pieces: int) -> bool:
    """Whether Cedar, given the whole text, finds as many policies as it was cut into."""
    try:
        return cedar.count(text) == pieces
    except CedarSyntaxError:
        return False


def _rule_name(rule: Rule, number: int, piece: Piece, report: _Report) -> str:
    name = rule.annotations.get("id")
    if name is None:
        return str(number)
    if not _RULE_ID.fullmatch(name):
        report.add("InvalidRuleId", f"expected an @id of at most 63 letters, digits, `.`, `_` and `-`, got {name[:80]!r}", piece.start)
    return name


def _check(policy: Policy, rule: Rule, piece: Piece, registry: Registry, report: _Report) -> None:
    tool = _named_tool(rule, registry)
    text = schema.text() if tool is None else schema.for_tool(tool.arguments)
    found = cedar.validate(rule.text, text)
    for message in _gather(found):
        report.add("InvalidPolicy", f"{message}{_advice(message, rule, tool)}", syntax.locate_quoted(piece, message))
    if not found and cedar.is_impossible(rule.text, text):
        report.add("NeverMatches", "this rule can never match: its conditions are false for every request of its scope", piece.start)
    for entity in (rule.scope.principal.entity, rule.scope.resource.entity):
        reason = None if entity is None else _unreachable(policy, entity, registry)
        if entity is not None and reason is not None:
            report.add(reason[0], f"this rule can never match: {reason[1]}", _find_id(piece, entity))


def _gather(messages: Sequence[str]) -> Iterator[str]:
    """Cedar's messages, one where Cedar says the same of several actions, and none that only follows from another."""
    alike: dict[str, list[str]] = {}
    for message in messages:
        alike.setdefault(_ACTION.sub("*", message), []).append(message)
    for several in alike.values():
        if several[0] == _NO_ACTION and len(alike) > 1:
            continue
        actions = [match[1] for match in map(_ACTION.search, several) if match is not None]
        if len(several) == 1:
            yield several[0]
        else:
            more = f" and {len(actions) - _LISTED_ACTIONS} more actions" if len(actions) > _LISTED_ACTIONS else ""
            listed = ", ".join(actions[:_LISTED_ACTIONS]) + more
            yield f"{_ACTION.sub(listed, several[0])}: name the action in the scope"


def _named_tool(rule: Rule, registry: Registry) -> Tool | None:
    """The declared tool that the scope names with `==`, the one whose arguments the policy may read."""
    resource = rule.scope.resource
    if resource.entity is None or resource.below or not rule.scope.covers_action(Action.CALL_TOOL.value):
        return None
    return registered.declared_tool(resource.entity, registry)


def _advice(message: str, rule: Rule, tool: Tool | None) -> str:
    if message.startswith("unrecognized entity type `") and "Hopgate::" not in message:
        return "; write it with its namespace: `Hopgate::Agent`, `Hopgate::Tool` …"
    if not _ARGUMENTS.search(message) or not rule.scope.covers_action(Action.CALL_TOOL.value):
        return ""
    named = rule.scope.resource.entity
    if tool is None and named is not None and named.type == "Tool":
        return f"; arguments are typed only for declared tools: declare `{named.id}` with an inputSchema, and name it with `==`"
    if tool is None:
        return '; arguments are typed only where the scope names one declared tool: resource == Hopgate::Tool::"NAMESPACE/SERVER/TOOL"'
    exposed = sorted(tool.arguments.properties)
    if not exposed:
        return f"; tool `{tool.name}` declares no arguments that a policy can read: give it an inputSchema with typed properties"
    return f"; tool `{tool.name}` declares {', '.join(exposed)}"


def _unreachable(policy: Policy, entity: Entity, registry: Registry) -> tuple[str, str] | None:
    """Why the entity that a scope names is none that a hop under this policy could have: a code and a sentence, or None."""
    mistake = registered.find_mistake(entity, registry)
    if policy.namespace is None or not registered.is_namespaced(entity) or (mistake is not None and mistake[0] == "InvalidEntityId"):
        return mistake
    namespace = registered.object_name(entity).namespace
    if namespace == policy.namespace:
        return mistake
    return "OtherNamespace", (
        f"a Policy binds only callers and destinations of its own namespace `{policy.namespace}`, and `{entity.id}` is in "
        f"`{namespace}`; use a ClusterPolicy"
    )


def _find_id(piece: Piece, entity: Entity) -> Position:
    """Where the entity's id is; an id written with escapes is not looked for."""
    for token in piece.tokens:
        if token.text == f'"{entity.id}"':
            return piece.position(token.start)
    return piece.start
