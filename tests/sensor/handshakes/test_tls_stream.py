from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.handshakes import pieces, tls_stream
from sensor.handshakes.errors import HandshakeError, HelloError, HelloTooLong, PieceError
from sensor.handshakes.tls_stream import TlsStream
from tests.sensor.handshakes import hellos

BODY = hellos.browser_body()
STREAM = hellos.records(hellos.message(BODY))
LARGEST = hellos.body([(21, bytes(pieces.MAX_BYTES - 200))])


def _split(stream: bytes, size: int) -> list[tuple[int, bytes]]:
    return [(at, stream[at : at + size]) for at in range(0, len(stream), size)]


def _feed(found: list[tuple[int, bytes]], first: int = 0) -> bytes | None:
    stream = TlsStream(0)
    for at, data in found:
        body = stream.add((first + at) % (1 << 32), data)
        if body is not None:
            return body
    return None


@pytest.mark.parametrize("size", [1, 3, 4, 5, 6, 9, 100, 500, 5000])
def test_pieces_of_any_size_make_the_hello(size: int) -> None:
    assert _feed(_split(STREAM, size)) == BODY


@pytest.mark.parametrize("fragment", [1, 3, 5, 64, 100])
def test_a_hello_over_several_records(fragment: int) -> None:
    stream = hellos.records(hellos.message(BODY), fragment)
    assert _feed(_split(stream, 100)) == BODY
    assert _feed([(0, stream)]) == BODY


@pytest.mark.parametrize("first", [0, 1, (1 << 31) - 5, (1 << 32) - 5, (1 << 32) - 1])
def test_numbers_that_begin_anew_go_on(first: int) -> None:
    assert _feed(_split(STREAM, 50), first) == BODY


def test_a_hello_that_is_nearly_as_long_as_is_collected() -> None:
    assert len(hellos.records(hellos.message(LARGEST))) > 16_000
    assert _feed(_split(hellos.records(hellos.message(LARGEST)), 4096)) == LARGEST


def test_a_longer_one_is_an_error() -> None:
    with pytest.raises(HelloTooLong):
        _feed([(0, hellos.records(hellos.message(LARGEST + bytes(200)), 8000)[:4096])])


@given(st.data())
def test_any_order_with_any_doubling_makes_the_hello(data: st.DataObject) -> None:
    """The beginning may come last, and pieces may overlap."""
    cuts = sorted(data.draw(st.sets(st.integers(1, len(STREAM) - 1), max_size=6)))
    edges = [0, *cuts, len(STREAM)]
    found = [(begin, STREAM[begin:end]) for begin, end in itertools.pairwise(edges)]
    for _ in range(data.draw(st.integers(0, 4))):
        begin = data.draw(st.integers(0, len(STREAM) - 1))
        found.append((begin, STREAM[begin : data.draw(st.integers(begin, len(STREAM)))]))
    assert _feed(data.draw(st.permutations(found)), data.draw(st.integers(0, (1 << 32) - 1))) == BODY


@pytest.mark.parametrize("missing", range(4))
def test_without_one_of_its_pieces_it_is_not_whole(missing: int) -> None:
    found = _split(STREAM, -(-len(STREAM) // 4))
    assert _feed([piece for number, piece in enumerate(found) if number != missing]) is None
    assert _feed(found) == BODY


@pytest.mark.parametrize(
    "stream",
    [
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff",
        STREAM[:5] + b"\x02",
        hellos.records(b"\x01\x00\x00\x64")[:9] + b"\x17\x03\x03\x00\x05",
    ],
    ids=["an empty fragment", "a long fragment", "another message", "application data within"],
)
def test_what_is_no_handshake_is_an_error(stream: bytes) -> None:
    with pytest.raises(HelloError):
        _feed([(0, stream)])


def test_the_middle_of_a_hello_may_look_like_anything_before_its_beginning_comes() -> None:
    """A piece that begins with the byte of a handshake record is no beginning by that alone."""
    at = STREAM.index(b"\x16\x17")
    assert _feed([(at, STREAM[at:]), (0, STREAM[:at])]) == BODY


def test_a_piece_out_of_bounds_is_an_error() -> None:
    stream = TlsStream(0)
    stream.add(0, STREAM[:10])
    with pytest.raises(PieceError):
        stream.add(pieces.MAX_BYTES, b"x")


def test_pieces_that_wait_are_bounded() -> None:
    stream = TlsStream(0)
    stream.add(0, STREAM[:10])
    for number in range(pieces.MAX_WAITING):
        stream.add(20 + 2 * number, b"x")
    with pytest.raises(PieceError):
        stream.add(20 + 2 * pieces.MAX_WAITING, b"x")


def test_a_beginning_does_not_move_without_end() -> None:
    stream = TlsStream(0)
    for number in range(9):
        assert stream.add(1000 - number, b"x") is None
    with pytest.raises(PieceError):
        stream.add(1000 - 9, b"x")


@given(st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=40)), max_size=12))
def test_any_pieces_give_a_hello_nothing_or_an_error(found: list[tuple[int, bytes]]) -> None:
    with contextlib.suppress(HandshakeError):
        body = _feed(found)
        assert body is None or len(body) <= 80


def test_the_whole_in_one_call() -> None:
    hello = tls_stream.read(STREAM)
    assert hello is not None
    assert hello.server_name == "api.example.com"
    assert tls_stream.read(STREAM[:-1]) is None
