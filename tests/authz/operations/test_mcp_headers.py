"""Routing headers that mirror an argument say what the body says; the SDK's own server-side check is the oracle."""

from __future__ import annotations

from typing import Any, Final

import pytest
from mcp.shared.inbound import encode_header_value, validate_mcp_param_headers

from authz import operations
from authz.operations.errors import OperationError
from authz.request import HttpRequest
from authz.verdict import Reason
from hopgate.identity.names import DestinationKind, DestinationName, ObjectName
from hopgate.policy.question import Action
from hopgate.resources.kinds import Tls, Tool, ToolProtocol, ToolServer
from hopgate.resources.registry import Destination, Protocol
from tests.authz import requests

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "shard": {"type": "integer", "x-mcp-header": "Shard"},
        "dry": {"type": "boolean", "x-mcp-header": "Dry-Run"},
        "text": {"type": "string"},
        "owner": {"type": "object", "properties": {"team": {"type": "string", "x-mcp-header": "Team"}}},
    },
}
NAME: Final = ObjectName("demo", "db")


def server(schema: dict[str, Any] | None = SCHEMA) -> Destination:
    tools = (Tool(name="query", input_schema=schema),)
    record = ToolServer(name=NAME, protocol=ToolProtocol.MCP, tools=tools)
    return Destination(name=DestinationName(DestinationKind.TOOL_SERVER, NAME), protocol=Protocol.MCP, tls=Tls.OPEN, record=record)


def call(arguments: dict[str, Any], *headers: tuple[str, str]) -> HttpRequest:
    return requests.http(
        host="x", path="/mcp", body=requests.tool_call("query", arguments), headers=(("content-type", "application/json"), *headers)
    )


def refusal(request: HttpRequest, destination: Destination) -> OperationError:
    with pytest.raises(OperationError) as caught:
        operations.extract(request, destination)
    return caught.value


GIVEN: Final[dict[str, Any]] = {"region": "eu", "shard": 42, "dry": True, "text": "x", "owner": {"team": "core"}}
AGREEING: dict[str, tuple[str, str]] = {
    "text": ("mcp-param-region", "eu"),
    "text in base64": ("mcp-param-region", "=?base64?ZXU=?="),
    "an integer": ("mcp-param-shard", "42"),
    "a boolean": ("mcp-param-dry-run", "true"),
    "a property of an object": ("mcp-param-team", "core"),
}
DIFFERING: dict[str, tuple[str, str]] = {
    "another text": ("mcp-param-region", "us"),
    "the text in capitals": ("mcp-param-region", "EU"),
    "nothing": ("mcp-param-region", ""),
    "another text in base64": ("mcp-param-region", "=?base64?dXM=?="),
    "base64 with other last bits": ("mcp-param-region", "=?base64?ZXV=?="),
    "another integer": ("mcp-param-shard", "43"),
    "a boolean as Python writes it": ("mcp-param-dry-run", "True"),
    "another property of an object": ("mcp-param-team", "eu"),
}


def by_the_sdk(arguments: dict[str, Any], header: tuple[str, str]) -> bool:
    """Whether the SDK's server takes this header beside these arguments; the others are left out on both sides."""
    marks = {"mcp-param-region": "region", "mcp-param-shard": "shard", "mcp-param-dry-run": "dry", "mcp-param-team": "owner"}
    kept = {marks[header[0]]: arguments[marks[header[0]]]} if marks[header[0]] in arguments else {}
    return validate_mcp_param_headers(SCHEMA, kept, dict([header])) is None


@pytest.mark.parametrize("header", AGREEING.values(), ids=AGREEING)
def test_a_header_that_says_what_the_body_says_is_taken(header: tuple[str, str]) -> None:
    found = operations.extract(call(GIVEN, header), server())
    assert found == operations.extract(call(GIVEN), server())
    assert found.action is Action.CALL_TOOL
    assert by_the_sdk(GIVEN, header)


@pytest.mark.parametrize("header", DIFFERING.values(), ids=DIFFERING)
def test_a_header_that_says_something_else_is_refused(header: tuple[str, str]) -> None:
    error = refusal(call(GIVEN, header), server())
    assert error.reason is Reason.HEADER_BODY_MISMATCH
    assert error.rpc is not None
    assert error.rpc.id == 1
    assert not by_the_sdk(GIVEN, header)


@pytest.mark.parametrize("arguments", [{}, {"text": "eu"}], ids=["no arguments", "the value under another name"])
def test_a_header_for_an_argument_that_is_not_there_is_refused(arguments: dict[str, Any]) -> None:
    header = ("mcp-param-region", "eu")
    assert refusal(call(arguments, header), server()).reason is Reason.HEADER_BODY_MISMATCH
    assert not by_the_sdk(arguments, header)
    assert operations.extract(call(arguments | {"region": "eu"}, header), server()).action is Action.CALL_TOOL


def test_each_text_is_taken_in_the_form_the_sdk_writes_and_in_no_other() -> None:
    for text in ("eu", "é", " eu", "eu ", "=?base64?ZXU=?=", "a\nb", "日本", "x" * 300):
        header = ("mcp-param-region", encode_header_value(text))
        assert operations.extract(call({"region": text}, header), server()).action is Action.CALL_TOOL
        other = ("mcp-param-region", encode_header_value(text + "x"))
        assert refusal(call({"region": text}, other), server()).reason is Reason.HEADER_BODY_MISMATCH


def test_a_repeated_header_is_refused_even_where_both_agree() -> None:
    header = ("mcp-param-region", "eu")
    assert operations.extract(call(GIVEN, header), server()).action is Action.CALL_TOOL
    assert refusal(call(GIVEN, header, header), server()).reason is Reason.REPEATED_HEADER


def test_a_parameter_that_the_declared_schema_does_not_mark_is_refused() -> None:
    for name in ("text", "other", "", "region-2"):
        assert refusal(call(GIVEN, (f"mcp-param-{name}", "x")), server()).reason is Reason.HEADER_BODY_MISMATCH
    assert operations.extract(call(GIVEN, ("x-param-other", "x")), server()).action is Action.CALL_TOOL


def test_a_mark_on_two_properties_names_neither() -> None:
    twice = {"type": "object", "properties": {name: {"type": "string", "x-mcp-header": "Region"} for name in ("a", "b")}}
    given = {"a": "eu", "b": "eu"}
    assert refusal(call(given, ("mcp-param-region", "eu")), server(twice)).reason is Reason.HEADER_BODY_MISMATCH
    assert operations.extract(call(given), server(twice)).action is Action.CALL_TOOL


def test_without_a_declared_schema_no_argument_is_judged_and_no_header_differs_from_what_was() -> None:
    header = ("mcp-param-region", "us")
    assert operations.extract(call({"region": "eu"}, header), server(None)).context == {"arguments": {}}
    assert refusal(call({"region": "eu"}, header, header), server(None)).reason is Reason.REPEATED_HEADER


@pytest.mark.parametrize("method", ["ping", "tools/list", "notifications/initialized", "no/such"])
def test_parameters_beside_another_method_are_refused(method: str) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": method}
    kind = ("content-type", "application/json")
    found = refusal(requests.http(host="x", path="/mcp", body=body, headers=(kind, ("mcp-param-region", "eu"))), server())
    assert found.reason is Reason.HEADER_BODY_MISMATCH
    if method != "no/such":
        assert operations.extract(requests.http(host="x", path="/mcp", body=body, headers=(kind,)), server()).action in (
            Action.USE_PROTOCOL,
            Action.LIST_TOOLS,
        )


def test_a_wild_schema_marks_nothing_and_ends_the_reading() -> None:
    wild: dict[str, Any] = {"properties": {"a": ["x"], "b": {"x-mcp-header": 7}, "c": {"properties": "no", "x-mcp-header": "C"}}}
    assert operations.extract(call({"c": "v"}, ("mcp-param-c", "v")), server(wild)).action is Action.CALL_TOOL
    assert refusal(call({"b": "v"}, ("mcp-param-b", "v")), server(wild)).reason is Reason.HEADER_BODY_MISMATCH
