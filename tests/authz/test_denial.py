"""A denial makes each SDK, as its authors ship it, raise its own permission error at once, with the reason and the decision's id.

The server here is a gate in small: it reads each request with the extractors, denies by `render`, and answers what is permitted.
"""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import anthropic
import httpx
import openai
import pytest
from a2a.client import Client as AgentClient
from a2a.client import ClientConfig, create_client
from a2a.client.errors import A2AClientError
from a2a.helpers.proto_helpers import get_message_text, new_text_message
from a2a.types import Role, SendMessageRequest
from mcp import MCPError
from mcp.client.client import Client as ToolClient

from authz import denial, operations
from authz.request import CheckInput, Direction, HttpRequest, SocketAddress
from authz.verdict import Operation, Reason, RpcEnvelope, Verdict
from hopgate.policy.question import Action
from hopgate.resources.registry import Destination, Protocol
from tests.authz import requests
from tests.authz.operations import asked

DECISION: Final = "0198a7c4-decision"
SENTENCE: Final = "the policies forbid it"
SHOWN: Final = f"{SENTENCE} (Forbidden, decision {DECISION})"
SOCKET: Final = SocketAddress(ip="127.0.0.1", port=1)


def check_input(request: HttpRequest | None) -> CheckInput:
    return CheckInput(request_id="r", direction=Direction.OUTBOUND, source=SOCKET, destination=SOCKET, sni=None, http=request)


def verdict(protocol: Protocol | None, rpc: RpcEnvelope | None = None) -> Verdict:
    return Verdict(direction=Direction.OUTBOUND, reason=Reason.FORBIDDEN, message=SENTENCE, protocol=protocol, rpc=rpc)


class Gate(ThreadingHTTPServer):
    """On loopback. Denies the operations that `denied` says, and keeps those: one for each request that came."""

    daemon_threads = True

    def __init__(self, destination: Destination, answer: Callable[[Gate, HttpRequest, Operation], tuple[int, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.destination = destination
        self.answer = answer
        self.denied: Callable[[Operation], bool] = lambda operation: operation.action is not Action.USE_PROTOCOL
        self.denials: list[Operation] = []
        self.requests = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gate

    def log_message(self, *_: Any) -> None:
        """Nothing: the tests look at what was kept."""

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = tuple((name.lower(), value) for name, value in self.headers.items())
        request = HttpRequest(
            method=self.command, scheme="http", unverified_host="x", path=self.path, headers=headers, body=body, body_complete=True
        )
        operation = operations.extract(request, self.server.destination)
        self.server.requests += 1
        if not self.server.denied(operation):
            self.reply(*self.server.answer(self.server, request, operation), (("content-type", "application/json"),))
            return
        self.server.denials.append(operation)
        rendered = denial.render(verdict(self.server.destination.protocol, operation.rpc), DECISION, check_input(request))
        self.reply(rendered.status, rendered.body, rendered.headers)

    do_GET = do_POST = do_DELETE = serve  # noqa: N815 - the names that http.server calls

    def reply(self, status: int, body: bytes, headers: tuple[tuple[str, str], ...]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def gate() -> Iterator[Callable[..., Gate]]:
    gates: list[tuple[Gate, threading.Thread]] = []

    def start(destination: Destination, answer: Callable[[Gate, HttpRequest, Operation], tuple[int, bytes]]) -> Gate:
        made = Gate(destination, answer)
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        gates.append((made, thread))
        return made

    yield start
    for made, thread in gates:
        made.shutdown()
        thread.join()
        made.server_close()


def no_answer(_: Gate, request: HttpRequest, operation: Operation) -> tuple[int, bytes]:
    raise AssertionError(f"{request.method} {request.path} was to be denied")


# MCP


def mcp_answer(_: Gate, request: HttpRequest, operation: Operation) -> tuple[int, bytes]:
    """A server of either revision: a session is not kept, the one tool says what it was given."""
    if request.method != "POST":
        return 405, b""
    message = json.loads(request.body)
    if "id" not in message:
        return 202, b""
    described = {"capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}
    cached = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    modern = dict(request.headers).get("mcp-protocol-version") == "2026-07-28"
    match message["method"]:
        case "initialize":
            result = {"protocolVersion": "2025-06-18", **described}
        case "server/discover":
            result = {"supportedVersions": ["2026-07-28"], **described, **cached}
        case "tools/list":
            tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("search", "delete")]
            result = {"tools": tools, **(cached if modern else {})}
        case _:
            text = [{"type": "text", "text": json.dumps(operation.context["arguments"])}]
            result = {"content": text, **({"resultType": "complete"} if modern else {})}
    return 200, json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()


@pytest.mark.parametrize(("mode", "revision"), [("legacy", "2025-06-18"), ("auto", "2026-07-28")])
async def test_the_mcp_client_raises_and_its_session_goes_on(gate: Callable[..., Gate], mode: str, revision: str) -> None:
    server = gate(asked.MCP, mcp_answer)
    server.denied = lambda operation: operation.resource.id.endswith("/delete")
    async with ToolClient(server.url + "/mcp", mode=mode) as client:
        assert client.protocol_version == revision
        with pytest.raises(MCPError) as caught:
            await client.call_tool("delete", {"id": 1})
        assert caught.value.error.message == SHOWN
        assert caught.value.error.code == denial.RPC_CODE
        assert caught.value.error.data == {"reason": "Forbidden", "decision": DECISION}
        assert [denied.resource.id for denied in server.denials] == ["demo/tickets/delete"]
        result = await client.call_tool("search", {"limit": 1})
        assert [block.text for block in result.content if block.type == "text"] == ['{"limit": 1}']


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_mcp_client_that_may_not_even_begin_says_why(gate: Callable[..., Gate], mode: str) -> None:
    server = gate(asked.MCP, no_answer)
    server.denied = lambda operation: True
    with pytest.raises(Exception) as caught:  # noqa: PT011 - an MCPError, by itself or in the group of the client's tasks
        async with ToolClient(server.url + "/mcp", mode=mode):
            pass
    assert SHOWN in "".join(_messages(caught.value))
    # `auto` asks for the newer revision and, refused, for the older: not a second try of one request.
    assert len(server.denials) == (1 if mode == "legacy" else 2)


def _messages(error: BaseException) -> Iterator[str]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _messages(inner)
    elif isinstance(error, MCPError):
        yield str(error)


# A2A


def a2a_answer(version: str) -> Callable[[Gate, HttpRequest, Operation], tuple[int, bytes]]:
    """An agent of one version, with its card and one answer to every message, streamed or not."""

    def answer(server: Gate, request: HttpRequest, operation: Operation) -> tuple[int, bytes]:
        if request.method == "GET":
            return 200, json.dumps(_card(server.url + asked.ENDPOINT, version)).encode()
        said: dict[str, Any] = {"messageId": "m"}
        said |= {"role": "ROLE_AGENT", "parts": [{"text": "yes"}]} if version == "1.0" else {"role": "agent", "kind": "message"}
        said |= {} if version == "1.0" else {"parts": [{"kind": "text", "text": "yes"}]}
        result = {"message": said} if version == "1.0" else said
        return 200, json.dumps({"jsonrpc": "2.0", "id": json.loads(request.body)["id"], "result": result}).encode()

    return answer


def _card(url: str, version: str) -> dict[str, Any]:
    card: dict[str, Any] = {
        "name": "researcher",
        "description": "finds",
        "version": "1",
        "capabilities": {"streaming": True},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "find", "name": "find", "description": "finds", "tags": ["x"]}],
    }
    if version == "1.0":
        return card | {"supportedInterfaces": [{"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]}
    return card | {"url": url, "preferredTransport": "JSONRPC", "protocolVersion": "0.3.0"}


@asynccontextmanager
async def agent_client(server: Gate, *, streaming: bool) -> AsyncIterator[AgentClient]:
    async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
        yield await create_client(server.url, ClientConfig(httpx_client=http, streaming=streaming))


async def ask(client: AgentClient) -> list[str]:
    question = SendMessageRequest(message=new_text_message("hello", role=Role.ROLE_USER))
    return [get_message_text(event.message) async for event in client.send_message(question)]


@pytest.mark.parametrize(("streaming", "kind"), [(False, "Send"), (True, "Stream")], ids=["send", "stream"])
@pytest.mark.parametrize("version", ["0.3", "1.0"])
async def test_the_a2a_client_raises_with_the_reason(gate: Callable[..., Gate], version: str, streaming: bool, kind: str) -> None:
    server = gate(asked.A2A, a2a_answer(version))
    async with agent_client(server, streaming=streaming) as client:
        with pytest.raises(A2AClientError) as caught:
            await ask(client)
        assert SHOWN in str(caught.value)
        assert [denied.context for denied in server.denials] == [{"message": {"kind": kind}}]
        assert server.requests == 2  # the card and the message
        server.denied = lambda operation: False
        assert await ask(client) == ["yes"]


# The model APIs

SAID: Final[list[Any]] = [{"role": "user", "content": "x"}]


def openai_answer(_: Gate, request: HttpRequest, operation: Operation) -> tuple[int, bytes]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}
    return 200, json.dumps({"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini", "choices": [choice]}).encode()


OPENAI_CALLS: dict[str, Callable[[openai.OpenAI], Any]] = {
    "chat": lambda client: client.chat.completions.create(model="gpt-4o", messages=SAID),
    "chat, streamed": lambda client: list(client.chat.completions.create(model="gpt-4o", messages=SAID, stream=True)),
    "responses": lambda client: client.responses.create(model="gpt-4o", input="x"),
    "responses, streamed": lambda client: list(client.responses.create(model="gpt-4o", input="x", stream=True)),
    "embeddings": lambda client: client.embeddings.create(model="gpt-4o", input="x"),
}


@pytest.mark.parametrize("call", OPENAI_CALLS.values(), ids=OPENAI_CALLS)
def test_the_openai_client_raises_and_does_not_try_again(gate: Callable[..., Gate], call: Callable[[openai.OpenAI], Any]) -> None:
    server = gate(asked.OPENAI, openai_answer)
    server.denied = lambda operation: operation.resource.id.endswith("/gpt-4o")
    with openai.OpenAI(base_url=server.url + "/v1", api_key="x") as client:
        with pytest.raises(openai.PermissionDeniedError) as caught:
            call(client)
        assert SHOWN in caught.value.message
        assert (caught.value.code, caught.value.type) == ("Forbidden", "permission_denied")
        assert (len(server.denials), server.requests) == (1, 1)
        answer = client.chat.completions.create(model="gpt-4o-mini", messages=SAID)
        assert answer.choices[0].message.content == "yes"


def anthropic_answer(_: Gate, request: HttpRequest, operation: Operation) -> tuple[int, bytes]:
    said = {"id": "m", "type": "message", "role": "assistant", "model": "claude-small", "content": [{"type": "text", "text": "yes"}]}
    return 200, json.dumps(said | {"stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}}).encode()


def _anthropic_stream(client: anthropic.Anthropic) -> None:
    with client.messages.stream(model="claude-large", max_tokens=9, messages=SAID) as stream:
        stream.get_final_message()


ANTHROPIC_CALLS: dict[str, Callable[[anthropic.Anthropic], Any]] = {
    "messages": lambda client: client.messages.create(model="claude-large", max_tokens=9, messages=SAID),
    "messages, streamed": _anthropic_stream,
    "a count of tokens": lambda client: client.messages.count_tokens(model="claude-large", messages=SAID),
}


@pytest.mark.parametrize("call", ANTHROPIC_CALLS.values(), ids=ANTHROPIC_CALLS)
def test_the_anthropic_client_raises_and_does_not_try_again(gate: Callable[..., Gate], call: Callable[[anthropic.Anthropic], Any]) -> None:
    server = gate(asked.provider(Protocol.ANTHROPIC), anthropic_answer)
    server.denied = lambda operation: operation.resource.id.endswith("/claude-large")
    with anthropic.Anthropic(base_url=server.url, api_key="x") as client:
        with pytest.raises(anthropic.PermissionDeniedError) as caught:
            call(client)
        assert SHOWN in caught.value.message
        assert (len(server.denials), server.requests) == (1, 1)
        block = client.messages.create(model="claude-small", max_tokens=9, messages=SAID).content[0]
        assert block.type == "text"
        assert block.text == "yes"


# What is rendered

STATUS: dict[str, tuple[Protocol | None, RpcEnvelope | None, HttpRequest | None, int]] = {
    "MCP": (Protocol.MCP, RpcEnvelope(id=1), asked.post(asked.rpc("ping")), 403),
    "MCP, a notification": (Protocol.MCP, RpcEnvelope(id=None), asked.post(asked.rpc("ping")), 403),
    "MCP, the stream of events": (Protocol.MCP, None, requests.http(host="x", method="GET"), 403),
    "A2A": (Protocol.A2A, RpcEnvelope(id="a"), asked.post(asked.rpc("SendMessage")), 200),
    "A2A with an id of nought": (Protocol.A2A, RpcEnvelope(id=0), asked.post(asked.rpc("SendMessage")), 200),
    "A2A without an id": (Protocol.A2A, RpcEnvelope(id=None), asked.post(asked.rpc("SendMessage")), 403),
    "A2A, unreadable": (Protocol.A2A, None, asked.post(b"{"), 403),
    "A2A, the card": (Protocol.A2A, None, requests.http(host="x", method="GET"), 403),
    "OpenAI": (Protocol.OPENAI, None, asked.post({}), 403),
    "Anthropic": (Protocol.ANTHROPIC, None, asked.post({}), 403),
    "HTTP": (Protocol.HTTP, None, asked.post({}), 403),
    "sealed": (Protocol.OPAQUE, None, None, 403),
    "no destination": (None, None, asked.post({}), 403),
}


@pytest.mark.parametrize(("protocol", "rpc", "request_", "status"), STATUS.values(), ids=STATUS)
def test_a_denial_is_json_with_the_reason_and_no_status_that_asks_for_another_try(
    protocol: Protocol | None, rpc: RpcEnvelope | None, request_: HttpRequest | None, status: int
) -> None:
    rendered = denial.render(verdict(protocol, rpc), DECISION, check_input(request_))
    assert rendered.status == status
    assert rendered.headers == (("content-type", "application/json"),)
    body = json.loads(rendered.body)
    assert body["error"]["message"].startswith(SENTENCE)
    assert DECISION in rendered.body.decode()
    if protocol in (Protocol.MCP, Protocol.A2A) and request_ is not None and request_.method == "POST":
        assert (body["jsonrpc"], body["id"]) == ("2.0", rpc.id if rpc is not None else None)
    else:
        assert "jsonrpc" not in body


@pytest.mark.parametrize("protocol", [*Protocol, None], ids=str)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_only_an_answer_in_json_rpc_to_an_agent_succeeds(protocol: Protocol | None, method: str) -> None:
    rendered = denial.render(verdict(protocol, RpcEnvelope(id=1)), DECISION, check_input(requests.http(host="x", method=method)))
    assert rendered.status == (200 if protocol is Protocol.A2A and method == "POST" else 403)


@pytest.mark.parametrize("protocol", [*Protocol, None], ids=str)
def test_nothing_of_the_request_is_repeated_but_its_id(protocol: Protocol | None) -> None:
    request = asked.post({"marker-key": "marker-value"}, ("marker-header", "marker"), path="/marker")
    rendered = denial.render(verdict(protocol, RpcEnvelope(id="the-id")), DECISION, check_input(request))
    assert b"marker" not in rendered.body
    assert (b"the-id" in rendered.body) is (protocol in (Protocol.MCP, Protocol.A2A))
