"""Denials as real SDKs see them: their own permission error, at once, with our sentence, and no second try."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import httpx
import openai
import pytest
from a2a.client import A2AClientError, ClientConfig, create_client, minimal_agent_card
from a2a.helpers.proto_helpers import new_text_message
from a2a.types import Role, SendMessageRequest
from mcp import MCPError
from mcp.client.client import Client

from authz import denial
from authz.request import CheckInput, Direction, HttpRequest, SocketAddress
from authz.verdict import Reason, RpcEnvelope, Verdict
from hopgate.resources.registry import Protocol

DECISION = "0123456789abcdef0123456789abcdef"
SENTENCE = "demo/planner may not do that: no policy permits it"


def verdict(protocol: Protocol | None, rpc: RpcEnvelope | None = None) -> Verdict:
    return Verdict(direction=Direction.OUTBOUND, reason=Reason.NO_PERMIT, message=SENTENCE, protocol=protocol, rpc=rpc)


def check(method: str = "POST") -> CheckInput:
    request = HttpRequest(method=method, scheme="http", unverified_host="x", path="/", headers=(), body=b"", body_complete=True)
    address = SocketAddress(ip="192.0.2.2", port=1)
    return CheckInput(request_id="", direction=Direction.OUTBOUND, source=address, destination=address, sni=None, http=request)


@dataclass
class Denier:
    """A server on loopback that denies what `denies` says, and answers the rest with `answers`."""

    protocol: Protocol
    denies: Callable[[dict[str, Any]], bool] = lambda _: True
    answers: Callable[[dict[str, Any]], dict[str, Any]] = lambda _: {}
    denied: int = 0
    url: str = ""
    _held: list[ThreadingHTTPServer] = field(default_factory=list, init=False)

    def start(self) -> None:
        denier = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                return

            def handle_post(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if denier.denies(body):
                    denier.denied += 1
                    rpc = RpcEnvelope(id=body.get("id"))
                    rendered = denial.render(verdict(denier.protocol, rpc), DECISION, check())
                    status, headers, answer = rendered.status, rendered.headers, rendered.body
                else:
                    status, headers, answer = 200, (("content-type", "application/json"),), json.dumps(denier.answers(body)).encode()
                self.send_response(status if answer != b"{}" else 202)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def handle_get(self) -> None:
                self.send_error(405)

            do_POST = handle_post  # noqa: N815 - the names that http.server calls
            do_GET = do_DELETE = handle_get  # noqa: N815

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self._held.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        for server in self._held:
            server.shutdown()
            server.server_close()


@pytest.fixture
def denier(request: pytest.FixtureRequest) -> Iterator[Denier]:
    made: Denier = replace(request.param)
    made.start()
    yield made
    made.stop()


def _is_told(error: object) -> bool:
    return SENTENCE in str(error) and DECISION in str(error) and "NoPermit" in str(error)


@pytest.mark.parametrize("denier", [Denier(Protocol.OPENAI)], indirect=True, ids=["OpenAI"])
def test_openai_raises_its_permission_error_and_does_not_try_again(denier: Denier) -> None:
    with openai.OpenAI(base_url=denier.url, api_key="x") as client, pytest.raises(openai.PermissionDeniedError) as caught:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True)
    assert _is_told(caught.value)
    assert denier.denied == 1


@pytest.mark.parametrize("denier", [Denier(Protocol.ANTHROPIC)], indirect=True, ids=["Anthropic"])
def test_anthropic_raises_its_permission_error_and_does_not_try_again(denier: Denier) -> None:
    with anthropic.Anthropic(base_url=denier.url, api_key="x") as client, pytest.raises(anthropic.PermissionDeniedError) as caught:
        client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "x"}])
    assert _is_told(caught.value)
    assert denier.denied == 1


@pytest.mark.parametrize("denier", [Denier(Protocol.A2A)], indirect=True, ids=["A2A"])
@pytest.mark.parametrize("streaming", [False, True], ids=["send", "stream"])
async def test_a2a_raises_its_error_with_our_sentence(denier: Denier, *, streaming: bool) -> None:
    card = minimal_agent_card(denier.url, ["JSONRPC"])
    card.capabilities.streaming = streaming
    async with httpx.AsyncClient() as http:
        client = await create_client(card, ClientConfig(httpx_client=http, streaming=streaming))
        with pytest.raises(A2AClientError) as caught:
            async for _ in client.send_message(SendMessageRequest(message=new_text_message("x", role=Role.ROLE_USER))):
                pass
    assert _is_told(caught.value)
    assert denier.denied == 1


def _is_call(body: dict[str, Any]) -> bool:
    return body.get("method") == "tools/call"


def _initialized(body: dict[str, Any]) -> dict[str, Any]:
    if body.get("method") != "initialize":
        return {}
    info = {"name": "it", "version": "1"}
    result = {"protocolVersion": body["params"]["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    return {"jsonrpc": "2.0", "id": body["id"], "result": result}


@pytest.mark.parametrize("denier", [Denier(Protocol.MCP, _is_call, _initialized)], indirect=True, ids=["MCP"])
async def test_mcp_raises_its_error_with_our_sentence_and_the_session_goes_on(denier: Denier) -> None:
    async with Client(denier.url, mode="legacy") as client:
        for _ in range(2):
            with pytest.raises(MCPError) as caught:
                await client.call_tool("delete", {})
            assert _is_told(caught.value)
    assert denier.denied == 2


@pytest.mark.parametrize("identifier", [7, "a", None])
def test_a_json_rpc_denial_repeats_the_identifier_and_nothing_else(identifier: str | int | None) -> None:
    rendered = denial.render(verdict(Protocol.MCP, RpcEnvelope(id=identifier)), DECISION, check())
    body = json.loads(rendered.body)
    assert (rendered.status, body["id"], body["error"]["code"]) == (403, identifier, denial.RPC_CODE)


@pytest.mark.parametrize("protocol", [*Protocol, None])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_denial_asks_for_another_try(protocol: Protocol | None, method: str) -> None:
    rendered = denial.render(verdict(protocol, RpcEnvelope(id=1)), DECISION, check(method))
    assert rendered.status in (200, 403)
    assert rendered.status == 403 or (protocol is Protocol.A2A and method == "POST")
    assert DECISION in rendered.body.decode()
