"""Cedar itself: the one module that knows cedarpy.

Reads one policy into values, validates it strictly, evaluates slices of policies. Foreign errors stop here: reading
raises CedarSyntaxError or CedarSchemaError, and evaluating raises nothing, it answers with errors, which the caller turns
into a Deny. Text and schemas are read once: the caches hold pure functions' results and are bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, Final

import cedarpy
from cedarpy import pst

from hopgate.policy.errors import CedarSchemaError, CedarSyntaxError
from hopgate.policy.question import ContextValue, Entity, EvaluationError
from hopgate.policy.scope import ANY, Constraint, Scope

NAMESPACE: Final = "Hopgate"
# A reload reads and validates only what changed; twice the largest measured set, so that a new set fits beside the old one.
_READ_CACHE: Final = 20_000
_SCHEMA_CACHE: Final = 256
# Cedar's messages can quote values of a request: enough to understand, not enough to fill a record.
_MESSAGE_LIMIT: Final = 300
_EVALUATION_ERROR = re.compile(r"error while evaluating policy `policy(\d+)`: (.*)", re.DOTALL)
# The keys by which Cedar's JSON form makes entities and extension values out of plain data. As keys they never occur here;
# inside a JSON string their quotes would be escaped, so the three searches find keys only.
_ESCAPES: Final = ('"__entity":', '"__extn":', '"__expr":')
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, allow_nan=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One Cedar policy. `reads` are the top-level context attributes that it looks at; None: the context as a whole."""

    text: str
    permits: bool
    scope: Scope
    annotations: Mapping[str, str]
    reads: frozenset[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Some policies, parsed, under ids of ours. `ids[i]` is the i-th policy's."""

    ids: tuple[str, ...]
    reads: tuple[str, ...] | None
    handle: cedarpy.PolicySet = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Who asks to do what to which resource, with the entities around them, parsed."""

    request: Mapping[str, Any]
    entities: cedarpy.Entities = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a slice says: the permits or the forbids that determine it (never both), in order, and what failed."""

    permits: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()
    errors: tuple[EvaluationError, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One of the conditions that a rule makes, all of which must be `wanted`. `reads` are the context attributes in it, as paths."""

    text: str
    wanted: bool
    reads: tuple[tuple[str, ...], ...]
    alone: Slice = field(repr=False)


def count(text: str) -> int:
    """How many policies and templates Cedar finds in `text`. Raises CedarSyntaxError."""
    try:
        found = cedarpy.PolicySet.from_str(text)
    except ValueError as error:
        raise CedarSyntaxError(_clean(str(error))) from error
    return len(found) + len(found.templates())


@lru_cache(maxsize=_READ_CACHE)
def read(text: str) -> Rule:
    """The one policy that `text` holds. Raises CedarSyntaxError, also for a template and for more or fewer than one."""
    try:
        tree = cedarpy.PolicySet.from_str(text).to_pst()
    except ValueError as error:
        raise CedarSyntaxError(_clean(str(error))) from error
    if tree.templates:
        raise CedarSyntaxError("a template (`?principal`, `?resource`) binds nothing here: name the entity, or write a condition")
    if len(tree.static_policies) != 1:
        raise CedarSyntaxError(f"expected one policy, found {len(tree.static_policies)}")
    (node,) = tree.static_policies.values()
    return Rule(
        text=text,
        permits=node.effect == "permit",
        scope=Scope(principal=_constraint(node.principal), actions=_actions(node.action), resource=_constraint(node.resource)),
        annotations=dict(node.annotations),
        reads=_reads(node.clauses),
    )


def slice_of(rules: Sequence[tuple[str, Rule]]) -> Slice:
    """The rules, each under its id, ready to be evaluated together."""
    reads: frozenset[str] | None = frozenset()
    for _, rule in rules:
        reads = None if reads is None or rule.reads is None else reads | rule.reads
    return Slice(
        ids=tuple(rule_id for rule_id, _ in rules),
        reads=None if reads is None else tuple(sorted(reads)),
        handle=cedarpy.PolicySet.from_str("\n".join(rule.text for _, rule in rules)),
    )


def conditions(rule: Rule) -> tuple[Condition, ...]:
    """What `rule` asks for beside its scope, in order: each operand of `when`'s `&&` and of `unless`' `||` by itself."""
    tree = cedarpy.PolicySet.from_str(rule.text).to_pst()
    (node,) = tree.static_policies.values()
    everyone = replace(node, annotations={}, effect="permit", principal=pst.ScopeAny(), action=pst.ScopeAny(), resource=pst.ScopeAny())
    found = []
    for clause in node.clauses:
        wanted = isinstance(clause, pst.When)
        for operand in _operands(clause.expr, "and" if wanted else "or"):
            made = cedarpy.PolicySet.from_pst(
                replace(tree, static_policies={"policy0": replace(everyone, clauses=(pst.When(expr=operand),))})
            )
            text = str(made).partition(" when {")[2].rpartition("}")[0].strip()
            alone = Slice(ids=("",), reads=None, handle=made)
            found.append(Condition(text=text, wanted=wanted, reads=tuple(path for path in _paths(operand) if path), alone=alone))
    return tuple(found)


def _operands(node: pst.Expr, operator: str) -> list[pst.Expr]:
    """What `operator` joins, in order."""
    found, waiting = [], [node]
    while waiting:
        each = waiting.pop()
        if isinstance(each, pst.BinaryOp) and each.op == operator:
            waiting += (each.right, each.left)
        else:
            found.append(each)
    return found


@lru_cache(maxsize=_SCHEMA_CACHE)
def _schema(text: str) -> cedarpy.Schema:
    try:
        return cedarpy.Schema.from_str(text)
    except ValueError as error:
        raise CedarSchemaError(_clean(str(error))) from error


@lru_cache(maxsize=_READ_CACHE)
def validate(text: str, schema: str) -> tuple[str, ...]:
    """What strict validation of the one policy in `text` finds wrong: Cedar's messages, sorted. Raises CedarSchemaError."""
    return _validate(text, schema)


def _validate(text: str, schema: str) -> tuple[str, ...]:
    result = cedarpy.validate_policies(text, _schema(schema))
    if result.validation_passed:
        return ()
    return tuple(sorted({_clean(found.error.removeprefix("for policy `policy0`, ")) for found in result.errors})) or ("not valid",)


@lru_cache(maxsize=_READ_CACHE)
def is_impossible(text: str, schema: str) -> bool:
    """Whether the valid policy in `text` (ending in its semicolon) is one that Cedar's type checker knows can never match.

    cedarpy keeps the validator's warnings to itself. The checker does not look behind a condition that it knows to be false
    for every kind of request, so a type error appended as one more condition goes unnoticed in exactly those policies.
    """
    return not _validate(f"{text[:-1]}\nwhen {{ (1 + true) == 1 }};", schema)


def subject(principal: Entity, action: str, resource: Entity, entities: Iterable[Mapping[str, Any]]) -> Subject:
    """A question's fixed part, parsed once. `entities` are of the form that `entity` gives."""
    request = {"principal": _uid(principal), "action": _uid(Entity("Action", action)), "resource": _uid(resource)}
    return Subject(request=request, entities=cedarpy.Entities.from_json_str(json.dumps(list(entities))))


def entity(name: Entity, attributes: Mapping[str, str], parent: Entity | None = None) -> Mapping[str, Any]:
    """An entity in Cedar's JSON form."""
    return {"uid": _uid(name), "attrs": dict(attributes), "parents": [] if parent is None else [_uid(parent)]}


def evaluate(policies: Slice, about: Subject, context: Mapping[str, ContextValue]) -> Answer:
    """Ask `policies`. Only the attributes that they read go into Cedar. Raises nothing: what fails is an error in the answer."""
    if policies.reads is not None:
        context = {name: context[name] for name in policies.reads if name in context}
    return _ask(policies, about, context, None)


def find_misfit(about: Subject, context: Mapping[str, ContextValue], schema: str) -> str | None:
    """How the request does not fit the schema, its whole context included; None where it fits."""
    answer = _ask(Slice(ids=(), reads=None, handle=cedarpy.PolicySet.from_str("")), about, context, _schema(schema))
    return answer.errors[0].message.removeprefix("failed to build request: ") if answer.errors else None


def _ask(policies: Slice, about: Subject, context: Mapping[str, ContextValue], schema: cedarpy.Schema | None) -> Answer:
    try:
        text = _encode(context)
        if any(escape in text for escape in _ESCAPES):
            return _failed("the context holds a key that Cedar would take for an entity or an extension value")
        result = cedarpy.is_authorized({**about.request, "context": text}, policies.handle, about.entities, schema)
        diagnostics = result.diagnostics
        reasons = tuple(policies.ids[position] for position in sorted(int(name[6:]) for name in diagnostics.reasons))
        errors = tuple(_error(message, policies.ids) for message in diagnostics.errors)
        decision = result.decision
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        return _failed(str(error))
    if decision is cedarpy.Decision.Allow:
        return Answer(permits=reasons, errors=errors)
    if decision is cedarpy.Decision.Deny:
        return Answer(forbids=reasons, errors=errors)
    return Answer(errors=errors or _failed("Cedar gave no decision").errors)


def _failed(message: str) -> Answer:
    return Answer(errors=(EvaluationError(policy="", message=_clean(message)),))


def _error(message: str, ids: tuple[str, ...]) -> EvaluationError:
    match = _EVALUATION_ERROR.fullmatch(message)
    if match is None:
        return EvaluationError(policy="", message=_clean(message))
    return EvaluationError(policy=ids[int(match[1])], message=_clean(match[2]))


def _clean(message: str) -> str:
    return "".join(character if character.isprintable() else " " for character in message[:_MESSAGE_LIMIT])


def _uid(name: Entity) -> dict[str, str]:
    return {"type": f"{NAMESPACE}::{name.type}", "id": name.id}


def _type(node: pst.EntityType) -> str:
    """The type without `Hopgate::`. Other namespaces stay in the name, so that they equal none of ours."""
    return node.basename if node.namespace == (NAMESPACE,) else f"::{node}"


def _entity(node: pst.EntityOrSlot) -> Entity:
    if isinstance(node, pst.Slot):
        raise CedarSyntaxError("a template binds nothing here")
    return Entity(_type(node.type), node.id)


def _constraint(node: pst.PrincipalOrResourceConstraint) -> Constraint:
    match node:
        case pst.ScopeAny():
            return ANY
        case pst.ScopeEq():
            return Constraint(entity=_entity(node.entity))
        case pst.ScopeIn():
            return Constraint(entity=_entity(node.entity), below=True)
        case pst.ScopeIs():
            return Constraint(type=_type(node.entity_type))
        case pst.ScopeIsIn():
            return Constraint(type=_type(node.entity_type), entity=_entity(node.entity), below=True)


def _actions(node: pst.ActionConstraint) -> frozenset[str] | None:
    match node:
        case pst.ScopeAny():
            return None
        case pst.ActionEq():
            return frozenset({node.entity.id})
        case pst.ActionIn():
            return frozenset(action.id for action in node.entities)


def _reads(clauses: tuple[pst.Clause, ...]) -> frozenset[str] | None:
    """The context attributes in use, or None where `context` is used other than by naming an attribute of it."""
    paths = _paths(clauses)
    return None if () in paths else frozenset(path[0] for path in paths)


def _paths(node: object) -> dict[tuple[str, ...], None]:
    """The attributes of `context` in an expression as their longest paths, in order; the empty path is `context` as a whole."""
    found: dict[tuple[str, ...], None] = {}
    waiting: list[object] = [node]
    while waiting:
        each = waiting.pop()
        path = _path(each)
        if path is not None:
            found[path] = None
        elif isinstance(each, Mapping):
            waiting.extend(reversed(tuple(each.values())))
        elif isinstance(each, tuple):
            waiting.extend(reversed(each))
        elif is_dataclass(each):
            waiting.extend(getattr(each, item.name) for item in reversed(fields(each)))
    return found


def _path(node: object) -> tuple[str, ...] | None:
    """The path of an expression that is `context`, or names an attribute of it or asks for one; None of any other."""
    names: tuple[str, ...] = ()
    if isinstance(node, pst.HasAttr):
        names, node = node.attrs, node.base
    while isinstance(node, pst.GetAttr):
        names, node = (node.attr, *names), node.base
    return names if isinstance(node, pst.Var) and node.name == "context" else None
