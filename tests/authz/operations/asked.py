"""One destination of each protocol, and what a request to it asks for."""

from __future__ import annotations

from typing import Any, Final

import pytest

from authz import operations
from authz.operations.errors import OperationError
from authz.request import HttpRequest
from authz.verdict import Operation
from hopgate.identity.names import DestinationKind, DestinationName, ObjectName
from hopgate.policy.question import Entity
from hopgate.resources.kinds import Agent, ModelProvider, Provider, Service, Tls, Tool, ToolProtocol, ToolServer
from hopgate.resources.registry import Destination, Protocol
from tests.authz import requests

# Where the agent and the MCP servers answer.
ENDPOINT: Final = "/mcp"
JSON: Final = (("content-type", "application/json"),)
_SEARCH: Final = {
    "type": "object",
    "properties": {
        "limit": {"type": "integer"},
        "text": {"type": "string"},
        "exact": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "score": {"type": "number"},
        "owner": {"type": "object", "properties": {"team": {"type": "string"}}},
    },
    "required": ["limit"],
}


def _destination(kind: DestinationKind, protocol: Protocol, record: Agent | ToolServer | ModelProvider) -> Destination:
    return Destination(name=DestinationName(kind, record.name), protocol=protocol, tls=Tls.OPEN, record=record)


def tool_server(*tools: Tool, protocol: Protocol = Protocol.MCP) -> Destination:
    kind = ToolProtocol.MCP if protocol is Protocol.MCP else ToolProtocol.HTTP
    record = ToolServer(
        name=ObjectName("demo", "tickets"), protocol=kind, path=ENDPOINT, service=Service(name="tickets", port=80), tools=tools
    )
    return _destination(DestinationKind.TOOL_SERVER, protocol, record)


def provider(protocol: Protocol, *models: str) -> Destination:
    record = ModelProvider(name=ObjectName("demo", "llm"), provider=Provider(protocol.value), hosts=("api.example.com",), models=models)
    return _destination(DestinationKind.MODEL_PROVIDER, protocol, record)


MCP: Final = tool_server(Tool(name="search", input_schema=_SEARCH), Tool(name="delete"))
OPEN_MCP: Final = tool_server()
A2A: Final = _destination(
    DestinationKind.AGENT, Protocol.A2A, Agent(name=ObjectName("demo", "researcher"), service_account_name="r", path=ENDPOINT)
)
OPENAI: Final = provider(Protocol.OPENAI, "gpt-4o", "gpt-4o-mini")
ANTHROPIC: Final = provider(Protocol.ANTHROPIC, "claude-small")
HTTP: Final = tool_server(protocol=Protocol.HTTP)

TICKETS: Final = Entity("ToolServer", "demo/tickets")
RESEARCHER: Final = Entity("Agent", "demo/researcher")
LLM: Final = Entity("ModelProvider", "demo/llm")


def post(body: bytes | dict[str, Any] | list[Any], *headers: tuple[str, str], path: str = ENDPOINT) -> HttpRequest:
    """A POST of JSON with more headers."""
    return requests.http(host="x", path=path, body=body, headers=JSON + headers)


def rpc(method: str, params: Any = None, identifier: Any = 7) -> dict[str, Any]:
    """A JSON-RPC request; no `params` where None."""
    return {"jsonrpc": "2.0", "id": identifier, "method": method} | ({} if params is None else {"params": params})


def operation(request: HttpRequest, destination: Destination) -> Operation:
    return operations.extract(request, destination)


def refusal(request: HttpRequest, destination: Destination) -> OperationError:
    """The error that a request must end in."""
    with pytest.raises(OperationError) as caught:
        operations.extract(request, destination)
    assert str(caught.value)
    return caught.value
