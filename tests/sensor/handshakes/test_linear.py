"""What is made to be expensive costs as much as it is long: twice the input, at most twice the steps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from sensor.handshakes import client_hello, dns_answer, http_head, quic_packet, tls_stream
from sensor.handshakes.errors import HandshakeError
from sensor.handshakes.tls_stream import TlsStream
from tests.sensor.handshakes import hellos
from tests.sensor.handshakes.dns_messages import header, labels, question, record

# Beside what grows with the input there is what does not, so a ratio is a little off two.
MOST = 2.1


def _lines(read: Callable[[], object]) -> int:
    """How many lines of Python run."""
    count = 0

    def step(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        read()
    except HandshakeError:
        pass
    finally:
        sys.settrace(before)
    return count


def _extensions(size: int) -> object:
    return client_hello.read(hellos.body([(kind, b"") for kind in range(100, 100 + size)]))


def _protocols(size: int) -> object:
    return client_hello.read(hellos.body([(16, hellos.alpn_extension(*[b"x"] * size))]))


def _records(size: int) -> object:
    return tls_stream.read(hellos.records(hellos.message(bytes(size)), 1))


def _pieces(size: int) -> object:
    stream, data = TlsStream(0), hellos.records(hellos.message(bytes(2 * size)))
    return [stream.add(at, data[at : at + 1]) for at in range(size)]


def _frames(size: int) -> object:
    return list(quic_packet.crypto_pieces(b"\x01\x00" * size))


def _ranges(size: int) -> object:
    return list(quic_packet.crypto_pieces(b"\x02\x00\x00" + (size | 1 << 14).to_bytes(2, "big") + bytes(1 + 2 * size)))


def _answers(size: int) -> object:
    """Each name ends in a pointer to the longest one."""
    longest = labels(*[b"a"] * 120)
    return dns_answer.read(header(answers=size) + longest + b"\0\1\0\1" + b"".join(record(b"\xc0\x0c", 1, bytes(4)) for _ in range(size)))


def _pointers(size: int) -> object:
    """Each pointer leads to the one before it."""
    asked = question(b"a")
    owners = [12, *(12 + len(asked) + 13 * number for number in range(size))]
    chain = b"".join(record((0xC000 | owner).to_bytes(2, "big"), 99, b"\0") for owner in owners[:size])
    return dns_answer.read(header(answers=size) + asked + chain)


def _headers(size: int) -> object:
    return http_head.read(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * size + b"\r\n")


@pytest.mark.parametrize(
    "read",
    [_extensions, _protocols, _records, _pieces, _frames, _ranges, _answers, _headers],
    ids=lambda read: read.__name__[1:],
)
def test_twice_the_input_takes_at_most_twice_the_steps(read: Callable[[int], object]) -> None:
    size = 30 if read in (_answers, _headers) else 1000
    assert _lines(lambda: read(2 * size)) <= MOST * _lines(lambda: read(size))


def test_pointers_to_pointers_are_followed_for_a_bounded_number_of_steps() -> None:
    """64 records, each name with 144 steps at the most; a chain that grows by one with each record stays far below."""
    assert _lines(lambda: _pointers(32)) < _lines(lambda: _pointers(64)) < 64 * 144 * 3
    assert _lines(lambda: _pointers(128)) < 2 * _lines(lambda: _pointers(64))


@pytest.mark.parametrize("read", [_answers, _headers], ids=["records", "headers"])
def test_past_their_bounds_more_of_them_cost_nothing(read: Callable[[int], object]) -> None:
    assert _lines(lambda: read(400)) <= 1.5 * _lines(lambda: read(200))
