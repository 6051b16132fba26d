"""What stands for the outside world: HTTP servers on loopback that keep what they were sent."""

from __future__ import annotations

import json
import ssl
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


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
