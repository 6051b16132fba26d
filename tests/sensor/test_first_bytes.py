"""What first bytes say, and that no bytes are an error."""

from __future__ import annotations

import itertools
import random
import ssl

import dns.message
import dns.rrset
import pytest

from sensor import first_bytes
from sensor.events import Kind, Payload
from sensor.first_bytes import Answer, FirstBytes, Hello, Request


def hello_of(name: str) -> bytes:
    """The first bytes of a TLS connection for `name`, by Python's own TLS."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    made = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        made.do_handshake()
    return outgoing.read()


def payload(data: bytes, *, kind: Kind = Kind.TLS, sequence: int = 1000, cookie: int = 1) -> Payload:
    return Payload(kind=kind, time_ns=0, data=data, sequence=sequence, cookie=cookie)


@pytest.mark.parametrize("cuts", [(), (3,), (1, 2, 3, 9), (100, 300)])
@pytest.mark.parametrize("start", [1000, 2**32 - 50])
def test_a_hello_in_pieces_in_any_order_and_twice(cuts: tuple[int, ...], start: int) -> None:
    data = hello_of("api.openai.com")
    edges = (0, *cuts, len(data))
    pieces = [payload(data[low:high], sequence=(start + low) % 2**32) for low, high in itertools.pairwise(edges)]
    reader = FirstBytes()
    # The first piece names the stream's beginning; those behind it may come in any order.
    given = [pieces[0], *random.Random(3).sample(pieces[1:], len(pieces) - 1)]
    found = [reader.read(piece) for piece in given]
    assert found[-1] == Hello(server_name="api.openai.com")
    assert found[:-1] == [None] * (len(pieces) - 1)


def test_a_piece_that_is_missing_gives_no_name() -> None:
    data = hello_of("api.openai.com")
    reader = FirstBytes()
    assert [reader.read(payload(data[:50])), reader.read(payload(data[100:], sequence=1100))] == [None, None]
    assert reader.read(payload(data[50:100], sequence=1050)) == Hello(server_name="api.openai.com")


def test_pieces_of_two_sockets_are_not_mixed() -> None:
    one, other = hello_of("one.example.com"), hello_of("other.example.com")
    reader = FirstBytes()
    reader.read(payload(one[:60], cookie=1))
    reader.read(payload(other[:60], cookie=2))
    assert reader.read(payload(one[60:], cookie=1, sequence=1060)) == Hello(server_name="one.example.com")
    assert reader.read(payload(other[60:], cookie=2, sequence=1060)) == Hello(server_name="other.example.com")


def test_a_request() -> None:
    text = b"POST /api/chat HTTP/1.1\r\nHost: a\r\nAccept : x\r\nhost: b\r\n\r\nbody: c"
    assert first_bytes.request(text) == Request(method="POST", target="/api/chat", headers={"host": "a", "accept ": "x"})
    assert first_bytes.request(b"PRI * HTTP/2.0\r\n\r\n") is None
    assert first_bytes.request(b"GET /") is None


def test_an_answer() -> None:
    asked = dns.message.make_query("API.OpenAI.com", "A")
    made = dns.message.make_response(asked)
    made.answer.append(dns.rrset.from_text("api.openai.com.", 60, "IN", "CNAME", "edge.example.net."))
    made.answer.append(dns.rrset.from_text("edge.example.net.", 60, "IN", "A", "192.0.2.1"))
    made.answer.append(dns.rrset.from_text("edge.example.net.", 60, "IN", "AAAA", "2001:db8::1"))
    expected = Answer(name="api.openai.com", addresses=("192.0.2.1", "2001:db8::1"))
    assert first_bytes.answer(made.to_wire()) == expected
    assert first_bytes.answer(asked.to_wire()) is None


def test_any_bytes_give_a_value_or_nothing() -> None:
    rng = random.Random(11)
    made = dns.message.make_response(dns.message.make_query("api.openai.com", "A"))
    made.answer.append(dns.rrset.from_text("api.openai.com.", 60, "IN", "A", "192.0.2.1"))
    seeds = [(Kind.TLS, hello_of("api.openai.com")), (Kind.HTTP, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"), (Kind.DNS, made.to_wire())]
    reader = FirstBytes()
    for cookie in range(30_000):
        kind, seed = rng.choice(seeds)
        data = bytearray(seed[: rng.randrange(len(seed) + 1)])
        for _ in range(rng.randrange(6)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        reader.read(payload(bytes(data), kind=kind, cookie=cookie % 50, sequence=rng.choice([1000, 1000 + rng.randrange(600), 0])))
    assert len(reader._unfinished) <= 50
