"""Both ends of an HTTP/2 hop without TLS: one request a connection, with trailers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

from tests.http_ends import Upstream

Headers = tuple[tuple[str, str], ...]


@dataclass(slots=True, kw_only=True)
class Message:
    """A request or a response. Pseudo-headers are among the headers."""

    headers: Headers = ()
    body: bytes = b""
    trailers: Headers = ()


async def request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: Message) -> Message:
    """Send one request, read its response. Raises AssertionError when the stream is reset."""
    connection = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
    connection.initiate_connection()
    _send(connection, 1, message)
    writer.write(connection.data_to_send())
    return (await _read(connection, reader, writer))[1]


@dataclass(slots=True)
class Answering:
    """An upstream's part that answers one request a connection with a body and a trailer, and keeps what it got."""

    received: list[Message] = field(default_factory=list)

    async def __call__(self, _: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False, validate_inbound_headers=False))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        stream, message = await _read(connection, reader, writer)
        self.received.append(message)
        _send(connection, stream, Message(headers=((":status", "200"),), body=b"answer", trailers=(("grpc-status", "0"),)))
        writer.write(connection.data_to_send())
        await writer.drain()
        await reader.read()


def _send(connection: H2Connection, stream: int, message: Message) -> None:
    connection.send_headers(stream, message.headers, end_stream=not message.body and not message.trailers)
    if message.body:
        connection.send_data(stream, message.body, end_stream=not message.trailers)
    if message.trailers:
        connection.send_headers(stream, message.trailers, end_stream=True)


async def _read(connection: H2Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, Message]:
    message = Message()
    while True:
        data = await reader.read(1 << 16)
        assert data, "the connection ended before the message"
        for event in connection.receive_data(data):
            match event:
                case RequestReceived() | ResponseReceived():
                    message.headers = _text(event.headers)
                case DataReceived():
                    message.body += event.data
                case TrailersReceived():
                    message.trailers = _text(event.headers)
                case StreamReset():
                    raise AssertionError(f"the stream was reset: {event.error_code}")
                case StreamEnded():
                    return event.stream_id, message
                case _:
                    pass
        writer.write(connection.data_to_send())


def _text(headers: object) -> Headers:
    assert isinstance(headers, list)
    decoded = ((_str(name), _str(value)) for name, value in headers)
    return tuple(decoded)


def _str(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode()
