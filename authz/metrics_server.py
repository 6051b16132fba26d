"""Metrics over HTTP for Prometheus: one page, in the process's own loop. Without TLS: nothing in it is a secret.

Whoever reaches the port can ask, so what one asker can hold is bounded: connections at a time, a request's length and time. Each
connection has one answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from hopgate.listening import listen, place

PATH: Final = b"/metrics"
MAX_CONNECTIONS: Final = 16
REQUEST_BYTES: Final = 8192
REQUEST_SECONDS: Final = 5.0


class MetricsServer:
    """Answers at `address` (`IP:PORT`, port 0 for any) with what `render` gives, from `start` to `stop`."""

    def __init__(self, render: Callable[[], bytes], content_type: str, address: str) -> None:
        self._render = render
        self._content_type = content_type
        self._address = address
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Answer from now on. Raises OSError when the address can't be had."""
        self._server = await asyncio.start_server(self._accept, sock=listen(*place(self._address)), limit=REQUEST_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Answer no longer, open connections neither. Does nothing before `start`."""
        if self._server is None:
            return
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await self._server.wait_closed()
        self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    asked = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(asked))
                    await writer.drain()
            finally:
                writer.close()

    def _answer(self, asked: bytes) -> bytes:
        method, _, rest = asked.partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path != PATH:
            return _response("404 Not Found", "text/plain; charset=utf-8", b"expected /metrics\n")
        if method != b"GET":
            return _response("405 Method Not Allowed", "text/plain; charset=utf-8", b"expected GET\n")
        return _response("200 OK", self._content_type, self._render())


def _response(status: str, content_type: str, body: bytes) -> bytes:
    """HTTP/1.1 (RFC 9112), and the end of the connection."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
