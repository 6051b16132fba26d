"""A permit for a protocol opens the one path at which it is answered, for its housekeeping too."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from authz.request import HttpRequest
from authz.verdict import Reason, RpcEnvelope
from hopgate.policy.question import Action
from hopgate.resources.kinds import Agent, ToolServer
from hopgate.resources.registry import Destination
from tests.authz import requests
from tests.authz.operations import asked

SAID: Final = {
    "MCP": (asked.MCP, requests.tool_call("search", {"limit": 1}, 7), Action.CALL_TOOL),
    "MCP's housekeeping": (asked.MCP, asked.rpc("ping"), Action.USE_PROTOCOL),
    "A2A": (asked.A2A, requests.message(identifier=7), Action.SEND_MESSAGE),
    "A2A's housekeeping": (asked.A2A, asked.rpc("GetTask", {"id": "t"}), Action.USE_PROTOCOL),
}
EACH = pytest.mark.parametrize(("destination", "body", "action"), SAID.values(), ids=SAID)
ELSEWHERE: Final = ["/", "", "/admin", "/mcp/admin", "/mcp//", "/MCP", "/mcp;a", "/mc%70", "//mcp", "/mcp2", "/?a=/mcp", "*"]


def answering_at(destination: Destination, path: str) -> Destination:
    assert isinstance(destination.record, Agent | ToolServer)
    return replace(destination, record=replace(destination.record, path=path))


@EACH
@pytest.mark.parametrize("path", ["/mcp", "/mcp/", "/mcp?session=/admin"])
def test_at_its_path_a_request_is_judged(destination: Destination, body: dict[str, object], action: Action, path: str) -> None:
    assert asked.operation(asked.post(body, path=path), destination).action is action


@EACH
@pytest.mark.parametrize("path", ELSEWHERE)
def test_elsewhere_it_is_refused_with_its_id(destination: Destination, body: dict[str, object], action: Action, path: str) -> None:
    refused = asked.refusal(asked.post(body, path=path), destination)
    assert (refused.reason, refused.rpc) == (Reason.PATH_MISMATCH, RpcEnvelope(id=7))
    assert "`/mcp`" in str(refused)
    assert "spec.path" in str(refused)
    assert asked.operation(asked.post(body), destination).action is action


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("path", ELSEWHERE)
def test_a_session_is_kept_and_ended_at_the_path_only(method: str, path: str) -> None:
    def ask(path: str) -> HttpRequest:
        return requests.http(host="x", path=path, method=method, headers=())

    assert asked.refusal(ask(path), asked.MCP).reason is Reason.PATH_MISMATCH
    assert asked.operation(ask("/mcp"), asked.MCP).action is Action.USE_PROTOCOL


@EACH
def test_the_root_is_a_path_like_others(destination: Destination, body: dict[str, object], action: Action) -> None:
    at_root = answering_at(destination, "/")
    assert asked.operation(asked.post(body, path="/"), at_root).action is action
    for path in ("/mcp", "//", ""):
        assert asked.refusal(asked.post(body, path=path), at_root).reason is Reason.PATH_MISMATCH


def test_an_agents_card_is_where_it_always_is() -> None:
    request = requests.http(host="x", path="/.well-known/agent-card.json", method="GET", headers=())
    assert asked.operation(request, answering_at(asked.A2A, "/a/b")).action is Action.USE_PROTOCOL
