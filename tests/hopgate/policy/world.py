"""A small world that the policy tests ask about, and builders of policies and questions in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hopgate.identity.names import DestinationKind, DestinationName, ObjectName
from hopgate.policy import bundle, cedar, schema
from hopgate.policy.bundle import PolicyBundle, PolicyMistake
from hopgate.policy.question import Action, ContextValue, Entity, Question
from hopgate.resources.kinds import Agent, ModelProvider, Policy, PolicyMode, PolicyTest, Provider, Tls, Tool, ToolProtocol, ToolServer
from hopgate.resources.registry import Destination, Protocol, Registry

SEARCH_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"limit": {"type": "integer"}, "text": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["limit"],
}
SEARCH = Tool(name="search", input_schema=SEARCH_SCHEMA)
DELETE = Tool(name="delete")

PLANNER = Entity("Agent", "demo/planner")
RESEARCHER = Entity("Agent", "demo/researcher")
OUTSIDER = Entity("Agent", "other/outsider")
TICKETS = Entity("ToolServer", "demo/tickets")
OPEN_SERVER = Entity("ToolServer", "demo/open")
OTHER_SERVER = Entity("ToolServer", "other/tickets")
OPENAI = Entity("ModelProvider", "demo/openai")
SEARCH_TOOL = Entity("Tool", "demo/tickets/search")
DELETE_TOOL = Entity("Tool", "demo/tickets/delete")
SMALL_MODEL = Entity("Model", "demo/openai/gpt-4o-mini")

PERMIT_ALL = "permit (principal, action, resource);"
# The example of the design: allowed up to a limit, which the tool declares as a required integer.
EXAMPLE = """\
@id("planner-reads-tickets")
permit (
  principal == Hopgate::Agent::"demo/planner",
  action == Hopgate::Action::"CallTool",
  resource == Hopgate::Tool::"demo/tickets/search"
)
when { context.arguments.limit <= 100 };
"""

HTTP: dict[str, ContextValue] = {"method": "POST", "path": "/mcp", "host": "tickets.demo.svc"}
_PARTS: Mapping[Action, dict[str, ContextValue]] = {
    Action.SEND_MESSAGE: {"http": HTTP, "message": {"kind": "Send"}},
    Action.LIST_TOOLS: {"http": HTTP},
    Action.CALL_TOOL: {"http": HTTP, "arguments": {"limit": 10}},
    Action.READ_RESOURCE: {"http": HTTP, "resource": {"uri": "file:///a"}},
    Action.GET_PROMPT: {"http": HTTP, "prompt": {"name": "summary"}},
    Action.INVOKE_MODEL: {"http": HTTP, "model": {"name": "gpt-4o-mini", "stream": False, "maxTokens": 100}},
    Action.HTTP_REQUEST: {"http": HTTP},
    Action.USE_PROTOCOL: {"http": HTTP},
    Action.CONNECT: {"connection": {"serverName": "vault.example.com", "port": 443}},
}


def registry(tools: Sequence[Tool] = (SEARCH, DELETE), agents: Sequence[str] = ()) -> Registry:
    """`demo`: two agents, `tickets` with declared tools, `open` without, `openai` with two models. `other`: an agent and a server."""
    names = [ObjectName("demo", "planner"), ObjectName("demo", "researcher"), ObjectName("other", "outsider")]
    names += [ObjectName("demo", name) for name in agents]
    known = {name: Agent(name=name, service_account_name=name.name, owner="team-a" if name.name == "planner" else None) for name in names}
    records: list[Agent | ToolServer | ModelProvider] = [
        *known.values(),
        ToolServer(name=ObjectName("demo", "tickets"), protocol=ToolProtocol.MCP, tools=tuple(tools)),
        ToolServer(name=ObjectName("demo", "open"), protocol=ToolProtocol.MCP),
        ToolServer(name=ObjectName("other", "tickets"), protocol=ToolProtocol.MCP),
        ModelProvider(name=ObjectName("demo", "openai"), provider=Provider.OPENAI, hosts=(), models=("gpt-4o-mini", "org/large")),
        ModelProvider(name=ObjectName("demo", "anyone"), provider=Provider.OPENAI, hosts=()),
    ]
    destinations = [_destination(record) for record in records]
    return Registry(agents=known, destinations={each.name: each for each in destinations}, by_address={}, by_host={})


def _destination(record: Agent | ToolServer | ModelProvider) -> Destination:
    kind, protocol = {
        Agent: (DestinationKind.AGENT, Protocol.A2A),
        ToolServer: (DestinationKind.TOOL_SERVER, Protocol.MCP),
        ModelProvider: (DestinationKind.MODEL_PROVIDER, Protocol.OPENAI),
    }[type(record)]
    return Destination(name=DestinationName(kind, record.name), protocol=protocol, tls=Tls.DISABLED, record=record)


def policy(
    cedar: str,
    *,
    namespace: str | None = "demo",
    name: str = "it",
    mode: PolicyMode = PolicyMode.ENFORCE,
    tests: Sequence[PolicyTest] = (),
) -> Policy:
    """A Policy of `demo`, or with namespace None a ClusterPolicy."""
    return Policy(namespace=namespace, name=name, cedar=cedar, mode=mode, tests=tuple(tests))


def compiled(*policies: Policy | str, known: Registry | None = None) -> PolicyBundle:
    """The bundle of policies that must be right; a text is a ClusterPolicy of its own."""
    given = [each if isinstance(each, Policy) else policy(each, namespace=None, name=f"p{n}") for n, each in enumerate(policies)]
    result = bundle.compile(given, known or registry())
    assert result.mistakes == ()
    assert result.bundle is not None
    return result.bundle


def mistakes(*policies: Policy | str, known: Registry | None = None) -> tuple[PolicyMistake, ...]:
    """The mistakes of policies that must not come into force; a text is a Policy of `demo`."""
    given = [each if isinstance(each, Policy) else policy(each, name=f"p{n}") for n, each in enumerate(policies)]
    result = bundle.compile(given, known or registry())
    assert result.bundle is None
    assert result.mistakes
    return result.mistakes


def question(
    action: Action,
    resource: Entity,
    *,
    principal: Entity = PLANNER,
    now: int = 1_000,
    context: Mapping[str, ContextValue] | None = None,
) -> Question:
    """A question as the gate asks it: whole context, server and namespaces by the ids. `context` replaces parts of the context."""
    server = None
    if resource.type in {"Tool", "Model"}:
        parent = "ToolServer" if resource.type == "Tool" else "ModelProvider"
        server = Entity(parent, "/".join(resource.id.split("/")[:2]))
    whole: dict[str, ContextValue] = {"now": now, "chain": {"depth": 1, "actors": [principal.id]}, **_PARTS.get(action, {})}
    caller_namespace = principal.id.split("/")[0]
    return Question(
        principal=principal,
        action=action,
        resource=resource,
        server=server,
        context={**whole, **(context or {})},
        caller_namespace=caller_namespace,
        destination_namespace=resource.id.split("/")[0] if "/" in resource.id else caller_namespace,
    )


def misfit(asked: Question, tool: Tool | None = None) -> str | None:
    """How the question does not fit the schema (in which the tool's arguments are typed); None where it fits."""
    text = schema.text() if tool is None else schema.for_tool(tool.arguments)
    return cedar.find_misfit(cedar.subject(asked.principal, asked.action.value, asked.resource, []), asked.context, text)
