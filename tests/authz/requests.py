"""Builders of check inputs: each test says only what it is about."""

from __future__ import annotations

import json
from typing import Any

from authz.request import CheckInput, Direction, HttpRequest, SocketAddress
from hopgate.snapshot import Snapshot

AGENT_SOCKET = SocketAddress(ip="192.0.2.2", port=40_000)


def http(
    *,
    host: str,
    path: str = "/",
    method: str = "POST",
    body: bytes | dict[str, Any] | list[Any] = b"",
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),),
    body_complete: bool = True,
) -> HttpRequest:
    """An HTTP request as Envoy describes it; a mapping as body is written as JSON."""
    return HttpRequest(
        method=method,
        scheme="http",
        unverified_host=host,
        path=path,
        headers=headers,
        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        body_complete=body_complete,
    )


def outbound(
    snapshot: Snapshot, request: HttpRequest, *, to: str | None = None, port: int | None = None, sni: str | None = None
) -> CheckInput:
    """The check of an outbound request, sent to the virtual address of `to` (default: the host that it names)."""
    endpoint = snapshot.registry.by_host[to or request.unverified_host.partition(":")[0]]
    destination = SocketAddress(ip=endpoint.address, port=endpoint.port if port is None else port)
    return CheckInput(request_id="r1", direction=Direction.OUTBOUND, source=AGENT_SOCKET, destination=destination, sni=sni, http=request)


def connection(snapshot: Snapshot, *, to: str, sni: str | None) -> CheckInput:
    """The check of a connection that is not HTTP."""
    endpoint = snapshot.registry.by_host[to]
    destination = SocketAddress(ip=endpoint.address, port=endpoint.port)
    return CheckInput(request_id="", direction=Direction.OUTBOUND, source=AGENT_SOCKET, destination=destination, sni=sni, http=None)


def tool_call(name: str, arguments: dict[str, Any], identifier: int | str = 1) -> dict[str, Any]:
    """The body of an MCP `tools/call`."""
    return {"jsonrpc": "2.0", "id": identifier, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


def message(method: str = "SendMessage", identifier: int | str = 1) -> dict[str, Any]:
    """The body of an A2A message."""
    part = {"text": "hello"}
    return {
        "jsonrpc": "2.0",
        "id": identifier,
        "method": method,
        "params": {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [part]}},
    }


def chat(model: str, **more: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], **more}
