"""Both ends of an HTTP hop, in raw bytes: a server that keeps what it got, and a reader of responses."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Upstream:
    """A TCP server on the loopback interface of Envoy's namespace. It counts connections and keeps what it received.

    `answer` is called with each connection; the default reads one HTTP/1.1 request and answers 200.
    """

    answer: Callable[[Upstream, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None
    tls: ssl.SSLContext | None = None
    address: str = "127.0.0.1"
    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    response_headers: tuple[tuple[str, str], ...] = ()
    _server: asyncio.Server | None = None

    @property
    def dial(self) -> str:
        return f"{self.address}:{self.port}"

    async def start(self, listener: socket.socket | None = None) -> None:
        if listener is not None:
            self._server = await asyncio.start_server(self._serve, sock=listener, ssl=self.tls)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await (self.answer or _answer_ok)(self, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # Envoy or the client went away, as some tests want it to
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One HTTP/1.1 request, head and body, as it came."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.split(b":", 1) for line in head.lower().split(b"\r\n")[1:] if b":" in line)
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        body = b""
        while True:
            size = await reader.readuntil(b"\r\n")
            chunk = await reader.readexactly(int(size, 16) + 2)
            body += chunk[:-2]
            if int(size, 16) == 0:
                return head + body
    return head + await reader.readexactly(int(fields.get(b"content-length", b"0")))


async def _answer_ok(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        upstream.requests.append(await read_request(reader))
        extra = "".join(f"{name}: {value}\r\n" for name, value in upstream.response_headers)
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{extra}\r\nok".encode())
        await writer.drain()


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An HTTP/1.1 response as it came."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


def parse_response(data: bytes) -> Response:
    """Raises AssertionError for anything but a whole response that ended with the connection."""
    head, separator, body = data.partition(b"\r\n\r\n")
    assert separator, f"no response: {data[:200]!r}"
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
    if dict(headers).get("transfer-encoding") == "chunked":
        body = _dechunked(body)
    return Response(status=int(first.split(" ")[1]), headers=headers, body=body)


async def read_response(reader: asyncio.StreamReader) -> Response:
    """A response with a content-length, read no further than its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(parse_response(head).header("content-length") or 0)
    return parse_response(head + await reader.readexactly(length))


def _dechunked(data: bytes) -> bytes:
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        if int(size, 16) == 0:
            return body
        body += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]
