"""Which policies can speak of a question at all: found by binding, action, principal and resource, not by trying them.

A policy is left out only where its scope cannot match, or where it is namespaced and the caller or the destination is of
another namespace. What a route needs (parsed slices, parsed entities) is made once and kept; the caches are bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from hopgate.identity import names
from hopgate.identity.errors import InvalidNameError
from hopgate.policy import cedar
from hopgate.policy.cedar import Rule, Slice, Subject
from hopgate.policy.question import Action, Entity
from hopgate.policy.scope import Constraint, matching
from hopgate.resources.registry import Registry

# A route is a (principal, action, resource) that was asked about: about 3 kB. An agent that invents names only turns its own
# routes over, and finds them again at the price of one miss.
ROUTES: Final = 4096
# Slices of several policies; a single policy's slice is made with the bundle and kept apart.
SLICES: Final = 1024

# What counts as "doing something" at a destination whose protocol's housekeeping is asked about: the operations that travel over
# HTTP, and the type of the resource that each is judged on.
_OPERATIONS: Final[Mapping[str, tuple[tuple[Action, str], ...]]] = {
    "Agent": ((Action.SEND_MESSAGE, "Agent"), (Action.HTTP_REQUEST, "Agent")),
    "ToolServer": (
        (Action.LIST_TOOLS, "ToolServer"),
        (Action.READ_RESOURCE, "ToolServer"),
        (Action.GET_PROMPT, "ToolServer"),
        (Action.HTTP_REQUEST, "ToolServer"),
        (Action.CALL_TOOL, "Tool"),
    ),
    "ModelProvider": ((Action.HTTP_REQUEST, "ModelProvider"), (Action.INVOKE_MODEL, "Model")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundRule:
    """A rule in force. `binding` is the namespace that it may speak of, None for all; `policy` is the resource it stands in."""

    id: str
    policy: str
    binding: str | None
    observed: bool
    rule: Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """All that judging one (principal, action, resource) needs. A slice is None where it would be empty.

    `housekeeping` and `observed_housekeeping` are the ids of the permits that let this principal do something at this destination;
    empty unless the action is `UseProtocol`.
    """

    subject: Subject
    enforced: Slice | None
    observed: Slice | None
    housekeeping: tuple[str, ...]
    observed_housekeeping: tuple[str, ...]


_Positions = tuple[int, ...]
_Tree = dict[tuple[str | None, str | None], dict[Constraint, dict[Constraint, list[int]]]]


class Index:
    """The rules of a bundle, by scope."""

    __slots__ = ("_agents", "_rules", "_singles", "_slices", "_tree")

    def __init__(self, rules: Sequence[BoundRule], registry: Registry, before: Index | None = None) -> None:
        """`before`: what was made of the same rule there is used again, since most of an index's price is in that."""
        self._rules = tuple(rules)
        self._agents = registry.agents
        made = {} if before is None else before.made()
        self._singles = tuple(made.get(id(bound)) or cedar.slice_of([(bound.id, bound.rule)]) for bound in self._rules)
        self._slices = lru_cache(maxsize=SLICES)(_Slicer(self._rules))
        self._tree: _Tree = {}
        for position, bound in enumerate(self._rules):
            scope = bound.rule.scope
            for action in (None,) if scope.actions is None else scope.actions:
                by_principal = self._tree.setdefault((bound.binding, action), {})
                by_principal.setdefault(scope.principal, {}).setdefault(scope.resource, []).append(position)

    def made(self) -> Mapping[int, Slice]:
        """What was made of each rule alone, by the rule's identity: good while this index is there."""
        return {id(bound): single for bound, single in zip(self._rules, self._singles, strict=True)}

    def route(self, principal: Entity, action: Action, resource: Entity, server: Entity | None, namespace: str | None) -> Route:
        """Everything that the rules need to judge these. `namespace` is the caller's and the destination's, None where they differ."""
        bindings = _bindings(namespace)
        found = self._find(bindings, principal, action.value, resource, server)
        housekeeping = self._housekeeping(bindings, principal, resource) if action is Action.USE_PROTOCOL else ()
        return Route(
            subject=cedar.subject(principal, action.value, resource, self._entities(principal, resource, server)),
            enforced=self._slice(tuple(position for position in found if not self._rules[position].observed)),
            observed=self._slice(tuple(position for position in found if self._rules[position].observed)),
            housekeeping=tuple(self._rules[position].id for position in housekeeping if not self._rules[position].observed),
            observed_housekeeping=tuple(self._rules[position].id for position in housekeeping if self._rules[position].observed),
        )

    def speaking(
        self, principal: Entity, action: Action, resource: Entity, server: Entity | None, namespace: str | None
    ) -> list[BoundRule]:
        """The rules whose scope matches these, in order, whatever their conditions say."""
        bindings = _bindings(namespace)
        return [self._rules[position] for position in self._find(bindings, principal, action.value, resource, server)]

    def _find(self, bindings: Sequence[str | None], principal: Entity, action: str, resource: Entity, server: Entity | None) -> _Positions:
        """The positions of all rules whose scope matches, in order."""
        found: list[int] = []
        principals = tuple(matching(principal, None))
        resources = tuple(matching(resource, server))
        for binding in bindings:
            for key in (None, action):
                by_principal = self._tree.get((binding, key), {})
                for by_resource in (by_principal[each] for each in principals if each in by_principal):
                    for each in resources:
                        found.extend(by_resource.get(each, ()))
        return tuple(sorted(found))

    def _housekeeping(self, bindings: Sequence[str | None], principal: Entity, destination: Entity) -> _Positions:
        """The positions of the permits that let `principal` do anything at `destination`, by scope alone."""
        found: set[int] = set()
        principals = tuple(matching(principal, None))
        for action, resource_type in _OPERATIONS.get(destination.type, ()):
            for binding in bindings:
                for key in (None, action.value):
                    by_principal = self._tree.get((binding, key), {})
                    for by_resource in (by_principal[each] for each in principals if each in by_principal):
                        for constraint, positions in by_resource.items():
                            if _reaches(constraint, destination, resource_type):
                                found.update(positions)
        return tuple(sorted(position for position in found if self._rules[position].rule.permits))

    def _slice(self, positions: _Positions) -> Slice | None:
        if not positions:
            return None
        return self._singles[positions[0]] if len(positions) == 1 else self._slices(positions)

    def _entities(self, principal: Entity, resource: Entity, server: Entity | None) -> list[Mapping[str, Any]]:
        described = {principal: self._describe(principal, None), resource: self._describe(resource, server)}
        if server is not None:
            described[server] = self._describe(server, None)
        return list(described.values())

    def _describe(self, entity: Entity, parent: Entity | None) -> Mapping[str, Any]:
        """The entity with its attributes. What can't be told has none: a rule that asks for them errs, which denies."""
        if parent is not None:
            return cedar.entity(entity, {"name": entity.id.removeprefix(f"{parent.id}/")}, parent)
        if entity.type not in _OPERATIONS:
            return cedar.entity(entity, {})
        try:
            name = names.parse(entity.id)
        except InvalidNameError:
            return cedar.entity(entity, {})
        attributes = {"namespace": name.namespace, "name": name.name}
        agent = self._agents.get(name) if entity.type == "Agent" else None
        if agent is not None and agent.owner is not None:
            attributes["owner"] = agent.owner
        return cedar.entity(entity, attributes)


def _reaches(constraint: Constraint, destination: Entity, resource_type: str) -> bool:
    """Whether a resource of `resource_type` exists or could exist, the destination or a child of it, that the constraint matches."""
    if constraint.type is not None and constraint.type != resource_type:
        return False
    named = constraint.entity
    if named is None:
        return True
    if resource_type == destination.type:
        return named == destination
    return (named == destination and constraint.below) or (named.type == resource_type and named.id.startswith(f"{destination.id}/"))


class _Slicer:
    """Makes slices of several rules. Apart from the index, so that its cache refers to the rules and not to the index itself."""

    __slots__ = ("_rules",)

    def __init__(self, rules: tuple[BoundRule, ...]) -> None:
        self._rules = rules

    def __call__(self, positions: _Positions) -> Slice:
        return cedar.slice_of([(self._rules[position].id, self._rules[position].rule) for position in positions])


def _bindings(namespace: str | None) -> tuple[str | None, ...]:
    """Of which rules may speak where caller and destination are of this namespace (None: of two)."""
    return (None,) if namespace is None else (None, namespace)
