"""A policy's own tests: run at compilation, against that policy alone, as the gate would ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from hopgate.resources.kinds import Expectation, PolicyMode, PolicyTest
from tests.hopgate.policy import world
from tests.hopgate.policy.world import EXAMPLE, PERMIT_ALL

ALLOW, DENY = Expectation.ALLOW, Expectation.DENY
SEARCH = 'Hopgate::Tool::"demo/tickets/search"'


def _test(
    expect: Expectation,
    *,
    principal: str = 'Hopgate::Agent::"demo/planner"',
    action: str = "CallTool",
    resource: str = SEARCH,
    context: Mapping[str, Any] | None = None,
) -> PolicyTest:
    given = {"arguments": {"limit": 1}} if context is None and resource == SEARCH else context or {}
    return PolicyTest(name="mine", principal=principal, action=action, resource=resource, expect=expect, context=given)


@pytest.mark.parametrize(
    ("test", "words"),
    [
        pytest.param(_test(ALLOW), "allowed by demo/it/planner-reads-tickets", id="a permit matches"),
        pytest.param(_test(DENY, context={"arguments": {"limit": 101}}), "denied, no rule permits it", id="above the limit"),
        pytest.param(_test(DENY, principal='Agent::"demo/researcher"'), "denied, no rule permits it", id="another agent"),
        pytest.param(_test(DENY, principal='Agent::"other/outsider"'), "denied, no rule permits it", id="another namespace's agent"),
        pytest.param(_test(DENY, context={"arguments": {}}), "denied, argument `limit` is required", id="arguments that the gate refuses"),
        pytest.param(
            _test(DENY, action='Hopgate::Action::"ListTools"', resource='ToolServer::"demo/tickets"'),
            "denied, no rule permits it",
            id="another action",
        ),
        pytest.param(_test(ALLOW, action='Action::"UseProtocol"', resource='ToolServer::"demo/tickets"'), "allowed by", id="housekeeping"),
        pytest.param(
            _test(ALLOW, context={"arguments": {"limit": 1}, "http": {"path": "/x"}}), "allowed by", id="a part of a context part"
        ),
    ],
)
def test_a_test_that_holds_lets_the_policy_in_and_its_opposite_keeps_it_out(test: PolicyTest, words: str) -> None:
    world.compiled(world.policy(EXAMPLE, tests=[test]))
    opposite = PolicyTest(
        name=test.name,
        principal=test.principal,
        action=test.action,
        resource=test.resource,
        context=test.context,
        expect=DENY if test.expect is ALLOW else ALLOW,
    )
    (mistake,) = world.mistakes(world.policy(EXAMPLE, tests=[opposite]))
    assert (mistake.namespace, mistake.name, mistake.line, mistake.column, mistake.code) == ("demo", "it", 1, 1, "TestFailed")
    assert mistake.message.startswith(f"test `mine` expects {opposite.expect.value}: {words}")


@pytest.mark.parametrize(
    ("test", "words"),
    [
        pytest.param(_test(DENY, principal="planner"), "expected an entity such as", id="a principal that is no entity"),
        pytest.param(_test(DENY, principal='Agent::"demo/planer"'), "Agent `demo/planer` is not registered", id="an unknown principal"),
        pytest.param(_test(DENY, principal='ToolServer::"demo/tickets"'), "not valid", id="a principal that can't ask"),
        pytest.param(_test(DENY, resource='Tool::"demo/tickets/serch"'), "is not registered", id="an unknown tool"),
        pytest.param(_test(DENY, resource='Tool::"demo/tickets"'), "expected NAMESPACE/SERVER/TOOL", id="a tool without its server"),
        pytest.param(_test(DENY, action="CallTools"), "expected an action such as", id="an unknown action"),
        pytest.param(_test(DENY, action='User::"CallTool"'), "expected an action such as", id="an action that is none"),
        pytest.param(_test(DENY, action="ListTools", context={"http": {}}), "not valid", id="a resource that the action is not for"),
        pytest.param(_test(DENY, context={"arguments": {"limit": 1}, "who": "ann"}), "`who` should not", id="an unknown context part"),
        pytest.param(_test(DENY, context={"arguments": {"limit": 1}, "now": "noon"}), "not valid", id="a part of another type"),
        pytest.param(
            _test(DENY, context={"arguments": {"limit": 1}, "now": {"__extn": {"fn": "ip", "arg": "::1"}}}),
            "a key that Cedar would take",
            id="an escape of Cedar's JSON",
        ),
        pytest.param(_test(DENY, context={"arguments": {"limit": 1}, "now": None}), "null", id="null"),
    ],
)
def test_a_test_that_asks_no_question_is_a_mistake_whatever_it_expects(test: PolicyTest, words: str) -> None:
    world.compiled(world.policy(EXAMPLE, tests=[_test(ALLOW)]))
    (mistake,) = world.mistakes(world.policy(EXAMPLE, tests=[test]))
    assert (mistake.code, mistake.name) == ("InvalidTest", "it")
    assert mistake.message.startswith("test `mine`: ")
    assert words in mistake.message


def test_no_other_policy_takes_part_in_a_test() -> None:
    elsewhere = world.policy("forbid (principal, action, resource);", name="elsewhere", namespace=None)
    world.compiled(elsewhere, world.policy(EXAMPLE, tests=[_test(ALLOW)]))
    permits_all = world.policy(PERMIT_ALL, name="elsewhere", namespace=None)
    world.compiled(permits_all, world.policy(EXAMPLE, tests=[_test(DENY, principal='Agent::"demo/researcher"')]))


def test_an_observe_policy_is_tested_as_if_it_were_in_force() -> None:
    world.compiled(world.policy(EXAMPLE, mode=PolicyMode.OBSERVE, tests=[_test(ALLOW)]))
    assert len(world.mistakes(world.policy(EXAMPLE, mode=PolicyMode.OBSERVE, tests=[_test(DENY)]))) == 1


def test_what_forbids_or_errs_is_told() -> None:
    forbid = world.policy('@id("no") forbid (principal, action, resource);', tests=[_test(ALLOW)])
    assert world.mistakes(forbid)[0].message == "test `mine` expects Allow: forbidden by demo/it/no"
    erring = world.policy(
        "permit (principal, action, resource) when { context.now + 1 > 0 };",
        tests=[_test(ALLOW, context={"arguments": {"limit": 1}, "now": 2**63 - 1})],
    )
    assert world.mistakes(erring)[0].message.startswith("test `mine` expects Allow: denied, demo/it/0 failed: ")


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        pytest.param("SendMessage", 'Agent::"demo/researcher"', id="SendMessage"),
        pytest.param("ListTools", 'ToolServer::"demo/tickets"', id="ListTools"),
        pytest.param("CallTool", 'Tool::"demo/tickets/delete"', id="CallTool"),
        pytest.param("ReadResource", 'ToolServer::"demo/tickets"', id="ReadResource"),
        pytest.param("GetPrompt", 'ToolServer::"demo/tickets"', id="GetPrompt"),
        pytest.param("InvokeModel", 'Model::"demo/openai/org/large"', id="InvokeModel"),
        pytest.param("HttpRequest", 'ModelProvider::"demo/openai"', id="HttpRequest"),
        pytest.param("UseProtocol", 'Agent::"demo/researcher"', id="UseProtocol"),
        pytest.param("Connect", 'ToolServer::"demo/open"', id="Connect"),
        pytest.param("ExchangeToken", 'Agent::"demo/researcher"', id="ExchangeToken"),
        pytest.param("ResolveName", 'Host::"example.com"', id="ResolveName"),
        pytest.param("Execute", 'Program::"/bin/sh"', id="Execute"),
        pytest.param("ReadFile", 'File::"/a \\"b\\" \\\\"', id="ReadFile"),
        pytest.param("WriteFile", 'File::"/a"', id="WriteFile"),
    ],
)
def test_a_test_without_context_asks_with_neutral_values(action: str, resource: str) -> None:
    world.compiled(world.policy(PERMIT_ALL, tests=[_test(ALLOW, action=action, resource=resource, context={})]))


def test_a_models_name_is_the_resources_unless_the_test_says_otherwise() -> None:
    text = 'permit (principal, action == Hopgate::Action::"InvokeModel", resource) when { context.model.name == "org/large" };'
    model = 'Model::"demo/openai/org/large"'
    world.compiled(
        world.policy(
            text,
            tests=[
                _test(ALLOW, action="InvokeModel", resource=model, context={}),
                _test(DENY, action="InvokeModel", resource=model, context={"model": {"name": "other"}}),
            ],
        )
    )
