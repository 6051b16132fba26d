"""Every message of every protocol in Cedar's words, and what is refused whatever the policies say."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from authz import operations
from authz.operations.errors import OperationError
from authz.request import HttpRequest
from authz.verdict import Operation, Reason
from hopgate.identity.names import DestinationKind, DestinationName, ObjectName
from hopgate.resources.kinds import Agent, ModelProvider, Provider, Tls, Tool, ToolProtocol, ToolServer
from hopgate.resources.registry import Destination, Protocol
from tests.authz import requests
from tests.authz.requests import chat, http, message, tool_call

NAME = ObjectName("demo", "it")
SCHEMA = {"type": "object", "properties": {"limit": {"type": "integer"}}, "required": ["limit"]}
SERVER = ToolServer(name=NAME, protocol=ToolProtocol.MCP, tools=(Tool(name="search", input_schema=SCHEMA), Tool(name="free")))
MODELS = ModelProvider(name=NAME, provider=Provider.OPENAI, hosts=("api.example.com",), models=("small", "large"))


def at(protocol: Protocol) -> Destination:
    record: Agent | ToolServer | ModelProvider = SERVER
    kind = DestinationKind.TOOL_SERVER
    if protocol is Protocol.A2A:
        record, kind = Agent(name=NAME, service_account_name="it", path="/mcp"), DestinationKind.AGENT
    elif protocol in (Protocol.OPENAI, Protocol.ANTHROPIC):
        record, kind = MODELS, DestinationKind.MODEL_PROVIDER
    return Destination(name=DestinationName(kind, NAME), protocol=protocol, tls=Tls.OPEN, record=record)


def rpc(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": "a", "method": method, "params": params}


def post(body: Any, path: str = "/mcp", *headers: tuple[str, str]) -> HttpRequest:
    return http(host="x", path=path, body=body, headers=(("content-type", "application/json"), *headers))


def get(path: str = "/mcp", method: str = "GET") -> HttpRequest:
    return http(host="x", path=path, method=method, headers=())


def small(**more: Any) -> dict[str, Any]:
    return {"model": {"name": "small", **more}}


MCP, A2A, OPENAI, ANTHROPIC = Protocol.MCP, Protocol.A2A, Protocol.OPENAI, Protocol.ANTHROPIC
TOOL_SERVER, AGENT, PROVIDER = 'ToolServer::"demo/it"', 'Agent::"demo/it"', 'ModelProvider::"demo/it"'
SMALL, TOOL = 'Model::"demo/it/small"', 'Tool::"demo/it/'
CHATS = "/v1/chat/completions"
IDS = [(7, 7), ("a", "a"), (None, None), (True, None), (1.5, None), ({"a": 1}, None), ("x" * 300, None)]
UNDERSTOOD: dict[str, tuple[Protocol, HttpRequest, str, str, dict[str, Any]]] = {
    "a tool call": (
        MCP,
        post(tool_call("search", {"limit": 1, "other": 2})),
        "CallTool",
        'Tool::"demo/it/search"',
        {"arguments": {"limit": 1}},
    ),
    "a tool without a schema": (MCP, post(tool_call("free", {"__entity": "x"})), "CallTool", TOOL + 'free"', {"arguments": {}}),
    "the list of tools": (MCP, post(rpc("tools/list")), "ListTools", TOOL_SERVER, {}),
    "the list of resources": (MCP, post(rpc("resources/list")), "ListTools", TOOL_SERVER, {}),
    "a resource": (MCP, post(rpc("resources/read", uri="file:///a")), "ReadResource", TOOL_SERVER, {"resource": {"uri": "file:///a"}}),
    "a prompt": (MCP, post(rpc("prompts/get", name="p")), "GetPrompt", TOOL_SERVER, {"prompt": {"name": "p"}}),
    "the start of a session": (MCP, post(rpc("initialize")), "UseProtocol", TOOL_SERVER, {}),
    "discovery": (MCP, post(rpc("server/discover")), "UseProtocol", TOOL_SERVER, {}),
    "a notification": (MCP, post({"jsonrpc": "2.0", "method": "notifications/initialized"}), "UseProtocol", TOOL_SERVER, {}),
    "a response": (MCP, post({"jsonrpc": "2.0", "id": 1, "result": {}}), "UseProtocol", TOOL_SERVER, {}),
    "a session's stream": (MCP, get(), "UseProtocol", TOOL_SERVER, {}),
    "a session's end": (MCP, get(method="DELETE"), "UseProtocol", TOOL_SERVER, {}),
    "a message, 1.0": (A2A, post(message()), "SendMessage", AGENT, {"message": {"kind": "Send"}}),
    "a message, 0.3": (A2A, post(message("message/send")), "SendMessage", AGENT, {"message": {"kind": "Send"}}),
    "a stream, 1.0": (A2A, post(message("SendStreamingMessage")), "SendMessage", AGENT, {"message": {"kind": "Stream"}}),
    "a stream, 0.3": (A2A, post(message("message/stream")), "SendMessage", AGENT, {"message": {"kind": "Stream"}}),
    "a task": (A2A, post(rpc("GetTask", id="t")), "UseProtocol", AGENT, {}),
    "the agent card": (A2A, get("/.well-known/agent-card.json"), "UseProtocol", AGENT, {}),
    "a chat": (
        OPENAI,
        post(chat("small", max_tokens=5), CHATS),
        "InvokeModel",
        SMALL,
        small(stream=False, maxTokens=5),
    ),
    "a response to be made": (
        OPENAI,
        post({"model": "small", "stream": True}, "/v1/responses"),
        "InvokeModel",
        SMALL,
        small(stream=True),
    ),
    "an embedding": (
        OPENAI,
        post({"model": "small"}, "/v1/embeddings"),
        "InvokeModel",
        SMALL,
        small(stream=False),
    ),
    "the list of models": (OPENAI, get("/v1/models"), "UseProtocol", PROVIDER, {}),
    "a file": (OPENAI, post(b"x", "/v1/files"), "HttpRequest", PROVIDER, {}),
    "messages": (
        ANTHROPIC,
        post(chat("small", max_tokens=7), "/v1/messages?beta=true"),
        "InvokeModel",
        SMALL,
        small(stream=False, maxTokens=7),
    ),
    "anything by plain HTTP": (
        Protocol.HTTP,
        http(host="x", body=b"\xff", headers=(), body_complete=False),
        "HttpRequest",
        TOOL_SERVER,
        {},
    ),
}


@pytest.mark.parametrize(("protocol", "request_", "action", "resource", "context"), UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_a_request_is_understood(protocol: Protocol, request_: HttpRequest, action: str, resource: str, context: dict[str, Any]) -> None:
    found: Operation = operations.extract(request_, at(protocol))
    assert (found.action.value, str(found.resource), found.context) == (action, resource, context)
    assert (found.server is not None) == (found.resource.type in ("Tool", "Model"))


CALL = tool_call("search", {"limit": 1})
TARGET = {**message(), "params": {**message()["params"], "configuration": {"taskPushNotificationConfig": {"url": "http://x"}}}}
REFUSED: dict[str, tuple[Protocol, HttpRequest, Reason]] = {
    "a batch": (MCP, post([CALL]), Reason.BATCH_REFUSED),
    "another version": (MCP, post({**CALL, "jsonrpc": "1.0"}), Reason.BODY_MALFORMED),
    "neither method nor result": (MCP, post({"jsonrpc": "2.0", "id": 1}), Reason.BODY_MALFORMED),
    "result and error": (MCP, post({"jsonrpc": "2.0", "id": 1, "result": {}, "error": {}}), Reason.BODY_MALFORMED),
    "parameters that are a list": (MCP, post({**CALL, "params": []}), Reason.BODY_MALFORMED),
    "arguments that are a list": (MCP, post(rpc("tools/call", name="search", arguments=[])), Reason.BODY_MALFORMED),
    "a tool without a name": (MCP, post(rpc("tools/call", arguments={})), Reason.BODY_MALFORMED),
    "a name with a control character": (MCP, post(rpc("tools/call", name="search\n")), Reason.BODY_MALFORMED),
    "a tool that is not declared": (MCP, post(tool_call("drop", {})), Reason.UNKNOWN_TOOL),
    "a missing argument": (MCP, post(tool_call("search", {})), Reason.INVALID_ARGUMENTS),
    "an argument of another type": (MCP, post(tool_call("search", {"limit": True})), Reason.INVALID_ARGUMENTS),
    "an unknown method": (MCP, post(rpc("tools/destroy")), Reason.UNKNOWN_OPERATION),
    "an unknown notification": (MCP, post(rpc("notifications/else")), Reason.UNKNOWN_OPERATION),
    "PUT": (MCP, get(method="PUT"), Reason.UNKNOWN_OPERATION),
    "another method in the header": (MCP, post(CALL, "/mcp", ("mcp-method", "tools/list")), Reason.HEADER_BODY_MISMATCH),
    "another name in the header": (MCP, post(CALL, "/mcp", ("mcp-name", "free")), Reason.HEADER_BODY_MISMATCH),
    "another name in base64": (MCP, post(CALL, "/mcp", ("mcp-name", "=?base64?ZnJlZQ==?=")), Reason.HEADER_BODY_MISMATCH),
    "base64 in another spelling": (MCP, post(CALL, "/mcp", ("mcp-name", "=?base64?c2VhcmNo===?=")), Reason.HEADER_BODY_MISMATCH),
    "a name where the method has none": (MCP, post(rpc("ping"), "/mcp", ("mcp-name", "search")), Reason.HEADER_BODY_MISMATCH),
    "two names": (MCP, post(CALL, "/mcp", ("mcp-name", "search"), ("mcp-name", "search")), Reason.REPEATED_HEADER),
    "a push notification target": (A2A, post(rpc("CreateTaskPushNotificationConfig")), Reason.UNKNOWN_OPERATION),
    "a target inside a message": (A2A, post(TARGET), Reason.UNKNOWN_OPERATION),
    "A2A over REST": (A2A, get("/v1/tasks/1"), Reason.UNKNOWN_OPERATION),
    "a model that is not listed": (OPENAI, post(chat("huge"), "/v1/chat/completions"), Reason.UNKNOWN_MODEL),
    "a model that is no text": (OPENAI, post({"model": ["small"]}, "/v1/chat/completions"), Reason.BODY_MALFORMED),
    "a stream that is no boolean": (OPENAI, post(chat("small", stream="yes"), "/v1/chat/completions"), Reason.BODY_MALFORMED),
    "a bound that is no count": (ANTHROPIC, post(chat("small", max_tokens=-1), "/v1/messages"), Reason.BODY_MALFORMED),
    "a cut body": (MCP, requests.http(host="x", body=CALL, body_complete=False), Reason.BODY_INCOMPLETE),
    "an encoded body": (MCP, post(CALL, "/mcp", ("content-encoding", "br")), Reason.BODY_ENCODED),
    "another content type": (MCP, http(host="x", body=CALL, headers=(("content-type", "text/json"),)), Reason.BODY_MALFORMED),
}


@pytest.mark.parametrize(("protocol", "request_", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_request_is_refused(protocol: Protocol, request_: HttpRequest, reason: Reason) -> None:
    with pytest.raises(OperationError) as caught:
        operations.extract(request_, at(protocol))
    assert caught.value.reason is reason


@pytest.mark.parametrize("name", ["search", "=?base64?c2VhcmNo?="])
def test_headers_that_say_the_same_are_no_hindrance(name: str) -> None:
    assert base64.b64encode(b"search") == b"c2VhcmNo"
    found = operations.extract(post(CALL, "/mcp", ("mcp-method", "tools/call"), ("mcp-name", name)), at(MCP))
    assert found.resource.id == "demo/it/search"


@pytest.mark.parametrize(
    ("identifier", "kept"), [(7, 7), ("a", "a"), (None, None), (True, None), (1.5, None), ({"a": 1}, None), ("x" * 300, None)]
)
def test_only_an_identifier_of_json_rpc_is_repeated(identifier: Any, kept: object) -> None:
    assert operations.extract(post({**CALL, "id": identifier}), at(MCP)).rpc is not None
    found = operations.extract(post({**CALL, "id": identifier}), at(MCP)).rpc
    assert found is not None
    assert found.id == kept
