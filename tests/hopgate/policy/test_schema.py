"""The schema: every action is in it, with the context that the gate sends."""

from __future__ import annotations

import re

import pytest

from hopgate.policy import schema
from hopgate.policy.question import Action, ContextValue, Entity
from hopgate.resources import arguments
from tests.hopgate.policy import world

RESOURCES = {
    Action.SEND_MESSAGE: [world.RESEARCHER],
    Action.LIST_TOOLS: [world.TICKETS],
    Action.CALL_TOOL: [world.SEARCH_TOOL],
    Action.READ_RESOURCE: [world.TICKETS],
    Action.GET_PROMPT: [world.TICKETS],
    Action.INVOKE_MODEL: [world.SMALL_MODEL],
    Action.HTTP_REQUEST: [world.RESEARCHER, world.TICKETS, world.OPENAI],
    Action.USE_PROTOCOL: [world.RESEARCHER, world.TICKETS, world.OPENAI],
    Action.CONNECT: [world.RESEARCHER, world.TICKETS, world.OPENAI, Entity("Endpoint", "192.0.2.1:443")],
    Action.EXCHANGE_TOKEN: [world.RESEARCHER, world.TICKETS, world.OPENAI],
    Action.RESOLVE_NAME: [Entity("Host", "example.com")],
    Action.EXECUTE: [Entity("Program", "/usr/bin/env")],
    Action.READ_FILE: [Entity("File", "/etc/hosts")],
    Action.WRITE_FILE: [Entity("File", "/tmp/x")],
}
PAIRS = [pytest.param(action, resource, id=f"{action}-{resource.type}") for action in Action for resource in RESOURCES[action]]
USER: ContextValue = {"user": "ann", "issuer": "https://idp.example.com", "groups": ["staff"]}


def test_the_schema_has_every_action_and_no_other() -> None:
    declared = re.findall(r"^  action (.+) appliesTo", schema.text(), re.MULTILINE)
    assert sorted(name for names in declared for name in names.split(", ")) == sorted(action.value for action in Action)


@pytest.mark.parametrize(("action", "resource"), PAIRS)
@pytest.mark.parametrize("user", [pytest.param({}, id="nobody"), pytest.param({"onBehalfOf": USER}, id="on behalf of a user")])
def test_the_context_that_the_gate_sends_fits_the_schema(action: Action, resource: Entity, user: dict[str, ContextValue]) -> None:
    asked = world.question(action, resource, context={**user, **({"arguments": {}} if action is Action.CALL_TOOL else {})})
    assert world.misfit(asked) is None
    assert world.misfit(world.question(action, resource, context={**user, "unknown": 1})) is not None


@pytest.mark.parametrize(("action", "resource"), PAIRS)
def test_an_action_on_another_type_of_resource_does_not_fit(action: Action, resource: Entity) -> None:
    fitting = {each.type for each in RESOURCES[action]}
    context: dict[str, ContextValue] = {"arguments": {}} if action is Action.CALL_TOOL else {}
    assert world.misfit(world.question(action, resource, context=context)) is None
    for other in {each for several in RESOURCES.values() for each in several if each.type not in fitting}:
        assert world.misfit(world.question(action, other, context=context)) is not None


def test_the_largest_number_of_tokens_may_be_absent() -> None:
    model: ContextValue = {"name": "gpt-4o-mini", "stream": True}
    assert world.misfit(world.question(Action.INVOKE_MODEL, world.SMALL_MODEL, context={"model": model})) is None


def test_a_tools_schema_differs_from_the_common_one_only_in_its_arguments() -> None:
    typed = schema.for_tool(arguments.record_type(world.SEARCH_SCHEMA))
    before, after = schema.text().splitlines(), typed.splitlines()
    assert [(old, new) for old, new in zip(before, after, strict=True) if old != new] == [
        ("  type Arguments = {};", '  type Arguments = {"limit": Long, "tags"?: Set<String>, "text"?: String};')
    ]
