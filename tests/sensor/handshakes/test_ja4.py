from __future__ import annotations

import pytest

from sensor.handshakes import client_hello
from sensor.handshakes.client_hello import ALPN, GREASE, SERVER_NAME, SIGNATURE_ALGORITHMS, SUPPORTED_VERSIONS
from sensor.handshakes.ja4 import ja4
from tests.sensor.handshakes import hellos
from tests.sensor.handshakes.hellos import alpn_extension, body, name_extension, numbers, vector


def _of(data: bytes, *, quic: bool = False) -> str:
    return ja4(client_hello.read(data), quic=quic)


@pytest.mark.parametrize("grease", sorted(GREASE))
def test_the_published_fingerprint_of_a_browser_whatever_its_grease(grease: int) -> None:
    assert _of(hellos.browser_body(grease=grease)) == hellos.BROWSER_JA4


def test_over_quic_only_the_first_letter_differs() -> None:
    assert _of(hellos.browser_body(), quic=True) == "q" + hellos.BROWSER_JA4[1:]


def test_grease_is_what_rfc_8701_lists() -> None:
    assert sorted(GREASE) == [int(f"{digit:x}a" * 2, 16) for digit in range(16)]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ([], "00"),
        ([b"h2"], "h2"),
        ([b"http/1.1", b"h2"], "h1"),
        ([b"h"], "hh"),
        ([b"\xab"], "ab"),
        ([b"\xab\xcd"], "ad"),
        ([b"\x30\xab"], "3b"),
        ([b"\x30\x31\xab\xcd"], "3d"),
        ([b"\x30\xab\xcd\x31"], "01"),
    ],
)
def test_the_first_protocol_is_shown_as_described(names: list[bytes], shown: str) -> None:
    listed = [(ALPN, alpn_extension(*names))] if names else []
    assert _of(body(listed))[8:10] == shown


@pytest.mark.parametrize(
    ("version", "offered", "shown"),
    [
        (0x0303, [0x0304, 0x0303], "13"),
        (0x0303, [0xFAFA, 0x0303], "12"),
        (0x0303, None, "12"),
        (0x0302, None, "11"),
        (0x0301, None, "10"),
        (0x0300, None, "s3"),
        (0x0002, None, "s2"),
        (0x1234, None, "00"),
    ],
)
def test_the_highest_version_offered_is_shown(version: int, offered: list[int] | None, shown: str) -> None:
    listed = [(SUPPORTED_VERSIONS, vector(numbers(offered), 1))] if offered else []
    assert _of(body(listed, version=version))[1:3] == shown


def test_a_hello_without_a_name_and_without_extensions() -> None:
    assert _of(body(None)).startswith("t12i0200")
    assert _of(body(None)).endswith("_000000000000")


def test_name_and_protocols_count_but_are_not_hashed() -> None:
    plain = _of(body([(5, b"")]))
    named = _of(body([(SERVER_NAME, name_extension(b"example.com")), (5, b""), (ALPN, alpn_extension(b"h2"))]))
    assert (plain[3:8], named[3:8]) == ("i0201", "d0203")
    assert plain.split("_")[1:] == named.split("_")[1:]


def test_the_order_of_signature_algorithms_counts_and_that_of_extensions_does_not() -> None:
    one, other = (SIGNATURE_ALGORITHMS, vector(numbers([0x0403, 0x0804]), 2)), (SIGNATURE_ALGORITHMS, vector(numbers([0x0804, 0x0403]), 2))
    assert _of(body([one, (5, b"")])) == _of(body([(5, b""), one]))
    assert _of(body([one, (5, b"")])) != _of(body([other, (5, b"")]))


def test_counts_end_at_99() -> None:
    assert _of(body([(kind, b"") for kind in range(100, 250)], suites=range(0x1000, 0x1100)))[4:8] == "9999"
