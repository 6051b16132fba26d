"""DNS messages: a question in, an answer out. The only module that imports dnspython. Pure.

One question at a time, of class IN, asked and not answered; everything else is refused. Nothing is ever forwarded, so no name that
an agent makes up carries anything anywhere.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from hopgate.resources.registry import Registry

# A question has a name of at most 255 octets and a few of EDNS; what is larger carries something else. Every reply fits too
# (RFC 1035 section 4.2.1), so none is ever cut short, and it is what is announced as our payload size.
MAX_QUESTION_BYTES: Final = 512
# Virtual addresses are stable; a short life lets an edit of the registry be seen.
TTL_SECONDS: Final = 5
_HEADER: Final = struct.Struct("!6H")


class Answer(StrEnum):
    """What a question gets; also what the record says."""

    ANSWERED = "Answered"
    NO_DATA = "NoData"
    NX_DOMAIN = "NxDomain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`name` is in lower case, escaped as in zone files, without the last dot; `type` is its mnemonic; `wire` the message itself."""

    identifier: int
    name: str
    type: str
    wire: bytes


class DnsError(ValueError):
    """Bytes that are not one question. `reply` is what to say to it, or None where there is nobody to answer."""

    code = "MalformedQuestion"

    def __init__(self, message: str, reply: bytes | None = None) -> None:
        super().__init__(message)
        self.reply = reply


def parse(data: bytes) -> Question:
    """The one question that a message is. Raises DnsError."""
    if len(data) < _HEADER.size:
        raise DnsError("expected a DNS message, got fewer bytes than its header has")
    identifier, flags, questions, answers, authorities, _ = _HEADER.unpack_from(data)
    if flags & dns.flags.QR:
        raise DnsError("expected a question, got an answer")
    if len(data) > MAX_QUESTION_BYTES:
        raise DnsError(f"expected at most {MAX_QUESTION_BYTES} bytes, got {len(data)}", _error(identifier, flags, dns.rcode.FORMERR))
    if dns.opcode.from_flags(flags) != dns.opcode.QUERY:
        raise DnsError("expected a query, got another operation", _error(identifier, flags, dns.rcode.NOTIMP))
    if (questions, answers, authorities) != (1, 0, 0):
        raise DnsError(f"expected one question and nothing else, got {questions}", _error(identifier, flags, dns.rcode.FORMERR))
    try:
        message = dns.message.from_wire(data)
        asked = message.question[0]
    except (dns.exception.DNSException, ValueError, IndexError, struct.error) as error:
        raise DnsError("expected a well-formed question", _error(identifier, flags, dns.rcode.FORMERR)) from error
    if message.edns > 0:
        # RFC 6891 section 6.1.3: a version that is not ours is told so, and not answered.
        raise DnsError(f"expected EDNS version 0, got {message.edns}", _response(message, dns.rcode.BADVERS).to_wire())
    if asked.rdclass != dns.rdataclass.IN:
        raise DnsError("expected a question of class IN", _error(identifier, flags, dns.rcode.REFUSED))
    name = asked.name.to_text(omit_final_dot=True).lower()
    return Question(identifier=identifier, name=name, type=dns.rdatatype.to_text(asked.rdtype), wire=data)


def _error(identifier: int, flags: int, code: dns.rcode.Rcode) -> bytes:
    """A header alone: the identifier and operation back, and the code."""
    kept = dns.flags.QR | (flags & 0x7900)
    return _HEADER.pack(identifier, kept | code, 0, 0, 0, 0)


def _response(asked: dns.message.Message, code: dns.rcode.Rcode = dns.rcode.NOERROR) -> dns.message.Message:
    """The beginning of a reply: the question back, with EDNS only where the asker spoke it."""
    made = dns.message.make_response(asked, recursion_available=True, our_payload=MAX_QUESTION_BYTES)
    made.set_rcode(code)
    return made


def reply(question: Question, answer: Answer, address: str | None) -> bytes:
    """The message that answers a question; `address` is IPv4 for `Answered`."""
    made = _response(dns.message.from_wire(question.wire))
    owner = made.question[0].name
    if answer is Answer.ANSWERED and address is not None:
        made.answer.append(dns.rrset.from_text(owner, TTL_SECONDS, dns.rdataclass.IN, dns.rdatatype.A, address))
    else:
        if answer is Answer.NX_DOMAIN:
            made.set_rcode(dns.rcode.NXDOMAIN)
        # RFC 2308: how long "no" may be remembered stands in the authority's record.
        authority = f"ns.hopgate.invalid. hopgate.invalid. 1 60 60 60 {TTL_SECONDS}"
        made.authority.append(dns.rrset.from_text(dns.name.root, TTL_SECONDS, dns.rdataclass.IN, dns.rdatatype.SOA, authority))
    return made.to_wire()


def failure(question: Question) -> bytes:
    """The message that says that the resolver itself failed."""
    return _response(dns.message.from_wire(question.wire), dns.rcode.SERVFAIL).to_wire()


def decide(question: Question, registry: Registry) -> tuple[Answer, str | None]:
    """What a question gets: the virtual address of a registered name, nothing for its other types, no for every other name."""
    endpoint = registry.by_host.get(question.name)
    if endpoint is None:
        return Answer.NX_DOMAIN, None
    return (Answer.ANSWERED, endpoint.address) if question.type == "A" else (Answer.NO_DATA, None)
