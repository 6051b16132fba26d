"""What is told of what programs send: hellos in every cut, clear HTTP, QUIC, DNS answers; and what is left alone."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import pairwise

import pytest

from sensor.events import TCP, UDP, Endpoint, Flag, Kind, Payload
from tests.cluster.api_server import eventually
from tests.sensor.kernel.actions import HELLO, LONG_HELLO
from tests.sensor.kernel.conftest import Place, Seen

pytestmark = [pytest.mark.root, pytest.mark.bpf]

LOOPBACK = ip_address("127.0.0.1")
# TLS 1.3 in the hello's look: a record of 300 bytes whose handshake message has the type given.
RECORD = b"\x16\x03\x03\x01\x2c%c\x00\x01\x28\x03\x03" + bytes(294)
AFTER = b"\x17\x03\x03" + b"application data" * 20


def whole(pieces: list[Payload]) -> bytes:
    """The pieces put together by TCP's numbers."""
    first = pieces[0].sequence
    joined = bytearray()
    for piece in sorted(pieces, key=lambda each: (each.sequence - first) & 0xFFFFFFFF):
        place = (piece.sequence - first) & 0xFFFFFFFF
        assert place == len(joined)
        joined += piece.data
    return bytes(joined)


def send(place: Place, *pieces: bytes) -> dict[str, int]:
    return place.act("stream", ",".join(piece.hex() for piece in pieces))


def cut(data: bytes, *places: int) -> list[bytes]:
    return [data[start:end] for start, end in pairwise((0, *places, len(data)))]


@pytest.mark.parametrize(
    "pieces",
    [
        [HELLO],
        cut(HELLO, 3),
        cut(HELLO, 3, 6, 9, 12),
        cut(HELLO, 8, 9, 109),
        cut(HELLO, 100, 200, 300, 400),
        cut(HELLO, *range(5, len(HELLO), 5)),
        cut(LONG_HELLO, 500, 1000, 5000),
        [LONG_HELLO],
    ],
    ids=["whole", "3", "3s", "8+1+100", "100s", "5s", "long-cut", "long"],
)
def test_a_hello_in_pieces(seen: Seen, place: Place, pieces: list[bytes]) -> None:
    said = send(place, *pieces, AFTER)
    hello = b"".join(pieces)
    told = seen.payloads(Kind.TLS, cookie=said["cookie"])
    assert whole(told)[: len(hello)] == hello
    # Until the hello is whole the end of its last record is not known, so that a little of what follows may be told too.
    assert len(whole(told)) <= len(hello) + len(AFTER)
    for piece in told:
        assert (piece.local, piece.remote) == (Endpoint(LOOPBACK, said["client_port"]), Endpoint(LOOPBACK, said["port"]))
        assert (piece.protocol, piece.cgroup_id, piece.flags) == (TCP, place.cgroup_id, Flag(0))
    assert seen.payloads(Kind.TLS, cookie=said["accepted"]) == []


def test_a_whole_hello_is_told_alone(seen: Seen, place: Place) -> None:
    said = send(place, HELLO, AFTER)
    assert [piece.data for piece in seen.payloads(Kind.TLS, cookie=said["cookie"])] == [HELLO]


def test_a_hello_in_too_many_pieces_is_told_as_cut(seen: Seen, place: Place) -> None:
    said = place.act("drip", HELLO[:200].hex())
    told = seen.payloads(Kind.TLS, cookie=said["cookie"])
    assert [piece.flags for piece in told] == [Flag(0)] * 127 + [Flag.CUT]
    assert whole(told) == HELLO[:128]


@pytest.mark.parametrize(("kind", "told"), [(1, 1), (2, 0)], ids=["client", "server"])
def test_only_a_clients_hello_begins_one(seen: Seen, place: Place, kind: int, told: int) -> None:
    said = send(place, RECORD % kind)
    assert len(seen.payloads(Kind.TLS, cookie=said["cookie"])) == told


@pytest.mark.parametrize(("pieces", "told"), [([HELLO], 1), ([b"x", HELLO], 0)], ids=["first", "second"])
def test_a_hello_begins_a_stream(seen: Seen, place: Place, pieces: list[bytes], told: int) -> None:
    said = send(place, *pieces)
    assert len(seen.payloads(Kind.TLS, cookie=said["cookie"])) == told


def test_a_hello_behind_a_proxys_connect(seen: Seen, place: Place) -> None:
    request = b"CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n"
    said = send(place, request, HELLO)
    assert [piece.data for piece in seen.payloads(Kind.HTTP, cookie=said["cookie"])] == [request]
    assert whole(seen.payloads(Kind.TLS, cookie=said["cookie"])) == HELLO


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"POST /mcp HTTP/1.1\r\n\r\n", 22),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 2000, 1024),
        (b"GOT / HTTP/1.1\r\n\r\n", None),
        (b"EHLO mail.example.com\r\n", None),
    ],
    ids=["request", "preface", "long", "no-method", "no-http"],
)
def test_http_in_clear(seen: Seen, place: Place, sent: bytes, told: int | None) -> None:
    said = send(place, sent, b"POST /second HTTP/1.1\r\n\r\n")
    found = seen.payloads(Kind.HTTP, cookie=said["cookie"])
    assert [piece.data for piece in found] == ([] if told is None else [sent[:told]])
    assert [piece.flags for piece in found] == ([] if told is None else [Flag.CUT if told < len(sent) else Flag(0)])


@pytest.mark.parametrize(
    ("first", "told"),
    [("c000000001", True), ("d06b3343cf", True), ("c000000000", False), ("4000000001", False)],
    ids=["v1", "v2", "negotiation", "short-header"],
)
def test_a_quic_datagram_that_may_be_an_initial(seen: Seen, place: Place, first: str, told: bool) -> None:
    said = place.act("quic", first)
    found = seen.payloads(Kind.QUIC, cookie=said["cookie"])
    assert [(len(each.data), each.protocol, each.remote) for each in found] == [(1200, UDP, Endpoint(LOOPBACK, said["port"]))] * told


@pytest.mark.parametrize("kind", ["ip4", "ip6"])
def test_a_dns_answer(seen: Seen, place: Place, kind: str) -> None:
    said = place.act("dns", kind)
    found = eventually(lambda: seen.payloads(Kind.DNS, cookie=said["cookie"]), "the answer", 5)
    server = Endpoint(ip_address("127.0.0.1" if kind == "ip4" else "::1"), 53)
    told = [(each.data, each.remote, each.local and each.local.port, each.cgroup_id) for each in found]
    assert told == [(b"answer", server, said["client_port"], place.cgroup_id)]
