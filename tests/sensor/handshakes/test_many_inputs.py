"""A million inputs: each parser gives a value or one of its errors, whatever is done to what real ones look like."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from sensor.events import Kind
from sensor.handshakes import client_hello, dns_answer, tls_stream
from sensor.handshakes.errors import AnswerError, HelloError, PieceError, QuicError
from sensor.handshakes.first_bytes import FirstBytes
from sensor.handshakes.ja4 import ja4
from sensor.handshakes.quic_flow import QuicFlow
from sensor.handshakes.quic_keys import VERSION_1, VERSION_2
from tests.sensor.handshakes import hellos
from tests.sensor.handshakes.dns_messages import answer
from tests.sensor.handshakes.payloads import payload
from tests.sensor.handshakes.quic_datagrams import crypto, initial, other_packet

INPUTS = 100_000
BODIES = (
    hellos.browser_body(),
    hellos.body(None),
    hellos.body([(0xFE0D, b"\0" + bytes(40)), (0, hellos.name_extension(b"example.com")), (16, hellos.alpn_extension(b"h3", b"h2"))]),
)
MESSAGE = hellos.message(BODIES[0])
STREAMS = tuple(hellos.records(hellos.message(body), size) for body in BODIES for size in (40, 16384))
FRAMES = (
    crypto(0, MESSAGE),
    crypto(100, MESSAGE[100:]) + b"\x01" + bytes(30) + b"\x02\x05\x00\x01\x01\x00\x00" + crypto(0, MESSAGE[:100]),
    hellos.QUIC_CRYPTO_FRAME + bytes(60),
)
DATAGRAMS = (initial(FRAMES[0]), initial(FRAMES[1], version=VERSION_2, token=b"token"), other_packet(2) + initial(FRAMES[2]) + bytes(20))
ANSWERS = (
    answer("api.example.com", ["api.example.com 60 A 192.0.2.7", "api.example.com 60 AAAA 2001:db8::7"]),
    answer(
        "api.example.com",
        ["api.example.com 9 CNAME cdn.example.net", "cdn.example.net 9 CNAME e.example.net", "e.example.net 9 A 192.0.2.7"],
    ),
    answer("no.example.com", [], code=3),
    answer("example.com", ["example.com 60 TXT text", "example.com 60 HTTPS 1 . alpn=h2"], kind="HTTPS"),
)
_BYTES = (0, 1, 2, 3, 5, 6, 0x0A, 0x16, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xFE, 0xFF)


def mutated(rng: random.Random, data: bytes) -> bytes:
    """One to four changes: a byte, a number of two bytes, a piece left out, doubled, moved or made up, an end cut off."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(found) + 1)
        to = min(len(found), at + rng.randint(0, 40))
        match rng.randrange(24):
            case 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9:
                found[at : at + 1] = bytes([rng.choice(_BYTES)])
            case 10 | 11 | 12 | 13:
                found[at : at + 2] = rng.randrange(1 << 16).to_bytes(2, "big")
            case 14 | 15 | 16:
                del found[at:to]
            case 17 | 18 | 19:
                found[at:at] = found[at:to]
            case 20 | 21 | 22:
                found[at:at] = rng.randbytes(rng.randint(1, 20))
            case _:
                del found[at:]
    return bytes(found)


def _streams(rng: random.Random) -> bool:
    try:
        hello = tls_stream.read(mutated(rng, rng.choice(STREAMS)))
    except (HelloError, PieceError):
        return False
    return hello is not None and len(ja4(hello, quic=False)) == 36


def _bodies(rng: random.Random) -> bool:
    try:
        hello = client_hello.read(mutated(rng, rng.choice(BODIES)))
    except HelloError:
        return False
    assert hello.server_name.isprintable()
    return len(ja4(hello, quic=True)) == 36


def _sealed(rng: random.Random) -> bool:
    try:
        return bool(QuicFlow(0).add(initial(mutated(rng, rng.choice(FRAMES)), version=rng.choice((VERSION_1, VERSION_2)))))
    except (QuicError, HelloError, PieceError):
        return False


def _datagrams(rng: random.Random) -> bool:
    try:
        return bool(QuicFlow(0).add(mutated(rng, rng.choice(DATAGRAMS))))
    except (QuicError, HelloError, PieceError):
        return False


def _answers(rng: random.Random) -> bool:
    try:
        found = dns_answer.read(mutated(rng, rng.choice(ANSWERS)), cut=rng.random() < 0.2)
    except AnswerError:
        return False
    assert found.name.isprintable()
    assert len(found.addresses) <= dns_answer.MAX_RECORDS
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("read", "seed"),
    [
        (_streams, 1),
        (_streams, 2),
        (_bodies, 3),
        (_bodies, 4),
        (_sealed, 5),
        (_datagrams, 6),
        (_datagrams, 7),
        (_answers, 8),
        (_answers, 9),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else str(value),
)
def test_a_hundred_thousand_inputs_give_a_value_or_an_error(read: Callable[[random.Random], bool], seed: int) -> None:
    """With the facade's hundred thousand these are a million. Some must still be read, else only the first check of all was tried."""
    rng = random.Random(seed)
    found = sum(read(rng) for _ in range(INPUTS))
    assert 0 < found < INPUTS


@pytest.mark.slow
def test_a_hundred_thousand_payloads_never_raise_and_keep_their_bounds() -> None:
    rng = random.Random(10)
    taken = FirstBytes()
    given = (
        (Kind.TLS, STREAMS),
        (Kind.QUIC, DATAGRAMS),
        (Kind.DNS, ANSWERS),
        (Kind.HTTP, (b"POST /mcp HTTP/1.1\r\nHost: a.example\r\n\r\n",)),
    )
    for number in range(INPUTS):
        kind, bases = rng.choice(given)
        data = mutated(rng, rng.choice(bases))
        cut = rng.randrange(len(data) + 1)
        for sequence, piece in ((0, data[:cut]), (cut, data[cut:])):
            taken.take(payload(kind, piece, cookie=rng.randrange(20_000), sequence=sequence, time_ns=number * 100_000))
    assert 0 < taken.counters.seen < 2 * INPUTS
