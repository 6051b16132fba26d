"""A scope's constraints match exactly what Cedar's own scope test matches."""

from __future__ import annotations

import itertools

import pytest

from hopgate.policy import cedar, scope
from hopgate.policy.question import Action, Entity
from hopgate.policy.scope import Constraint
from tests.hopgate.policy import world

TOOL = Entity("Tool", "demo/tickets/search")
SERVER = Entity("ToolServer", "demo/tickets")
TEXTS = {
    "resource": Constraint(),
    "resource is Hopgate::Tool": Constraint(type="Tool"),
    "resource is Hopgate::ToolServer": Constraint(type="ToolServer"),
    'resource == Hopgate::Tool::"demo/tickets/search"': Constraint(entity=TOOL),
    'resource == Hopgate::ToolServer::"demo/tickets"': Constraint(entity=SERVER),
    'resource in Hopgate::ToolServer::"demo/tickets"': Constraint(entity=SERVER, below=True),
    'resource in Hopgate::Tool::"demo/tickets/search"': Constraint(entity=TOOL, below=True),
    'resource in Hopgate::ToolServer::"demo/open"': Constraint(entity=Entity("ToolServer", "demo/open"), below=True),
    'resource is Hopgate::Tool in Hopgate::ToolServer::"demo/tickets"': Constraint(type="Tool", entity=SERVER, below=True),
    'resource is Hopgate::ToolServer in Hopgate::ToolServer::"demo/tickets"': Constraint(type="ToolServer", entity=SERVER, below=True),
}
RESOURCES = [
    pytest.param(TOOL, SERVER, id="tool"),
    pytest.param(Entity("Tool", "demo/tickets/delete"), SERVER, id="another tool"),
    pytest.param(Entity("Tool", "demo/open/search"), Entity("ToolServer", "demo/open"), id="another server's tool"),
    pytest.param(SERVER, None, id="server"),
    pytest.param(Entity("ToolServer", "demo/open"), None, id="another server"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_scope_is_read_into_its_constraint(text: str) -> None:
    assert cedar.read(f"permit (principal, action, {text});").scope.resource == TEXTS[text]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(("resource", "server"), RESOURCES)
def test_a_constraint_matches_where_cedar_matches_and_is_found_under_its_key(text: str, resource: Entity, server: Entity | None) -> None:
    rules = cedar.slice_of([("it", cedar.read(f"permit (principal, action, {text});"))])
    entities = [cedar.entity(resource, {}, server)]
    answer = cedar.evaluate(rules, cedar.subject(world.PLANNER, "UseProtocol", resource, entities), {})
    assert answer.errors == ()
    assert TEXTS[text].matches(resource, server) is bool(answer.permits)
    assert (TEXTS[text] in set(scope.matching(resource, server))) is bool(answer.permits)


@pytest.mark.parametrize(
    ("text", "actions"),
    [
        pytest.param("action", None, id="any"),
        pytest.param('action == Hopgate::Action::"CallTool"', {"CallTool"}, id="one"),
        pytest.param('action in Hopgate::Action::"CallTool"', {"CallTool"}, id="in one"),
        pytest.param('action in [Hopgate::Action::"CallTool", Hopgate::Action::"ListTools"]', {"CallTool", "ListTools"}, id="in a list"),
    ],
)
def test_a_scopes_actions_are_read(text: str, actions: set[str] | None) -> None:
    head = cedar.read(f"permit (principal, {text}, resource);").scope
    assert head.actions == actions
    assert [head.covers_action(action) for action in Action] == [actions is None or action.value in actions for action in Action]


def test_entities_of_another_namespace_equal_none_of_ours() -> None:
    heads = [
        cedar.read(f'permit (principal == {name}::"demo/planner", action, resource);').scope
        for name in ("Agent", "Other::Agent", "Hopgate::Agent")
    ]
    assert [head.principal.matches(world.PLANNER, None) for head in heads] == [False, False, True]


def test_no_two_keys_of_an_entity_are_the_same() -> None:
    for entity, server in itertools.product((TOOL,), (SERVER, None)):
        keys = list(scope.matching(entity, server))
        assert len(keys) == len(set(keys))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "before",
    [
        "principal, action",
        'principal is Hopgate::Agent, action == Hopgate::Action::"CallTool"',
        'principal, action in [Hopgate::Action::"CallTool", Hopgate::Action::"ListTools"]',
    ],
    ids=["any", "one action", "two actions"],
)
def test_a_scope_written_out_is_the_same_scope(before: str, text: str) -> None:
    read = cedar.read(f"permit ({before}, {text}) when {{ context.now > 0 }};").scope
    assert cedar.read(f"forbid {scope.head(read, cedar.NAMESPACE)};").scope == read


@pytest.mark.parametrize("name", ['a"b', "a\\b", 'a\\"; permit (principal, action, resource); //', "ä", ""])
def test_an_id_is_written_out_as_one_literal(name: str) -> None:
    meant = scope.Scope(resource=Constraint(entity=Entity("Host", name)))
    assert cedar.read(f"forbid {scope.head(meant, cedar.NAMESPACE)};").scope == meant
