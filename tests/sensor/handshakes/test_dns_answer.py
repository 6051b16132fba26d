from __future__ import annotations

import itertools
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.handshakes import dns_answer
from sensor.handshakes.dns_answer import Address
from sensor.handshakes.errors import AnswerError
from tests.sensor.handshakes.dns_messages import answer, header, labels, question, record

ASKED = question(b"api", b"example", b"com")
POINTER = b"\xc0\x0c"
ADDRESS = bytes([192, 0, 2, 7])


def test_addresses_of_both_families_with_their_lives() -> None:
    found = dns_answer.read(answer("api.example.com", ["api.example.com 60 A 192.0.2.7", "api.example.com 30 AAAA 2001:db8::1"]))
    assert found.name == "api.example.com"
    assert found.addresses == (Address(ip=IPv4Address("192.0.2.7"), ttl=60), Address(ip=IPv6Address("2001:db8::1"), ttl=30))
    assert (found.aliases, found.exists, found.whole) == ((), True, True)


def test_aliases_are_followed_in_any_order_and_the_shortest_life_counts() -> None:
    records = [
        "edge.example.net 300 A 192.0.2.7",
        "cdn.example.net 20 CNAME edge.example.net",
        "api.example.com 100 CNAME cdn.example.net",
    ]
    for order in (records, records[::-1]):
        found = dns_answer.read(answer("API.example.com", order))
        assert found.name == "api.example.com"
        assert found.aliases == ("cdn.example.net", "edge.example.net")
        assert found.addresses == (Address(ip=IPv4Address("192.0.2.7"), ttl=20),)


def test_an_address_of_a_name_that_was_not_asked_for_is_left_out() -> None:
    records = ["other.example.com 60 A 192.0.2.8", "api.example.com 60 A 192.0.2.7"]
    found = dns_answer.read(answer("api.example.com", records))
    assert [str(address.ip) for address in found.addresses] == ["192.0.2.7"]


def test_case_does_not_part_a_name_from_its_records() -> None:
    message = header(answers=1) + question(b"aPi", b"eXample") + record(labels(b"ApI", b"ExamPLE"), 1, ADDRESS)
    assert len(dns_answer.read(message).addresses) == 1


@pytest.mark.parametrize(("code", "exists"), [(0, True), (3, False)], ids=["no data", "no such name"])
def test_a_name_without_addresses_is_told(code: int, exists: bool) -> None:
    found = dns_answer.read(answer("api.example.com", [], code=code))
    assert (found.addresses, found.exists) == ((), exists)


def test_a_life_beyond_what_is_allowed_is_none() -> None:
    found = dns_answer.read(header(answers=1) + ASKED + record(POINTER, 1, ADDRESS, ttl=0x80000000))
    assert found.addresses[0].ttl == 0


def test_more_records_than_are_read_are_told() -> None:
    records = b"".join(record(POINTER, 1, bytes([10, 0, 0, number])) for number in range(100))
    found = dns_answer.read(header(answers=100) + ASKED + records)
    assert (len(found.addresses), found.whole) == (dns_answer.MAX_RECORDS, False)


def test_what_was_cut_short_tells_what_is_there() -> None:
    message = header(answers=2) + ASKED + record(POINTER, 1, ADDRESS) + record(POINTER, 1, ADDRESS)[:-1]
    with pytest.raises(AnswerError):
        dns_answer.read(message)
    found = dns_answer.read(message, cut=True)
    assert (len(found.addresses), found.whole) == (1, False)


def test_a_truncated_answer_is_not_whole() -> None:
    message = header(flags=0x8380, answers=1) + ASKED + record(POINTER, 1, ADDRESS)
    found = dns_answer.read(message)
    assert (len(found.addresses), found.whole) == (1, False)


LONG = labels(*[b"a" * 63] * 4)
LONGEST = labels(*[b"a" * 63] * 3, b"b" * 61)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        header()[:-1],
        header(flags=0x0180) + ASKED,
        header(flags=0x9180) + ASKED,
        header(flags=0x8182) + ASKED,
        header(questions=0),
        header(questions=2) + ASKED + ASKED,
        header() + ASKED[:-1],
        header() + question(b"api", b"example", b"com", of_class=3),
        header() + question(b"not a host", b"com"),
        header() + question(),
        header() + labels(b"a" * 63)[:-2],
        header() + b"\x40" + b"a" * 64 + b"\0" + bytes(4),
        header() + LONG + bytes(4),
        header() + b"\xc0\x0c" + bytes(4),
        header() + b"\xc0\x20" + bytes(4),
        header() + b"\xc0\x00" + bytes(4),
        header() + b"\xc0",
        header(answers=1) + ASKED,
        header(answers=1) + ASKED + record(POINTER, 1, ADDRESS)[:-1],
        header(answers=1) + ASKED + record(POINTER, 1, ADDRESS[:3]),
        header(answers=1) + ASKED + record(POINTER, 28, ADDRESS),
        header(answers=1) + ASKED + record(POINTER, 5, POINTER + b"\0"),
        header(answers=1) + ASKED + record(b"\xc0\x22", 1, ADDRESS),
        header(answers=1) + ASKED + record(POINTER, 5, POINTER),
        header(answers=2) + ASKED + record(POINTER, 5, labels(b"b")) + record(labels(b"b"), 5, POINTER),
    ],
    ids=[
        "nothing",
        "half a header",
        "a question",
        "another operation",
        "an error of the server",
        "no question",
        "two questions",
        "half a question",
        "another class",
        "no host name",
        "the root",
        "a label that does not end",
        "a label of 64",
        "a name of 257",
        "a pointer to itself",
        "a pointer ahead",
        "a pointer into the header",
        "half a pointer",
        "no record",
        "a record cut short",
        "an address of 3 bytes",
        "an IPv6 address of 4 bytes",
        "an alias with a byte more",
        "an owner that points to itself",
        "an alias of itself",
        "a ring of aliases",
    ],
)
def test_what_is_no_answer_is_an_error(message: bytes) -> None:
    dns_answer.read(header(answers=1) + ASKED + record(POINTER, 1, ADDRESS))
    with pytest.raises(AnswerError) as raised:
        dns_answer.read(message)
    assert raised.value.code == "AnswerMalformed"


def test_the_longest_name_is_read() -> None:
    found = dns_answer.read(header(answers=1) + LONGEST + b"\0\1\0\1" + record(POINTER, 1, ADDRESS))
    assert (len(found.name), len(found.addresses)) == (253, 1)


def test_a_name_of_another_record_does_not_have_to_be_a_host() -> None:
    strange = record(labels(b"not a host"), 16, b"text")
    found = dns_answer.read(header(answers=2) + ASKED + strange + record(POINTER, 1, ADDRESS))
    assert len(found.addresses) == 1


_LABEL = st.from_regex(r"[a-z][a-z0-9]{0,10}", fullmatch=True)
_NAME = st.lists(_LABEL, min_size=1, max_size=4).map(".".join)


@given(_NAME, st.lists(_NAME, max_size=4, unique=True), st.lists(st.ip_addresses(), max_size=6, unique=True))
def test_what_another_implementation_writes_is_read(name: str, aliases: list[str], addresses: list[object]) -> None:
    chain = [name, *(alias for alias in aliases if alias != name)]
    records = [f"{owner} 60 CNAME {target}" for owner, target in itertools.pairwise(chain)]
    last = chain[-1]
    records += [f"{last} 60 {'A' if ip_address(str(each)).version == 4 else 'AAAA'} {each}" for each in addresses]
    found = dns_answer.read(answer(name, records))
    assert (found.name, found.aliases) == (name, tuple(chain[1:]))
    assert [address.ip for address in found.addresses] == addresses


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_an_answer_or_an_error(data: bytes, led: bool) -> None:
    message = header(answers=3) + ASKED + data if led else data
    try:
        found = dns_answer.read(message)
    except AnswerError:
        return
    assert found.name
