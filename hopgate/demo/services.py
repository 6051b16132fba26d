"""The demo's outside world: an MCP server with tickets, and a model API over TLS that wants a key.

Started as `python -m hopgate.demo.services NAME=IP:PORT…`; runs until ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

TICKETS = {1: "login fails on Monday", 2: "login is slow", 3: "the logo is blue"}


def tickets_app() -> Starlette:
    """An MCP server with the tools `search` and `delete`."""
    server = MCPServer("tickets", log_level="WARNING")

    @server.tool()
    def search(text: str, limit: int) -> str:
        """Tickets whose text contains `text`, at most `limit`."""
        return "; ".join([f"#{number} {title}" for number, title in TICKETS.items() if text in title][:limit]) or "none"

    @server.tool()
    def delete(id: int) -> str:  # noqa: A002 - the tool's own argument name
        """Delete a ticket."""
        return f"deleted #{id}"

    return server.streamable_http_app(
        transport_security=TransportSecuritySettings(allowed_hosts=["tickets.demo.svc", "tickets.demo.svc:*", "127.0.0.1:*"])
    )


def model_app(key: str) -> Starlette:
    """A chat completions API that refuses any key but its own."""

    async def chat(request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {key}":
            return JSONResponse({"error": {"message": "wrong key", "type": "invalid_request_error"}}, status_code=401)
        body = await request.json()
        text = f"{body['model']} says: begin with the oldest ticket"
        if body.get("stream"):
            return StreamingResponse(_chunks(body["model"], text), media_type="text/event-stream")
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return JSONResponse({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]})

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


async def _chunks(model: str, text: str) -> AsyncIterator[str]:
    for word in text.split():
        delta = {"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}
        chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [delta]}
        yield f"data: {json.dumps(chunk)}\n\n"
        await asyncio.sleep(0)
    yield "data: [DONE]\n\n"


def _server(name: str, folder: Path) -> uvicorn.Server:
    if name == "tickets":
        return uvicorn.Server(uvicorn.Config(tickets_app(), log_level="error"))
    app = model_app((folder / "model-key").read_text().strip())
    files = (folder / "certificate.pem", str(folder / "key.pem"))
    return uvicorn.Server(uvicorn.Config(app, log_level="error", ssl_certfile=files[0], ssl_keyfile=files[1]))


async def serve(folder: Path, places: dict[str, tuple[str, int]], ports: Path | None) -> None:
    """Serve each at its place until cancelled; `ports` is written when all listen."""
    sockets = {name: socket.create_server(place) for name, place in places.items()}
    servers = [_server(name, folder) for name in places]
    if ports is not None:
        partial = ports.with_suffix(".new")
        partial.write_text(json.dumps({name: listening.getsockname()[1] for name, listening in sockets.items()}))
        partial.rename(ports)
    await asyncio.gather(*(server.serve([listening]) for server, listening in zip(servers, sockets.values(), strict=True)))


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(prog="python -m hopgate.demo.services", description="The demo's outside world.")
    parser.add_argument("services", nargs="+", metavar="NAME=IP:PORT", help="`tickets` or `model`, and where it listens")
    parser.add_argument("--folder", type=Path, default=Path(), help="holds the model API's `certificate.pem`, `key.pem` and `model-key`")
    parser.add_argument("--ports", type=Path, help="a file that is written when all listen: the port of each, as JSON")
    given = parser.parse_args()
    places = {}
    for service in given.services:
        name, _, place = service.partition("=")
        address, _, port = place.rpartition(":")
        places[name] = (address, int(port))
    asyncio.run(serve(given.folder, places, given.ports))


if __name__ == "__main__":
    main()
