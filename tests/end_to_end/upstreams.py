"""What stands for the outside world: HTTP servers on loopback that keep what they were sent, and one that waits to be heard."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as it arrived. `headers` are in order, names in lower case."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


class Upstream:
    """A server that answers every request with 200 and JSON, and keeps it. With `certificate` it speaks TLS."""

    def __init__(self, certificate: tuple[Path, Path] | None = None, answer: dict[str, Any] | None = None) -> None:
        body_of_answer = json.dumps(answer or {"jsonrpc": "2.0", "id": 1, "result": {"upstream": True}}).encode()
        self.received: list[Received] = []
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                return

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = tuple((name.lower(), value) for name, value in self.headers.items())
                upstream.received.append(Received(method=self.command, path=self.path, headers=headers, body=body))
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body_of_answer)))
                self.end_headers()
                self.wfile.write(body_of_answer)

            do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 - the names that http.server calls

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Steps:
    """An MCP server whose tool `count` tells each step only after `acknowledge` was called for the step before.

    A client that acknowledges what it sees comes to the end only where nothing on the way holds a step back.
    """

    def __init__(self) -> None:
        server = MCPServer("steps", log_level="WARNING")
        acknowledged = asyncio.Semaphore(0)

        @server.tool()
        async def count(to: int, context: Context[Any]) -> str:
            for number in range(1, to + 1):
                await context.report_progress(number, to)
                await acknowledged.acquire()
            return f"counted to {to}"

        @server.tool()
        async def acknowledge() -> str:
            acknowledged.release()
            return "go on"

        app = server.streamable_http_app(
            transport_security=TransportSecuritySettings(allowed_hosts=["steps.demo.svc", "steps.demo.svc:*", "127.0.0.1:*"])
        )
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve([listening])), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
