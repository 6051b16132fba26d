"""What an entity's id names, and whether the registry knows it."""

from __future__ import annotations

import pytest

from hopgate.identity.errors import InvalidNameError
from hopgate.identity.names import ObjectName
from hopgate.policy import registered
from hopgate.policy.question import Entity
from tests.hopgate.policy import world

KNOWN = world.registry()


@pytest.mark.parametrize(
    ("entity", "name", "server"),
    [
        pytest.param(world.PLANNER, ObjectName("demo", "planner"), None, id="agent"),
        pytest.param(world.TICKETS, ObjectName("demo", "tickets"), None, id="server"),
        pytest.param(world.SEARCH_TOOL, ObjectName("demo", "tickets"), world.TICKETS, id="tool"),
        pytest.param(Entity("Model", "demo/openai/org/large"), ObjectName("demo", "openai"), world.OPENAI, id="model with a slash"),
    ],
)
def test_an_id_names_an_object_and_perhaps_its_server(entity: Entity, name: ObjectName, server: Entity | None) -> None:
    assert registered.object_name(entity) == name
    assert registered.server(entity) == server
    assert registered.is_namespaced(entity)
    assert registered.find_mistake(entity, KNOWN) is None


@pytest.mark.parametrize(
    "entity", [Entity("Tool", "demo/tickets"), Entity("Model", "demo/openai/"), Entity("Tool", "Demo/tickets/x"), Entity("Agent", "demo")]
)
def test_an_id_of_another_form_names_nothing(entity: Entity) -> None:
    with pytest.raises(InvalidNameError):
        registered.object_name(entity)
    mistake = registered.find_mistake(entity, KNOWN)
    assert mistake is not None
    assert mistake[0] == "InvalidEntityId"
    assert registered.declared_tool(entity, KNOWN) is None


@pytest.mark.parametrize("entity", [Entity("Host", "example.com"), Entity("Program", "/bin/sh"), Entity("User", "ann")])
def test_entities_of_free_form_are_in_no_namespace_and_not_registered(entity: Entity) -> None:
    assert not registered.is_namespaced(entity)
    assert registered.server(entity) is None
    assert registered.find_mistake(entity, KNOWN) is None


@pytest.mark.parametrize(
    ("entity", "name"),
    [
        pytest.param(world.SEARCH_TOOL, "search", id="declared"),
        pytest.param(Entity("Tool", "demo/tickets/serch"), None, id="not declared"),
        pytest.param(Entity("Tool", "demo/open/search"), None, id="a server without declarations"),
        pytest.param(Entity("Tool", "demo/nobody/search"), None, id="unknown server"),
        pytest.param(Entity("Model", "demo/tickets/search"), None, id="a model"),
    ],
)
def test_a_tools_declaration_is_found(entity: Entity, name: str | None) -> None:
    tool = registered.declared_tool(entity, KNOWN)
    assert (None if tool is None else tool.name) == name
