"""MCP: each message of 2025-06-18 and 2026-07-28 with its action, resource and context; what is refused, and its neighbour."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from authz.operations import mcp
from authz.verdict import Operation, Reason, RpcEnvelope
from hopgate.policy.question import Action, Entity
from tests.authz import requests
from tests.authz.operations import asked

SEARCH = Entity("Tool", "demo/tickets/search")
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"}}
# Method, params, action, context: of both revisions unless the id says which.
GOLDEN: dict[str, tuple[str, dict[str, Any] | None, Action, dict[str, Any]]] = {
    "2025 initialize": (
        "initialize",
        {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}},
        Action.USE_PROTOCOL,
        {},
    ),
    "2025 ping": ("ping", None, Action.USE_PROTOCOL, {}),
    "2025 log level": ("logging/setLevel", {"level": "info"}, Action.USE_PROTOCOL, {}),
    "2026 discover": ("server/discover", {"_meta": META}, Action.USE_PROTOCOL, {}),
    "2026 listen to lists": ("subscriptions/listen", {"_meta": META, "notifications": {"toolsListChanged": True}}, Action.USE_PROTOCOL, {}),
    "2026 listen to no resource": ("subscriptions/listen", {"notifications": {"resourceSubscriptions": []}}, Action.USE_PROTOCOL, {}),
    "2026 follow a resource": (
        "subscriptions/listen",
        {"notifications": {"toolsListChanged": True, "resourceSubscriptions": ["file:///a"]}},
        Action.READ_RESOURCE,
        {"resource": {"uri": "file:///a"}},
    ),
    "initialized": ("notifications/initialized", None, Action.USE_PROTOCOL, {}),
    "cancelled": ("notifications/cancelled", {"requestId": 1}, Action.USE_PROTOCOL, {}),
    "progress": ("notifications/progress", {"progressToken": 1, "progress": 1}, Action.USE_PROTOCOL, {}),
    "roots changed": ("notifications/roots/list_changed", None, Action.USE_PROTOCOL, {}),
    "tools": ("tools/list", {"cursor": "x"}, Action.LIST_TOOLS, {}),
    "2026 tools": ("tools/list", {"_meta": META}, Action.LIST_TOOLS, {}),
    "resources": ("resources/list", None, Action.LIST_TOOLS, {}),
    "templates": ("resources/templates/list", None, Action.LIST_TOOLS, {}),
    "prompts": ("prompts/list", None, Action.LIST_TOOLS, {}),
    "a resource": ("resources/read", {"uri": "file:///a%20b?c"}, Action.READ_RESOURCE, {"resource": {"uri": "file:///a%20b?c"}}),
    "2025 subscribe": ("resources/subscribe", {"uri": "x:y"}, Action.READ_RESOURCE, {"resource": {"uri": "x:y"}}),
    "2025 unsubscribe": ("resources/unsubscribe", {"uri": "x:y"}, Action.READ_RESOURCE, {"resource": {"uri": "x:y"}}),
    "a prompt": ("prompts/get", {"name": "daily", "arguments": {"a": "b"}}, Action.GET_PROMPT, {"prompt": {"name": "daily"}}),
}


@pytest.mark.parametrize(("method", "params", "action", "context"), GOLDEN.values(), ids=GOLDEN)
def test_a_message_is_its_action_on_the_server(method: str, params: dict[str, Any] | None, action: Action, context: dict[str, Any]) -> None:
    found = asked.operation(asked.post(asked.rpc(method, params)), asked.MCP)
    assert found == Operation(action=action, resource=asked.TICKETS, server=None, context=context, rpc=RpcEnvelope(id=7))


CALLS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the required one": ({"limit": 3}, {"limit": 3}),
    "each type": (
        {"limit": -1, "text": "é", "exact": False, "tags": ["a", "b"], "owner": {"team": "x"}},
        {"limit": -1, "text": "é", "exact": False, "tags": ["a", "b"], "owner": {"team": "x"}},
    ),
    "what policies can not read is left out": (
        {"limit": 3, "score": 1.5, "more": {"a": [1]}, "owner": {"team": "x", "y": 1}},
        {"limit": 3, "owner": {"team": "x"}},
    ),
    "the largest integer": ({"limit": 2**63 - 1}, {"limit": 2**63 - 1}),
}


@pytest.mark.parametrize(("arguments", "typed"), CALLS.values(), ids=CALLS)
def test_a_call_is_of_its_tool_with_typed_arguments(arguments: dict[str, Any], typed: dict[str, Any]) -> None:
    found = asked.operation(asked.post(requests.tool_call("search", arguments)), asked.MCP)
    rpc = RpcEnvelope(id=1)
    assert found == Operation(action=Action.CALL_TOOL, resource=SEARCH, server=asked.TICKETS, context={"arguments": typed}, rpc=rpc)


def test_a_call_of_2026_has_its_own_members_beside_the_arguments() -> None:
    params = {"name": "search", "arguments": {"limit": 1}, "_meta": META, "inputResponses": {"a": {}}, "requestState": "s"}
    headers = (("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "search"))
    found = asked.operation(asked.post(asked.rpc("tools/call", params), *headers), asked.MCP)
    assert found.context == {"arguments": {"limit": 1}}


@pytest.mark.parametrize("params", [{"name": "delete"}, {"name": "delete", "arguments": None}, {"name": "delete", "arguments": {"x": 1}}])
def test_a_tool_without_a_schema_has_no_arguments_to_judge(params: dict[str, Any]) -> None:
    found = asked.operation(asked.post(asked.rpc("tools/call", params)), asked.MCP)
    assert (found.resource, found.context) == (Entity("Tool", "demo/tickets/delete"), {"arguments": {}})


def test_a_server_that_declares_no_tools_leaves_their_names_to_the_policies() -> None:
    call = asked.post(requests.tool_call("any", {"x": 1}))
    assert asked.operation(call, asked.OPEN_MCP).resource == Entity("Tool", "demo/tickets/any")
    assert asked.refusal(call, asked.MCP).reason is Reason.UNKNOWN_TOOL


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_session_has_a_stream_and_an_end(method: str) -> None:
    found = asked.operation(requests.http(host="x", path="/mcp", method=method, headers=()), asked.MCP)
    assert found == Operation(action=Action.USE_PROTOCOL, resource=asked.TICKETS, server=None, context={})


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "HEAD", "TRACE", "post", "get"])
def test_mcp_has_no_other_http_methods(method: str) -> None:
    body = asked.rpc("ping")
    assert asked.refusal(requests.http(host="x", path="/mcp", method=method, body=body), asked.MCP).reason is Reason.UNKNOWN_OPERATION
    posted = asked.operation(requests.http(host="x", path="/mcp", method="POST", body=body), asked.MCP)
    assert posted.action is Action.USE_PROTOCOL


@pytest.mark.parametrize("answer", [{"result": {"roots": []}}, {"error": {"code": -1, "message": "no"}}], ids=["a result", "an error"])
def test_an_answer_to_the_server_keeps_the_protocol_going(answer: dict[str, Any]) -> None:
    found = asked.operation(asked.post({"jsonrpc": "2.0", "id": 7} | answer), asked.MCP)
    assert (found.action, found.resource) == (Action.USE_PROTOCOL, asked.TICKETS)


REFUSED: dict[str, tuple[str, dict[str, Any], Reason]] = {
    "a tool that is not listed": ("tools/call", {"name": "drop", "arguments": {"limit": 1}}, Reason.UNKNOWN_TOOL),
    "a tool in capitals": ("tools/call", {"name": "Search", "arguments": {"limit": 1}}, Reason.UNKNOWN_TOOL),
    "a tool with a space": ("tools/call", {"name": "search ", "arguments": {"limit": 1}}, Reason.UNKNOWN_TOOL),
    "a tool with a slash": ("tools/call", {"name": "x/search", "arguments": {"limit": 1}}, Reason.UNKNOWN_TOOL),
    "a tool with a line end": ("tools/call", {"name": "search\n", "arguments": {"limit": 1}}, Reason.BODY_MALFORMED),
    "a tool with a NUL": ("tools/call", {"name": "search\0", "arguments": {"limit": 1}}, Reason.BODY_MALFORMED),
    "a tool without a name": ("tools/call", {"arguments": {"limit": 1}}, Reason.BODY_MALFORMED),
    "a tool named by a number": ("tools/call", {"name": 1, "arguments": {"limit": 1}}, Reason.BODY_MALFORMED),
    "a tool named by a list": ("tools/call", {"name": ["search"], "arguments": {"limit": 1}}, Reason.BODY_MALFORMED),
    "a tool by its URI": ("tools/call", {"uri": "search", "arguments": {"limit": 1}}, Reason.BODY_MALFORMED),
    "a name without end": ("tools/call", {"name": "s" * (mcp.MAX_NAME + 1)}, Reason.BODY_MALFORMED),
    "arguments in an array": ("tools/call", {"name": "search", "arguments": [1]}, Reason.BODY_MALFORMED),
    "arguments as text": ("tools/call", {"name": "search", "arguments": '{"limit": 1}'}, Reason.BODY_MALFORMED),
    "a required argument left out": ("tools/call", {"name": "search", "arguments": {"text": "x"}}, Reason.INVALID_ARGUMENTS),
    "no arguments": ("tools/call", {"name": "search"}, Reason.INVALID_ARGUMENTS),
    "an argument of another type": ("tools/call", {"name": "search", "arguments": {"limit": "1"}}, Reason.INVALID_ARGUMENTS),
    "a boolean for an integer": ("tools/call", {"name": "search", "arguments": {"limit": True}}, Reason.INVALID_ARGUMENTS),
    "a fraction for an integer": ("tools/call", {"name": "search", "arguments": {"limit": 1.0}}, Reason.INVALID_ARGUMENTS),
    "an integer beyond 64 bits": ("tools/call", {"name": "search", "arguments": {"limit": 2**63}}, Reason.INVALID_ARGUMENTS),
    "an array of mixed types": ("tools/call", {"name": "search", "arguments": {"limit": 1, "tags": ["a", 1]}}, Reason.INVALID_ARGUMENTS),
    "null for an optional argument": ("tools/call", {"name": "search", "arguments": {"limit": 1, "text": None}}, Reason.INVALID_ARGUMENTS),
    "an argument in another case": ("tools/call", {"name": "search", "arguments": {"limit": 1, "TEXT": "x"}}, Reason.INVALID_ARGUMENTS),
    "an argument in another case further in": (
        "tools/call",
        {"name": "search", "arguments": {"limit": 1, "owner": {"Team": "x"}}},
        Reason.INVALID_ARGUMENTS,
    ),
    "`Arguments` for `arguments`": ("tools/call", {"name": "delete", "Arguments": {"id": 1}}, Reason.BODY_MALFORMED),
    "a resource without a URI": ("resources/read", {"name": "file:///a"}, Reason.BODY_MALFORMED),
    "a URI without end": ("resources/read", {"uri": "x:" + "a" * mcp.MAX_URI}, Reason.BODY_MALFORMED),
    "a URI with a line end": ("resources/read", {"uri": "x:\r\n"}, Reason.BODY_MALFORMED),
    "an empty URI": ("resources/subscribe", {"uri": ""}, Reason.BODY_MALFORMED),
    "a prompt without a name": ("prompts/get", {}, Reason.BODY_MALFORMED),
    "several resources on one stream": (
        "subscriptions/listen",
        {"notifications": {"resourceSubscriptions": ["x:y", "x:z"]}},
        Reason.UNKNOWN_OPERATION,
    ),
    "resources to follow as text": ("subscriptions/listen", {"notifications": {"resourceSubscriptions": "x:y"}}, Reason.UNKNOWN_OPERATION),
    "a resource to follow that is none": ("subscriptions/listen", {"notifications": {"resourceSubscriptions": [1]}}, Reason.BODY_MALFORMED),
    "resources to follow, with an underscore": (
        "subscriptions/listen",
        {"notifications": {"resource_subscriptions": ["x:y"]}},
        Reason.BODY_MALFORMED,
    ),
    "notifications in an array": ("subscriptions/listen", {"notifications": ["x:y"]}, Reason.BODY_MALFORMED),
    "completion, which sends what was typed": ("completion/complete", {"argument": {"name": "a", "value": "b"}}, Reason.UNKNOWN_OPERATION),
    "a notification that nobody knows": ("notifications/mine", {"data": "x"}, Reason.UNKNOWN_OPERATION),
    "a request of a server's": ("sampling/createMessage", {}, Reason.UNKNOWN_OPERATION),
    "an A2A message": ("SendMessage", {}, Reason.UNKNOWN_OPERATION),
}


@pytest.mark.parametrize(("method", "params", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_judged_is_refused(method: str, params: dict[str, Any], reason: Reason) -> None:
    error = asked.refusal(asked.post(asked.rpc(method, params)), asked.MCP)
    assert (error.reason, error.rpc) == (reason, RpcEnvelope(id=7))


def test_names_and_uris_may_be_as_long_as_their_limits() -> None:
    name, uri = "p" * mcp.MAX_NAME, "x:" + "a" * (mcp.MAX_URI - 2)
    assert asked.operation(asked.post(asked.rpc("prompts/get", {"name": name})), asked.MCP).context == {"prompt": {"name": name}}
    assert asked.operation(asked.post(asked.rpc("resources/read", {"uri": uri})), asked.MCP).context == {"resource": {"uri": uri}}


def encoded(text: str) -> str:
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


CALL = requests.tool_call("search", {"limit": 1})
READ = asked.rpc("resources/read", {"uri": "file:///é"})
LIST = asked.rpc("tools/list")
PROMPT = asked.rpc("prompts/get", {"name": "daily"})
AGREEING: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "no headers": (CALL, {}),
    "the method": (CALL, {"mcp-method": "tools/call"}),
    "the method and the name": (CALL, {"mcp-method": "tools/call", "mcp-name": "search"}),
    "the name in base64": (CALL, {"mcp-name": encoded("search")}),
    "a URI in base64": (READ, {"mcp-method": "resources/read", "mcp-name": encoded("file:///é")}),
    "a prompt": (PROMPT, {"mcp-method": "prompts/get", "mcp-name": "daily"}),
    "a method without a name": (LIST, {"mcp-method": "tools/list"}),
}


@pytest.mark.parametrize(("body", "headers"), AGREEING.values(), ids=AGREEING)
def test_headers_that_say_what_the_body_says_are_taken(body: dict[str, Any], headers: dict[str, str]) -> None:
    assert asked.operation(asked.post(body, *headers.items()), asked.MCP) == asked.operation(asked.post(body), asked.MCP)


DIFFERING: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "another method": (CALL, {"mcp-method": "tools/list", "mcp-name": "search"}),
    "the method in capitals": (CALL, {"mcp-method": "Tools/Call"}),
    "an empty method": (CALL, {"mcp-method": ""}),
    "another name": (CALL, {"mcp-method": "tools/call", "mcp-name": "delete"}),
    "the name in capitals": (CALL, {"mcp-name": "Search"}),
    "another name in base64": (CALL, {"mcp-name": encoded("delete")}),
    "base64 without its padding": (PROMPT, {"mcp-name": encoded("daily").replace("=?=", "?=")}),
    "base64 with other last bits": (PROMPT, {"mcp-name": encoded("daily").replace("k=?=", "l=?=")}),
    "base64 that is no UTF-8": (CALL, {"mcp-name": "=?base64?//8=?="}),
    "base64 of nothing": (CALL, {"mcp-name": "=?base64??="}),
    "base64 in capitals": (CALL, {"mcp-name": encoded("search").replace("base64", "BASE64")}),
    "a URI that is not in base64": (READ, {"mcp-name": "file:///\u00c3\u00a9"}),
    "a name where the body has none": (LIST, {"mcp-name": "search"}),
    "a name for a method that has none": (asked.rpc("ping", {"name": "search"}), {"mcp-name": "search"}),
    "the tool's name beside a URI": (asked.rpc("resources/read", {"uri": "x:y", "name": "z"}), {"mcp-name": "z"}),
    "a method beside an answer": ({"jsonrpc": "2.0", "id": 7, "result": {}}, {"mcp-method": "tools/call"}),
}


@pytest.mark.parametrize(("body", "headers"), DIFFERING.values(), ids=DIFFERING)
def test_headers_that_say_something_else_are_refused(body: dict[str, Any], headers: dict[str, str]) -> None:
    error = asked.refusal(asked.post(body, *headers.items()), asked.MCP)
    assert (error.reason, error.rpc) == (Reason.HEADER_BODY_MISMATCH, RpcEnvelope(id=body["id"]))


@pytest.mark.parametrize("header", [("mcp-method", "tools/call"), ("mcp-name", "search")], ids=["method", "name"])
def test_a_routing_header_is_there_once(header: tuple[str, str]) -> None:
    assert asked.operation(asked.post(CALL, header), asked.MCP).resource == SEARCH
    assert asked.refusal(asked.post(CALL, header, header), asked.MCP).reason is Reason.REPEATED_HEADER
