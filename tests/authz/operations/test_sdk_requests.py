"""What the SDKs send, as their authors ship them, is understood: every call of the MCP and A2A clients, in each revision.

MCP's requests go to a real MCP server, so that headers which depend on a listed tool are sent; A2A's are answered with an error,
since what was asked is all that is looked at. Each request is read by the extractors as it came.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any, Final

import httpx
import pytest
import uvicorn
from a2a import types as a2a
from a2a.client import Client as AgentClient
from a2a.client import ClientConfig, create_client
from a2a.client.errors import A2AClientError
from a2a.helpers.proto_helpers import new_text_message
from mcp.client.client import Client as ToolClient
from mcp.server.mcpserver import MCPServer
from pydantic import Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from authz import operations
from authz.operations.errors import OperationError
from authz.request import HttpRequest
from authz.verdict import Operation, Reason
from hopgate.identity.names import DestinationKind, DestinationName, ObjectName
from hopgate.policy.question import Action
from hopgate.resources.kinds import Agent, Tls, Tool, ToolProtocol, ToolServer
from hopgate.resources.registry import Destination, Protocol

NAME: Final = ObjectName("demo", "it")
SCHEMA: Final = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
TOOLS: Final = (Tool(name="query", input_schema=SCHEMA), Tool(name="größe"))
SERVER: Final = ToolServer(name=NAME, protocol=ToolProtocol.MCP, tools=TOOLS)
MCP: Final = Destination(name=DestinationName(DestinationKind.TOOL_SERVER, NAME), protocol=Protocol.MCP, tls=Tls.OPEN, record=SERVER)
AGENT: Final = Agent(name=NAME, service_account_name="it")
A2A: Final = Destination(name=DestinationName(DestinationKind.AGENT, NAME), protocol=Protocol.A2A, tls=Tls.OPEN, record=AGENT)


class Recorder:
    """Reads each request with the extractors, keeps what it is or why it is refused, and hands it on."""

    def __init__(self, app: ASGIApp, destination: Destination) -> None:
        self.app = app
        self.destination = destination
        self.found: list[Operation | OperationError] = []
        self.requests: list[HttpRequest] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        messages: list[Message] = [await receive()]
        while messages[-1].get("more_body"):
            messages.append(await receive())
        request = HttpRequest(
            method=scope["method"],
            scheme="http",
            unverified_host="x",
            path=scope["raw_path"].decode(),
            headers=tuple((name.decode().lower(), value.decode("latin-1")) for name, value in scope["headers"]),
            body=b"".join(message.get("body", b"") for message in messages),
            body_complete=True,
        )
        self.requests.append(request)
        try:
            self.found.append(operations.extract(request, self.destination))
        except OperationError as error:
            self.found.append(error)
        waiting = iter(messages)
        await self.app(scope, lambda: _next(waiting, receive), send)

    def judged(self) -> list[tuple[Action, str, Any]]:
        """Action, resource and context of what is more than housekeeping."""
        kept = [each for each in self.found if isinstance(each, Operation) and each.action is not Action.USE_PROTOCOL]
        return [(each.action, each.resource.id, each.context) for each in kept]

    def refused(self) -> list[tuple[Reason, str]]:
        return [(each.reason, each.message) for each in self.found if isinstance(each, OperationError)]


async def _next(waiting: Iterator[Message], receive: Receive) -> Message:
    message = next(waiting, None)
    return await receive() if message is None else message


@pytest.fixture
def serve() -> Iterator[Callable[[ASGIApp], str]]:
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(app: ASGIApp) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        running.append((server, thread))
        deadline = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < deadline
            thread.join(0.01)
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join()


def tool_server() -> MCPServer:
    server = MCPServer("s")

    @server.tool()
    def query(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]) -> str:
        return region

    @server.tool(name="größe")
    def size() -> str:
        return "1"

    @server.resource("file:///é")
    def resource() -> str:
        return "r"

    @server.prompt()
    def daily() -> str:
        return "p"

    return server


@contextlib.asynccontextmanager
async def tool_client(serve: Callable[[ASGIApp], str], mode: str) -> AsyncIterator[tuple[ToolClient, Recorder]]:
    recorder = Recorder(tool_server().streamable_http_app(), MCP)
    async with ToolClient(serve(recorder) + "/mcp", mode=mode) as client:
        yield client, recorder


MODES = pytest.mark.parametrize(("mode", "revision"), [("legacy", "2025"), ("auto", "2026")], ids=["2025", "2026"])
CALLS: dict[str, tuple[Callable[[ToolClient], Awaitable[object]], Action, str, dict[str, Any]]] = {
    "list tools": (lambda c: c.list_tools(), Action.LIST_TOOLS, "demo/it", {}),
    "list resources": (lambda c: c.list_resources(), Action.LIST_TOOLS, "demo/it", {}),
    "list templates": (lambda c: c.list_resource_templates(), Action.LIST_TOOLS, "demo/it", {}),
    "list prompts": (lambda c: c.list_prompts(), Action.LIST_TOOLS, "demo/it", {}),
    "read": (lambda c: c.read_resource("file:///é"), Action.READ_RESOURCE, "demo/it", {"resource": {"uri": "file:///é"}}),
    "prompt": (lambda c: c.get_prompt("daily"), Action.GET_PROMPT, "demo/it", {"prompt": {"name": "daily"}}),
    "tool beyond ASCII": (lambda c: c.call_tool("größe", {}), Action.CALL_TOOL, "demo/it/größe", {"arguments": {}}),
}


@MODES
@pytest.mark.parametrize(("call", "action", "resource", "context"), CALLS.values(), ids=CALLS)
async def test_what_the_mcp_client_asks_is_understood(
    serve: Callable[[ASGIApp], str],
    mode: str,
    revision: str,
    call: Callable[[ToolClient], Awaitable[object]],
    action: Action,
    resource: str,
    context: dict[str, Any],
) -> None:
    async with tool_client(serve, mode) as (client, recorder):
        assert client.protocol_version.startswith(revision)
        await call(client)
    assert (action, resource, context) in recorder.judged()
    assert recorder.refused() == []


@MODES
@pytest.mark.parametrize("region", ["eu", "é", " eu ", "=?base64?ZXU=?="])
async def test_a_mirrored_argument_of_the_mcp_client_agrees_with_its_body(
    serve: Callable[[ASGIApp], str], mode: str, revision: str, region: str
) -> None:
    async with tool_client(serve, mode) as (client, recorder):
        await client.list_tools()
        await client.call_tool("query", {"region": region})
    assert recorder.judged()[-1] == (Action.CALL_TOOL, "demo/it/query", {"arguments": {"region": region}})
    assert recorder.refused() == []
    sent = [request for request in recorder.requests if b'"tools/call"' in request.body]
    assert [len(request.values("mcp-param-region")) for request in sent] == [1 if revision == "2026" else 0]


@pytest.mark.filterwarnings("ignore:.*2026-07-28:mcp.shared.exceptions.MCPDeprecationWarning")
async def test_the_care_of_an_mcp_session_keeps_the_protocol_going(serve: Callable[[ASGIApp], str]) -> None:
    async with tool_client(serve, "legacy") as (client, recorder):
        await client.send_ping()
        await client.send_roots_list_changed()
    assert recorder.refused() == []
    assert recorder.judged() == []
    assert {request.method for request in recorder.requests} >= {"POST", "DELETE"}


# A2A


class Agency:
    """An agent that gives its card and answers every question with an error of its own."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.url = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        message = await receive()
        error = {"code": -32050, "message": "not now"}
        body = self.card() if scope["method"] == "GET" else {"jsonrpc": "2.0", "id": json.loads(message["body"])["id"], "error": error}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    def card(self) -> dict[str, Any]:
        card: dict[str, Any] = {
            "name": "it",
            "description": "d",
            "version": "1",
            "capabilities": {"streaming": True, "pushNotifications": True, "extendedAgentCard": True},
            "defaultInputModes": ["text/plain"],
            "defaultOutputModes": ["text/plain"],
            "skills": [{"id": "f", "name": "f", "description": "d", "tags": ["x"]}],
        }
        if self.version == "1.0":
            return card | {"supportedInterfaces": [{"url": self.url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}]}
        old = {"url": self.url, "preferredTransport": "JSONRPC", "protocolVersion": "0.3.0"}
        return card | old | {"supportsAuthenticatedExtendedCard": True}


async def _send(client: AgentClient) -> None:
    question = a2a.SendMessageRequest(message=new_text_message("hello", role=a2a.Role.ROLE_USER))
    async for _ in client.send_message(question):
        pass


async def _subscribe(client: AgentClient) -> None:
    async for _ in client.subscribe(a2a.SubscribeToTaskRequest(id="t")):
        pass


@contextlib.asynccontextmanager
async def agent_client(
    serve: Callable[[ASGIApp], str], version: str, *, streaming: bool = False, target: str | None = None
) -> AsyncIterator[tuple[AgentClient, Recorder]]:
    agency = Agency(version)
    recorder = Recorder(agency, A2A)
    agency.url = serve(recorder)
    push = a2a.TaskPushNotificationConfig(url=target) if target is not None else None
    async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
        config = ClientConfig(httpx_client=http, streaming=streaming, push_notification_config=push)
        yield await create_client(agency.url, config), recorder


VERSIONS = pytest.mark.parametrize("version", ["0.3", "1.0"])
CARE: dict[str, Callable[[AgentClient], Awaitable[object]]] = {
    "get a task": lambda c: c.get_task(a2a.GetTaskRequest(id="t")),
    "cancel a task": lambda c: c.cancel_task(a2a.CancelTaskRequest(id="t")),
    "subscribe to a task": _subscribe,
    "get a push target": lambda c: c.get_task_push_notification_config(a2a.GetTaskPushNotificationConfigRequest(task_id="t", id="p")),
    "list push targets": lambda c: c.list_task_push_notification_configs(a2a.ListTaskPushNotificationConfigsRequest(task_id="t")),
    "delete a push target": lambda c: c.delete_task_push_notification_config(
        a2a.DeleteTaskPushNotificationConfigRequest(task_id="t", id="p")
    ),
    "the extended card": lambda c: c.get_extended_agent_card(a2a.GetExtendedAgentCardRequest()),
}


@VERSIONS
@pytest.mark.parametrize("call", CARE.values(), ids=CARE)
async def test_the_a2a_client_s_care_of_tasks_keeps_the_protocol_going(
    serve: Callable[[ASGIApp], str], version: str, call: Callable[[AgentClient], Awaitable[object]]
) -> None:
    async with agent_client(serve, version, streaming=True) as (client, recorder):
        with pytest.raises(A2AClientError):
            await call(client)
    assert recorder.refused() == []
    assert recorder.judged() == []
    assert [request.method for request in recorder.requests] == ["GET", "POST"]


@VERSIONS
@pytest.mark.parametrize(("streaming", "kind"), [(False, "Send"), (True, "Stream")], ids=["send", "stream"])
async def test_the_a2a_client_s_message_is_understood_and_refused_only_with_a_push_target(
    serve: Callable[[ASGIApp], str], version: str, streaming: bool, kind: str
) -> None:
    async with agent_client(serve, version, streaming=streaming) as (client, recorder):
        with pytest.raises(A2AClientError):
            await _send(client)
    assert recorder.judged() == [(Action.SEND_MESSAGE, "demo/it", {"message": {"kind": kind}})]
    assert recorder.refused() == []
    async with agent_client(serve, version, streaming=streaming, target="https://evil.example") as (client, recorder):
        with pytest.raises(A2AClientError):
            await _send(client)
    assert [reason for reason, _ in recorder.refused()] == [Reason.UNKNOWN_OPERATION]
    assert recorder.judged() == []


@VERSIONS
async def test_the_a2a_client_s_setting_of_a_push_target_is_refused(serve: Callable[[ASGIApp], str], version: str) -> None:
    target = a2a.TaskPushNotificationConfig(task_id="t", url="https://evil.example")
    async with agent_client(serve, version) as (client, recorder):
        with pytest.raises(A2AClientError):
            await client.create_task_push_notification_config(target)
    assert [reason for reason, _ in recorder.refused()] == [Reason.UNKNOWN_OPERATION]


async def test_the_a2a_client_s_list_of_tasks_keeps_the_protocol_going(serve: Callable[[ASGIApp], str]) -> None:
    async with agent_client(serve, "1.0") as (client, recorder):
        with pytest.raises(A2AClientError):
            await client.list_tasks(a2a.ListTasksRequest())
    assert recorder.refused() == []
    assert b'"ListTasks"' in recorder.requests[-1].body
