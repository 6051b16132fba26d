"""CPU to read first bytes, each kind alone, medians of several thousand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from bench.by_part import timed
from bench.figures import Figure
from sensor.events import Kind, Payload
from sensor.handshakes import client_hello
from sensor.handshakes.first_bytes import FirstBytes
from sensor.handshakes.ja4 import ja4
from tests.sensor.handshakes import hellos
from tests.sensor.handshakes.dns_messages import answer
from tests.sensor.handshakes.payloads import payload
from tests.sensor.handshakes.quic_datagrams import crypto, initial

# About as long as the hello of a browser with a post-quantum key share.
_PADDING = (21, bytes(1170))
_REQUEST = (
    b"POST /mcp HTTP/1.1\r\nhost: tools.example.com\r\naccept: application/json, text/event-stream\r\n"
    b"mcp-protocol-version: 2025-06-18\r\n\r\n"
)


def measure() -> list[Figure]:
    body = hellos.browser_body(extra=[_PADDING])
    hello = client_hello.read(body)
    stream = hellos.records(hellos.message(body))
    name = "api.example.com"
    answered = answer(name, [f"{name} 60 CNAME cdn.example.net", *(f"cdn.example.net 60 A 192.0.2.{last}" for last in range(4))])
    return [
        Figure(what=f"hello of {len(stream)} bytes: read", value=timed(lambda: client_hello.read(body))),
        Figure(what="  its JA4", value=timed(lambda: ja4(hello, quic=False))),
        Figure(what="  whole, payload to value", value=timed(_taken(Kind.TLS, stream))),
        Figure(what="QUIC Initial of 1,200 bytes, payload to value", value=timed(_taken(Kind.QUIC, initial(hellos.QUIC_PAYLOAD)))),
        Figure(what="  whose hello is not whole", value=timed(_taken(Kind.QUIC, initial(crypto(9, hellos.QUIC_PAYLOAD[:1150]))))),
        Figure(what="DNS answer: an alias, four addresses, payload to value", value=timed(_taken(Kind.DNS, answered))),
        Figure(what="HTTP head of MCP, payload to value", value=timed(_taken(Kind.HTTP, _REQUEST))),
    ]


def _taken(kind: Kind, data: bytes) -> Callable[[], object]:
    """Each time as a stream of its own."""
    taken = FirstBytes()
    payloads: Iterator[Payload] = (payload(kind, data, cookie=cookie) for cookie in itertools.count())
    ready = list(itertools.islice(payloads, 3300))

    def take() -> object:
        return taken.take(ready.pop())

    return take
