"""Admission: what must not come into force, with its code, its place and a sentence that helps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopgate.policy import bundle
from hopgate.resources.kinds import Tool
from hopgate.resources.registry import Registry
from tests.hopgate.policy import world
from tests.hopgate.policy.world import EXAMPLE, PERMIT_ALL

CALL = 'action == Hopgate::Action::"CallTool"'


def _scope(principal: str = "principal", action: str = "action", resource: str = "resource", condition: str = "") -> str:
    return f"permit ({principal},\n  {action},\n  {resource}\n){condition};"


def _agent(name: str) -> str:
    return f'principal == Hopgate::Agent::"{name}"'


def _resource(kind: str, name: str, operator: str = "==") -> str:
    return f'resource {operator} Hopgate::{kind}::"{name}"'


@pytest.mark.parametrize(
    ("text", "good", "code", "place", "words"),
    [
        pytest.param("", PERMIT_ALL, "NoRule", (1, 1), "expected at least one Cedar policy", id="no rule"),
        pytest.param("\npermit (principal action, resource);", PERMIT_ALL, "InvalidSyntax", (2, 19), "unexpected token", id="syntax"),
        pytest.param(
            _scope("principal == ?principal"), _scope(_agent("demo/planner")), "Template", (1, 9), "name the entity", id="template"
        ),
        pytest.param(
            f'@id("a") {PERMIT_ALL}\n@id("a") {PERMIT_ALL}',
            f'@id("a") {PERMIT_ALL}\n@id("b") {PERMIT_ALL}',
            "DuplicateRule",
            (2, 1),
            "rule `a` is already on line 1",
            id="two rules of one id",
        ),
        pytest.param(
            f'@id("1") {PERMIT_ALL}\n{PERMIT_ALL}',
            f'@id("0") {PERMIT_ALL}\n{PERMIT_ALL}',
            "DuplicateRule",
            (2, 1),
            "rule `1`",
            id="an id that is another's position",
        ),
        pytest.param(
            f'@id("a/b") {PERMIT_ALL}', f'@id("a.b") {PERMIT_ALL}', "InvalidRuleId", (1, 1), "expected an @id", id="an id with a slash"
        ),
        pytest.param(f"@id {PERMIT_ALL}", PERMIT_ALL, "InvalidRuleId", (1, 1), "expected an @id", id="an empty id"),
        pytest.param(
            _scope('principal == Agent::"demo/planner"'),
            _scope(_agent("demo/planner")),
            "InvalidPolicy",
            (1, 22),
            "write it with its namespace",
            id="no namespace",
        ),
        pytest.param(
            _scope(action='action == Hopgate::Action::"CallTools"'),
            _scope(action=CALL),
            "InvalidPolicy",
            (2, 30),
            "CallTools",
            id="unknown action",
        ),
        pytest.param(
            _scope(action=CALL, resource=_resource("ToolServer", "demo/tickets")),
            _scope(action=CALL, resource=_resource("ToolServer", "demo/tickets", "in")),
            "InvalidPolicy",
            (1, 1),
            "unable to find an applicable action",
            id="an action that the resource does not have",
        ),
        pytest.param(
            _scope(action=CALL, condition="\nwhen { context.model.stream }"),
            _scope(action='action == Hopgate::Action::"InvokeModel"', condition="\nwhen { context.model.stream }"),
            "InvalidPolicy",
            (5, 16),
            "attribute `model` in context for",
            id="an attribute of another action",
        ),
        pytest.param(
            _scope(condition='\nwhen { context.onBehalfOf.user == "ann" }'),
            _scope(condition='\nwhen { context has onBehalfOf && context.onBehalfOf.user == "ann" }'),
            "InvalidPolicy",
            (5, 16),
            "optional attribute",
            id="an attribute that may be absent",
        ),
        pytest.param(
            _scope(condition='\nwhen { context.now == "1" }'),
            _scope(condition="\nwhen { context.now == 1 }"),
            "InvalidPolicy",
            (1, 1),
            "not compatible",
            id="types that differ",
        ),
        pytest.param(
            _scope(condition="\nwhen { principal is Hopgate::User }"),
            _scope(condition="\nwhen { principal is Hopgate::Agent }"),
            "NeverMatches",
            (1, 1),
            "can never match",
            id="a condition that is never true",
        ),
        pytest.param(
            _scope(_agent("demo/planer")),
            _scope(_agent("demo/planner")),
            "UnknownEntity",
            (1, 38),
            "`demo/planer` is not registered",
            id="unknown agent",
        ),
        pytest.param(
            _scope(resource=_resource("Agent", "demo/planer")),
            _scope(resource=_resource("Agent", "demo/planner")),
            "UnknownEntity",
            (3, 31),
            "is not registered",
            id="unknown agent as resource",
        ),
        pytest.param(
            _scope(resource=_resource("ToolServer", "demo/ticket")),
            _scope(resource=_resource("ToolServer", "demo/tickets")),
            "UnknownEntity",
            (3, 36),
            "can never match",
            id="unknown server",
        ),
        pytest.param(
            _scope(resource=_resource("Tool", "demo/ticket/x", "in")),
            _scope(resource=_resource("Tool", "demo/open/x", "in")),
            "UnknownEntity",
            (3, 30),
            "can never match",
            id="tool of an unknown server",
        ),
        pytest.param(
            _scope(resource=_resource("Tool", "demo/tickets/serch")),
            _scope(resource=_resource("Tool", "demo/open/serch")),
            "UnknownEntity",
            (3, 30),
            "can never match",
            id="undeclared tool of a server that declares tools",
        ),
        pytest.param(
            _scope(resource=_resource("Model", "demo/openai/large")),
            _scope(resource=_resource("Model", "demo/anyone/large")),
            "UnknownEntity",
            (3, 31),
            "can never match",
            id="undeclared model of a provider that declares models",
        ),
        pytest.param(
            _scope(resource='resource is Hopgate::Tool in Hopgate::ToolServer::"demo/nobody"'),
            _scope(resource='resource is Hopgate::Tool in Hopgate::ToolServer::"demo/tickets"'),
            "UnknownEntity",
            (3, 53),
            "can never match",
            id="unknown server behind is and in",
        ),
        pytest.param(
            _scope(_agent("planner")),
            _scope(_agent("demo/planner")),
            "InvalidEntityId",
            (1, 38),
            "expected NAMESPACE/NAME",
            id="an agent without a namespace",
        ),
        pytest.param(
            _scope(_agent("demo/a/b")),
            _scope(_agent("demo/planner")),
            "InvalidEntityId",
            (1, 38),
            "expected a name",
            id="an agent with two slashes",
        ),
        pytest.param(
            _scope(resource=_resource("Tool", "demo/tickets")),
            _scope(resource=_resource("Tool", "demo/tickets/search")),
            "InvalidEntityId",
            (3, 30),
            "NAMESPACE/SERVER/TOOL",
            id="a tool without its server",
        ),
        pytest.param(
            _scope(resource=_resource("Model", "demo/openai/")),
            _scope(resource=_resource("Model", "demo/openai/org/large")),
            "InvalidEntityId",
            (3, 31),
            "NAMESPACE/PROVIDER/MODEL",
            id="a model without a name",
        ),
        pytest.param(
            _scope(_agent("other/outsider")),
            _scope(_agent("demo/planner")),
            "OtherNamespace",
            (1, 38),
            "use a ClusterPolicy",
            id="another namespace's agent",
        ),
        pytest.param(
            _scope(resource=_resource("Tool", "other/tickets/x")),
            _scope(resource=_resource("Tool", "demo/open/x")),
            "OtherNamespace",
            (3, 30),
            "its own namespace `demo`",
            id="another namespace's tool",
        ),
        pytest.param(
            _scope(resource=_resource("ToolServer", "nowhere/x")),
            _scope(resource=_resource("ToolServer", "demo/open")),
            "OtherNamespace",
            (3, 36),
            "its own namespace",
            id="a namespace that nobody has",
        ),
        pytest.param(
            _scope(condition="\nwhen { " + "(" * 100_000 + " }"),
            PERMIT_ALL,
            "InvalidSyntax",
            (5, 57),
            "nested brackets",
            id="brackets that would end the process",
        ),
    ],
)
def test_a_mistake_is_refused_with_its_code_and_place_and_its_neighbour_is_accepted(
    text: str, good: str, code: str, place: tuple[int, int], words: str
) -> None:
    world.compiled(world.policy(good))
    found = world.mistakes(world.policy(text))
    assert [(mistake.code, mistake.line, mistake.column) for mistake in found] == [(code, *place)]
    assert words in found[0].message
    assert (found[0].namespace, found[0].name) == ("demo", "it")


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        pytest.param(Tool(name="search"), "declares no arguments that a policy can read", id="no schema"),
        pytest.param(
            Tool(name="search", input_schema={"type": "object", "properties": {"limit": {"type": "number"}}}),
            "declares no arguments that a policy can read",
            id="a number",
        ),
        pytest.param(
            Tool(name="search", input_schema={"type": "object", "properties": {"max": {"type": "integer"}}}),
            "tool `search` declares max",
            id="another name",
        ),
        pytest.param(
            Tool(name="search", input_schema={"type": "object", "properties": {"limit": {"type": "integer"}}}),
            "optional attribute",
            id="not required",
        ),
        pytest.param(
            Tool(name="search", input_schema={"type": "object", "properties": {"limit": {"type": "string"}}, "required": ["limit"]}),
            "expected Long but saw String",
            id="a string",
        ),
    ],
)
def test_the_example_of_the_design_needs_its_tool_to_declare_the_limit(tool: Tool, words: str) -> None:
    world.compiled(world.policy(EXAMPLE))
    found = world.mistakes(world.policy(EXAMPLE), known=world.registry(tools=[tool]))
    assert [mistake.code for mistake in found] == ["InvalidPolicy"]
    assert words in found[0].message


def test_the_place_of_an_argument_that_is_not_declared_is_in_its_line() -> None:
    (mistake,) = world.mistakes(world.policy(EXAMPLE), known=world.registry(tools=[Tool(name="search")]))
    assert EXAMPLE.splitlines()[mistake.line - 1][mistake.column - 1 :].startswith("limit <= 100")


@pytest.mark.parametrize(
    ("resource", "words"),
    [
        pytest.param("resource", "only where the scope names one declared tool", id="any tool"),
        pytest.param(_resource("ToolServer", "demo/tickets", "in"), "only where the scope names one declared tool", id="a server's tools"),
        pytest.param(_resource("Tool", "demo/open/search"), "declare `demo/open/search`", id="a tool that is not declared"),
        pytest.param(_resource("Tool", "demo/tickets/search", "in"), "name it with `==`", id="in instead of =="),
    ],
)
def test_arguments_are_refused_where_no_declared_tool_is_named(resource: str, words: str) -> None:
    found = world.mistakes(world.policy(_scope(action=CALL, resource=resource, condition="\nwhen { context.arguments.limit <= 100 }")))
    assert [mistake.code for mistake in found] == ["InvalidPolicy"]
    assert words in found[0].message


def test_an_attribute_that_many_actions_lack_is_one_mistake() -> None:
    (mistake,) = world.mistakes(world.policy(_scope(condition="\nwhen { context.model.stream }")))
    assert mistake.message == (
        "attribute `model` in context for CallTool, Connect, ExchangeToken and 10 more actions not found: name the action in the scope"
    )


def test_text_between_policies_that_cedar_does_not_take_for_blank_is_refused() -> None:
    world.compiled(world.policy(f"{PERMIT_ALL}\u2028{PERMIT_ALL}"))
    (mistake,) = world.mistakes(world.policy(f"{PERMIT_ALL}\x1c{PERMIT_ALL}"))
    assert mistake.code == "InvalidSyntax"
    assert "than its semicolons mark" in mistake.message


def test_a_cluster_policy_may_name_any_namespace() -> None:
    world.compiled(world.policy(_scope(_agent("other/outsider"), resource=_resource("ToolServer", "demo/tickets")), namespace=None))


def test_every_mistake_of_every_policy_is_told_at_once() -> None:
    found = world.mistakes(
        world.policy(f"permit;\n{PERMIT_ALL}\n{_scope(_agent('demo/nobody'))}", name="a"),
        world.policy("", name="b"),
        world.policy(PERMIT_ALL, name="c"),
    )
    assert [(mistake.name, mistake.line, mistake.code) for mistake in found] == [
        ("a", 1, "InvalidSyntax"),
        ("a", 3, "UnknownEntity"),
        ("b", 1, "NoRule"),
    ]


def test_two_policies_of_one_name_are_refused() -> None:
    twice = world.policy(PERMIT_ALL)
    world.compiled(twice, replace(twice, namespace=None))
    assert [mistake.code for mistake in world.mistakes(twice, twice)] == ["DuplicatePolicy"]


KNOWN: Registry = world.registry()
WORDS = st.sampled_from(
    [
        *EXAMPLE.replace("(", " ( ").split(),
        ";",
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        '"',
        "\\",
        "//",
        "\n",
        "\r",
        "when",
        "unless",
        "&&",
        "?principal",
        "\x00",
        "-",
        "!",
        "\ud800",
    ]
)


@given(st.text(max_size=60) | st.lists(WORDS, max_size=40).map(" ".join) | st.lists(WORDS, max_size=12).map("".join))
def test_any_text_gives_a_bundle_or_mistakes(text: str) -> None:
    """No text raises: it is compiled, or refused with mistakes whose places are inside of it."""
    result = bundle.compile([world.policy(text)], KNOWN)
    assert (result.bundle is None) is bool(result.mistakes)
    lines = text.count("\n") + 1
    assert all(1 <= mistake.line <= lines and mistake.column >= 1 and mistake.message.isprintable() for mistake in result.mistakes)
