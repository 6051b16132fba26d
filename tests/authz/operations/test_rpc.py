"""The envelope of JSON-RPC: which requests are one, and which id a denial repeats."""

from __future__ import annotations

from typing import Any

import pytest

from authz.operations import rpc
from authz.verdict import Reason
from hopgate.resources.registry import Destination
from tests.authz.operations import asked

PROTOCOLS = pytest.mark.parametrize("destination", [asked.MCP, asked.A2A], ids=["MCP", "A2A"])


@PROTOCOLS
@pytest.mark.parametrize("identifier", [0, 1, -5, 2**53, "a", "3f2b-…", "x" * rpc.MAX_ID, ""])
def test_the_id_of_a_refused_request_is_kept(destination: Destination, identifier: Any) -> None:
    error = asked.refusal(asked.post(asked.rpc("no/such", identifier=identifier)), destination)
    assert error.reason is Reason.UNKNOWN_OPERATION
    assert error.rpc is not None
    assert error.rpc.id == identifier


@PROTOCOLS
@pytest.mark.parametrize("identifier", [None, True, 1.5, [1], {"a": 1}, "x" * (rpc.MAX_ID + 1)])
def test_what_is_no_id_is_not_repeated(destination: Destination, identifier: Any) -> None:
    error = asked.refusal(asked.post(asked.rpc("no/such", identifier=identifier)), destination)
    assert error.rpc is not None
    assert error.rpc.id is None


MALFORMED: dict[str, dict[str, Any]] = {
    "another version": {"jsonrpc": "1.0", "id": 1, "method": "ping"},
    "a version as a number": {"jsonrpc": 2.0, "id": 1, "method": "ping"},
    "no version": {"id": 1, "method": "ping"},
    "neither method nor answer": {"jsonrpc": "2.0", "id": 1},
    "both a result and an error": {"jsonrpc": "2.0", "id": 1, "result": {}, "error": {}},
    "params in an array": {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": [1]},
    "params that are null": {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": None},
    "a method that is null": {"jsonrpc": "2.0", "id": 1, "method": None},
    "an empty method": {"jsonrpc": "2.0", "id": 1, "method": ""},
    "a method with a line end": {"jsonrpc": "2.0", "id": 1, "method": "ping\n"},
    "a method with a mark that turns text around": {"jsonrpc": "2.0", "id": 1, "method": "ping\u202e"},
    "a method without end": {"jsonrpc": "2.0", "id": 1, "method": "p" * (rpc.MAX_METHOD + 1)},
}


@PROTOCOLS
@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_message_is_refused(destination: Destination, body: dict[str, Any]) -> None:
    assert asked.refusal(asked.post(body), destination).reason is Reason.BODY_MALFORMED


def test_their_neighbour_is_a_message() -> None:
    assert rpc.read(asked.post({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}})).method == "ping"
    assert rpc.read(asked.post({"jsonrpc": "2.0", "id": 1, "error": {}})).method is None


@PROTOCOLS
@pytest.mark.parametrize("method", ["no/such", "toString", "__class__", "Tools/Call", "tools/call/", "sendmessage", "Message/Send"])
def test_an_unknown_method_is_refused(destination: Destination, method: str) -> None:
    error = asked.refusal(asked.post(asked.rpc(method, {"name": "search", "arguments": {"limit": 1}})), destination)
    assert error.reason is Reason.UNKNOWN_OPERATION
    assert method in error.message
