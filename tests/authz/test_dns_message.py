"""DNS messages: one question of class IN is answered from the registry; everything else is refused, and nothing is forwarded."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from authz import dns_message
from authz.dns_message import Answer, DnsError
from hopgate.manifests import snapshots
from hopgate.resources.registry import Registry


@pytest.fixture(scope="module")
def registry() -> Registry:
    return snapshots.load(Path(__file__).parent.parent / "world", previous=None, now=int(time.time())).registry


def question(name: str, kind: str = "A") -> bytes:
    return dns.message.make_query(name, kind).to_wire()


def answered(registry: Registry, data: bytes) -> dns.message.Message:
    asked = dns_message.parse(data)
    return dns.message.from_wire(dns_message.reply(asked, *dns_message.decide(asked, registry)))


@pytest.mark.parametrize("name", ["tickets.demo.svc", "TICKETS.demo.svc.", "tickets.demo.svc.cluster.local", "api.openai.com"])
def test_a_registered_name_has_its_virtual_address(registry: Registry, name: str) -> None:
    reply = answered(registry, question(name))
    assert reply.rcode() == dns.rcode.NOERROR
    endpoint = registry.by_host[name.lower().rstrip(".")]
    assert [item.address for item in reply.answer[0]] == [endpoint.address]
    assert reply.answer[0].ttl == dns_message.TTL_SECONDS


@pytest.mark.parametrize("kind", ["AAAA", "TXT", "HTTPS", "SVCB", "MX", "ANY"])
def test_a_registered_name_has_nothing_of_another_type(registry: Registry, kind: str) -> None:
    reply = answered(registry, question("tickets.demo.svc", kind))
    assert (reply.rcode(), reply.answer) == (dns.rcode.NOERROR, [])
    assert reply.authority[0].rdtype == dns.rdatatype.SOA


@pytest.mark.parametrize(
    "name", ["evil.example", "demo.svc", "x.tickets.demo.svc", "tickets.demo.svc.evil.example", ".", "2.0.192.in-addr.arpa"]
)
def test_every_other_name_does_not_exist(registry: Registry, name: str) -> None:
    assert answered(registry, question(name)).rcode() == dns.rcode.NXDOMAIN


def _with_header(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + value.to_bytes(2) + data[at + 2 :]


PLAIN = question("tickets.demo.svc")
REFUSED = {
    "no question": (_with_header(PLAIN, 4, 0), dns.rcode.FORMERR),
    "two questions": (_with_header(PLAIN, 4, 2), dns.rcode.FORMERR),
    "an answer beside the question": (_with_header(PLAIN, 6, 1), dns.rcode.FORMERR),
    "another operation": (_with_header(PLAIN, 2, 0x2100), dns.rcode.NOTIMP),
    "another class": (PLAIN[:-2] + b"\x00\x03", dns.rcode.REFUSED),
    "a message too large": (PLAIN + bytes(600), dns.rcode.FORMERR),
    "a name that points at itself": (PLAIN[:12] + b"\xc0\x0c\x00\x01\x00\x01", dns.rcode.FORMERR),
    "a name without an end": (PLAIN[:15], dns.rcode.FORMERR),
}


@pytest.mark.parametrize(("data", "code"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_one_question_is_refused_with_its_identifier(data: bytes, code: dns.rcode.Rcode) -> None:
    with pytest.raises(DnsError) as caught:
        dns_message.parse(data)
    assert caught.value.reply is not None
    assert caught.value.reply[:2] == data[:2]
    assert caught.value.reply[3] & 0xF == code


@pytest.mark.parametrize("data", [b"", PLAIN[:11], _with_header(PLAIN, 2, dns.flags.QR)], ids=["nothing", "half a header", "an answer"])
def test_what_asks_nothing_gets_no_reply(data: bytes) -> None:
    with pytest.raises(DnsError) as caught:
        dns_message.parse(data)
    assert caught.value.reply is None


def test_a_failure_says_so() -> None:
    asked = dns_message.parse(PLAIN)
    assert dns.message.from_wire(dns_message.failure(asked)).rcode() == dns.rcode.SERVFAIL


def raw_question(name: bytes) -> bytes:
    """A question of type A whose name is these bytes, which no library would write."""
    return struct.pack("!6H", 7, dns.flags.RD, 1, 0, 0, 0) + name + struct.pack("!2H", dns.rdatatype.A, 1)


def test_an_asker_that_speaks_edns_is_told_the_size_that_questions_may_have(registry: Registry) -> None:
    asked = dns.message.make_query("tickets.demo.svc", "A", use_edns=0, payload=4096, options=[dns.edns.CookieOption(b"12345678", b"")])
    reply = answered(registry, asked.to_wire())
    assert (reply.rcode(), reply.edns, reply.payload) == (dns.rcode.NOERROR, 0, dns_message.MAX_QUESTION_BYTES)
    assert reply.options == ()
    assert answered(registry, PLAIN).edns == -1


def test_a_version_of_edns_that_is_not_ours_is_told_so() -> None:
    with pytest.raises(DnsError) as caught:
        dns_message.parse(dns.message.make_query("tickets.demo.svc", "A", use_edns=1).to_wire())
    assert caught.value.reply is not None
    reply = dns.message.from_wire(caught.value.reply)
    assert (reply.rcode(), reply.edns, reply.answer) == (dns.rcode.BADVERS, 0, [])


@pytest.mark.parametrize(("padding", "is_read"), [(466, True), (467, False)], ids=["at the limit", "a byte over it"])
def test_a_question_may_be_padded_up_to_the_limit(padding: int, is_read: bool) -> None:
    option = dns.edns.GenericOption(dns.edns.OptionType.PADDING, bytes(padding - 3))
    data = dns.message.make_query("tickets.demo.svc", "A", use_edns=0, options=[option]).to_wire()
    assert (len(data) <= dns_message.MAX_QUESTION_BYTES) is is_read
    if is_read:
        assert dns_message.parse(data).name == "tickets.demo.svc"
    else:
        with pytest.raises(DnsError):
            dns_message.parse(data)


ODD_NAMES = {
    "a dot inside a label": (b"\x0ctickets.demo\x03svc\x00", "tickets\\.demo.svc"),
    "bytes that are no text": (b"\x04\xff\x00\n\xe9\x03svc\x00", "\\255\\000\\010\\233.svc"),
    "a quote and a blank": (b'\x04a" b\x03svc\x00', 'a\\"\\032b.svc'),
    "an underscore": (b"\x05_http\x03svc\x00", "_http.svc"),
}


@pytest.mark.parametrize(("wire", "name"), ODD_NAMES.values(), ids=ODD_NAMES)
def test_an_odd_name_is_written_down_escaped_and_does_not_exist(registry: Registry, wire: bytes, name: str) -> None:
    asked = dns_message.parse(raw_question(wire))
    assert asked.name == name
    assert dns_message.decide(asked, registry) == (Answer.NX_DOMAIN, None)


def test_the_same_labels_with_their_dots_between_them_do(registry: Registry) -> None:
    asked = dns_message.parse(raw_question(b"\x07tickets\x04demo\x03svc\x00"))
    assert dns_message.decide(asked, registry)[0] is Answer.ANSWERED


@pytest.mark.parametrize(("last", "is_read"), [(61, True), (62, False)], ids=["255 octets", "256 octets"])
def test_a_name_is_at_most_as_long_as_names_may_be_and_its_reply_fits(registry: Registry, last: int, is_read: bool) -> None:
    data = raw_question((b"\x3f" + b"\x01" * 63) * 3 + bytes([last]) + b"d" * last + b"\x00")
    if is_read:
        asked = dns_message.parse(data)
        assert len(dns_message.reply(asked, *dns_message.decide(asked, registry))) <= dns_message.MAX_QUESTION_BYTES
    else:
        with pytest.raises(DnsError):
            dns_message.parse(data)


def test_the_case_of_the_question_comes_back(registry: Registry) -> None:
    reply = answered(registry, question("tIcKeTs.DeMo.SvC"))
    assert reply.question[0].name.to_text() == reply.answer[0].name.to_text() == "tIcKeTs.DeMo.SvC."


def test_whatever_is_read_has_a_reply_that_fits_and_can_be_read(registry: Registry) -> None:
    source = random.Random(1035)
    asked = dns.message.make_query(
        "tickets.demo.svc", "A", use_edns=0, options=[dns.edns.GenericOption(dns.edns.OptionType.PADDING, bytes(200))]
    ).to_wire()
    replies = 0
    for number in range(3000):
        data = bytearray((PLAIN, asked)[number % 2])
        for _ in range(source.randint(1, 2)):
            data[source.randrange(len(data))] = source.randrange(256)
        try:
            read = dns_message.parse(bytes(data))
        except DnsError:
            continue
        for made in (dns_message.reply(read, *dns_message.decide(read, registry)), dns_message.failure(read)):
            assert len(made) <= dns_message.MAX_QUESTION_BYTES
            assert dns.message.from_wire(made).id == read.identifier
            replies += 1
    assert replies > 500
