"""DNS messages: one question of class IN is answered from the registry; everything else is refused, and nothing is forwarded."""

from __future__ import annotations

import time
from pathlib import Path

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


def test_a_refusal_and_a_failure_say_so() -> None:
    asked = dns_message.parse(PLAIN)
    assert dns.message.from_wire(dns_message.reply(asked, Answer.REFUSED, None)).rcode() == dns.rcode.REFUSED
    assert dns.message.from_wire(dns_message.failure(asked)).rcode() == dns.rcode.SERVFAIL
