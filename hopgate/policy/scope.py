"""A policy's scope as values: which principals, actions and resources it can match at all, whatever its conditions say.

A constraint matches exactly when Cedar's own scope test does (`==`, `in`, `is`, `is … in`): the index leaves a policy
out only where `matches` is false. Hierarchies are one step deep: a Tool is in its ToolServer, a Model in its ModelProvider.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hopgate.policy.question import Entity


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a scope says of its principal or resource.

    No field set: anything. `type`: `is`. `entity`: `==`, and with `below` also what is in it: `in`. All three: `is … in`.
    """

    type: str | None = None
    entity: Entity | None = None
    below: bool = False

    def matches(self, entity: Entity, parent: Entity | None) -> bool:
        """Whether Cedar would find `entity`, whose only ancestor is `parent`, inside this constraint."""
        if self.type is not None and entity.type != self.type:
            return False
        return self.entity is None or entity == self.entity or (self.below and parent is not None and parent == self.entity)


ANY = Constraint()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A policy's head. `actions` None: any action."""

    principal: Constraint = ANY
    actions: frozenset[str] | None = None
    resource: Constraint = ANY

    def covers_action(self, action: str) -> bool:
        """Whether the scope's action can be `action`."""
        return self.actions is None or action in self.actions


def matching(entity: Entity, parent: Entity | None) -> Iterator[Constraint]:
    """Every constraint that `entity` matches: the keys under which an index must look."""
    yield ANY
    yield Constraint(type=entity.type)
    yield Constraint(entity=entity)
    for ancestor in (entity,) if parent is None else (entity, parent):
        yield Constraint(entity=ancestor, below=True)
        yield Constraint(type=entity.type, entity=ancestor, below=True)


def head(scope: Scope, namespace: str) -> str:
    """The scope as Cedar writes it, `(principal …, action …, resource …)`. An id beyond printable text gives one that Cedar can't read."""
    actions = (
        "" if scope.actions is None else f" in [{', '.join(_literal(f'{namespace}::Action', name) for name in sorted(scope.actions))}]"
    )
    return f"(principal{_suffix(scope.principal, namespace)}, action{actions}, resource{_suffix(scope.resource, namespace)})"


def _suffix(constraint: Constraint, namespace: str) -> str:
    kind = "" if constraint.type is None else f" is {namespace}::{constraint.type}"
    if constraint.entity is None:
        return kind
    relation = "in" if constraint.below else "=="
    return f"{kind} {relation} {_literal(f'{namespace}::{constraint.entity.type}', constraint.entity.id)}"


def _literal(kind: str, name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'{kind}::"{escaped}"'
