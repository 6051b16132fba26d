"""A million inputs: each parser gives a value or one of its errors, whatever is done to what real ones look like."""

from __future__ import annotations

import contextlib
import random
import ssl
from collections.abc import Callable, Sequence

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

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


def _real_stream() -> bytes:
    """What Python's TLS begins with."""
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="api.example.com")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def _real_datagrams() -> list[bytes]:
    """What a QUIC client begins with."""
    client = QuicConnection(configuration=QuicConfiguration(alpn_protocols=["h3"], server_name="api.example.com"))
    client.connect(("192.0.2.7", 443), now=0.0)
    return [data for data, _ in client.datagrams_to_send(now=0.0)]


BODIES = (
    hellos.browser_body(),
    hellos.body(None),
    hellos.body([(0xFE0D, b"\0" + bytes(40)), (0, hellos.name_extension(b"example.com")), (16, hellos.alpn_extension(b"h3", b"h2"))]),
)
MESSAGE = hellos.message(BODIES[0])
STREAMS = (*(hellos.records(hellos.message(body), size) for body in BODIES for size in (40, 16384)), _real_stream())
FRAMES = (
    crypto(0, MESSAGE),
    crypto(100, MESSAGE[100:]) + b"\x01" + bytes(30) + b"\x02\x05\x00\x01\x01\x00\x00" + crypto(0, MESSAGE[:100]),
    hellos.QUIC_CRYPTO_FRAME + bytes(60),
)
DATAGRAMS = (
    *_real_datagrams(),
    initial(FRAMES[0]),
    initial(FRAMES[1], version=VERSION_2, token=b"token"),
    other_packet(2) + initial(FRAMES[2]) + bytes(20),
)
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


def _streams(data: bytes, _: random.Random) -> bool:
    try:
        hello = tls_stream.read(data)
    except (HelloError, PieceError):
        return False
    return hello is not None and len(ja4(hello, quic=False)) == 36


def _bodies(data: bytes, _: random.Random) -> bool:
    try:
        hello = client_hello.read(data)
    except HelloError:
        return False
    assert hello.server_name.isprintable()
    return len(ja4(hello, quic=True)) == 36


def _frames(data: bytes, rng: random.Random) -> bool:
    """Sealed, so that what was changed is what is read."""
    try:
        return bool(QuicFlow(0).add(initial(data, version=rng.choice((VERSION_1, VERSION_2)))))
    except (QuicError, HelloError, PieceError):
        return False


def _datagrams(data: bytes, _: random.Random) -> bool:
    try:
        return bool(QuicFlow(0).add(data))
    except (QuicError, HelloError, PieceError):
        return False


def _answers(data: bytes, rng: random.Random) -> bool:
    try:
        found = dns_answer.read(data, cut=rng.random() < 0.2)
    except AnswerError:
        return False
    assert found.name.isprintable()
    assert len(found.addresses) <= dns_answer.MAX_RECORDS
    return True


Read = Callable[[bytes, random.Random], bool]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("read", "bases", "seed"),
    [
        (_streams, STREAMS, 1),
        (_streams, STREAMS, 2),
        (_bodies, BODIES, 3),
        (_bodies, BODIES, 4),
        (_frames, FRAMES, 5),
        (_datagrams, DATAGRAMS, 6),
        (_datagrams, DATAGRAMS, 7),
        (_answers, ANSWERS, 8),
        (_answers, ANSWERS, 9),
    ],
    ids=["streams 1", "streams 2", "bodies 1", "bodies 2", "frames", "datagrams 1", "datagrams 2", "answers 1", "answers 2"],
)
def test_a_hundred_thousand_inputs_give_a_value_or_an_error(read: Read, bases: Sequence[bytes], seed: int) -> None:
    """With the hundred thousand below these are a million. One in fifty must still be read, else only first checks were tried."""
    rng = random.Random(seed)
    found = 0
    for _ in range(INPUTS):
        data = mutated(rng, rng.choice(bases))
        try:
            found += read(data, rng)
        except Exception as error:
            raise AssertionError(f"{read.__name__} of {data.hex()}") from error
    assert INPUTS // 50 < found < INPUTS


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
