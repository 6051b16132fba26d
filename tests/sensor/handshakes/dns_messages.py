"""DNS answers, made by another implementation than the one under test, or byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import dns.flags
import dns.message
import dns.rrset


def answer(name: str, records: Iterable[str], *, kind: str = "A", code: int = 0) -> bytes:
    """An answer in wire form; each record is `name ttl type data`, names without their last dot."""
    message = dns.message.make_response(dns.message.make_query(name, kind), recursion_available=True)
    message.set_rcode(dns.rcode.Rcode(code))
    for text in records:
        owner, ttl, of_type, data = text.split(" ", 3)
        message.answer.append(dns.rrset.from_text(f"{owner}.", int(ttl), "IN", of_type, f"{data}." if of_type == "CNAME" else data))
    return message.to_wire()


def header(*, flags: int = 0x8180, questions: int = 1, answers: int = 0) -> bytes:
    return struct.pack("!6H", 1, flags, questions, answers, 0, 0)


def labels(*parts: bytes) -> bytes:
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def question(*parts: bytes, kind: int = 1, of_class: int = 1) -> bytes:
    return labels(*parts) + struct.pack("!HH", kind, of_class)


def record(owner: bytes, kind: int, data: bytes, *, ttl: int = 60, of_class: int = 1) -> bytes:
    return owner + struct.pack("!HHIH", kind, of_class, ttl, len(data)) + data
