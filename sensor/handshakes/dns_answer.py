"""An answer of DNS over UDP: which addresses the asked name has, for how long (RFC 1035 4, RFC 3596 2). Pure.

A reader of its own beside the gate's DNS library: it sees each answer on a machine, from whoever sent it, needs three kinds of record
of hundreds, and must stay linear for messages made to be expensive. A general library makes objects of every record first, at ten times
the cost.

Only what follows from the question counts: its aliases (CNAME) from one to the next, and the addresses of the last. Records of other names,
which anyone who answers could add, are left out.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from sensor.handshakes.errors import AnswerError
from sensor.handshakes.host_names import host_name

_HEADER: Final = struct.Struct("!6H")
_QUESTION: Final = struct.Struct("!HH")
_RECORD: Final = struct.Struct("!HHIH")
_RESPONSE, _OPERATION, _TRUNCATED, _CODE = 0x8000, 0x7800, 0x0200, 0x000F
_A, _CNAME, _AAAA, _INTERNET = 1, 5, 28, 1
_CODES: Final = (0, 3)
# A name of 255 octets has at most 127 labels (RFC 1035 2.3.4); the rest is for pointers to pointers, which nobody needs often.
_MAX_NAME: Final = 255
_MAX_STEPS: Final = 144
# Large answers have some dozens; the rest of one is not read.
MAX_RECORDS: Final = 64
MAX_ALIASES: Final = 16
# RFC 2181 8: what is larger is taken for 0.
_MAX_TTL: Final = 0x7FFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An address of the asked name, and for how many seconds it may be kept: the shortest life on the way to it."""

    ip: IPv4Address | IPv6Address
    ttl: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsAnswer:
    """What was asked for, what that name is an alias of, one after the other, and the addresses of the last. All names in lower case."""

    name: str
    aliases: tuple[str, ...]
    addresses: tuple[Address, ...]
    exists: bool
    """Whether the name exists, with or without an address."""
    whole: bool
    """Whether all that was answered was there to be read."""


def read(message: bytes, *, cut: bool = False) -> DnsAnswer:
    """The answer that a message is. Of one that is `cut` short, what is there counts. Raises AnswerError."""
    if len(message) < _HEADER.size:
        raise AnswerError(f"expected a DNS header of {_HEADER.size} bytes, got {len(message)} bytes")
    _, flags, questions, answers, _, _ = _HEADER.unpack_from(message)
    if not flags & _RESPONSE or flags & _OPERATION or questions != 1:
        raise AnswerError(f"expected an answer to one question, got flags {flags:#06x} and {questions} questions")
    if flags & _CODE not in _CODES:
        raise AnswerError(f"expected an answer, got the error {flags & _CODE}")
    asked, at = _name(message, _HEADER.size)
    if at + _QUESTION.size > len(message):
        raise AnswerError("expected the type and class that were asked for, got the end of the message")
    if _QUESTION.unpack_from(message, at)[1] != _INTERNET:
        raise AnswerError("expected a question of class IN")
    name = host_name(asked)
    if not name:
        raise AnswerError("expected an answer about a host name, got another name")
    aliases, addresses, read_all = _records(message, at + _QUESTION.size, answers, cut=cut)
    chain, last, ttl = _follow(asked, aliases)
    return DnsAnswer(
        name=name,
        aliases=chain,
        addresses=tuple(dict.fromkeys(Address(ip=ip, ttl=min(ttl, life)) for owner, ip, life in addresses if owner == last)),
        exists=not flags & _CODE,
        whole=read_all and not flags & _TRUNCATED,
    )


def _records(
    message: bytes, at: int, count: int, *, cut: bool
) -> tuple[dict[bytes, tuple[bytes, int]], list[tuple[bytes, IPv4Address | IPv6Address, int]], bool]:
    """Aliases and addresses by the name that has them, and whether that is all of them."""
    aliases: dict[bytes, tuple[bytes, int]] = {}
    addresses: list[tuple[bytes, IPv4Address | IPv6Address, int]] = []
    for _ in range(min(count, MAX_RECORDS)):
        try:
            owner, at = _name(message, at)
            if at + _RECORD.size > len(message):
                raise AnswerError("expected a record, got the end of the message")
            kind, of_class, ttl, length = _RECORD.unpack_from(message, at)
            at += _RECORD.size
            if at + length > len(message):
                raise AnswerError(f"expected {length} bytes of a record, got the end of the message")
        except AnswerError:
            if cut:
                return aliases, addresses, False
            raise
        ttl = 0 if ttl > _MAX_TTL else ttl
        if of_class == _INTERNET and kind == _CNAME:
            target, end = _name(message, at)
            if end != at + length:
                raise AnswerError(f"expected an alias of {length} bytes, got a name of {end - at}")
            aliases.setdefault(owner, (target, ttl))
        elif of_class == _INTERNET and kind in (_A, _AAAA):
            addresses.append((owner, _address(kind, message[at : at + length]), ttl))
        at += length
    return aliases, addresses, count <= MAX_RECORDS


def _address(kind: int, data: bytes) -> IPv4Address | IPv6Address:
    if len(data) != (4 if kind == _A else 16):
        raise AnswerError(f"expected an address, got {len(data)} bytes of type {kind}")
    return IPv4Address(data) if kind == _A else IPv6Address(data)


def _follow(asked: bytes, aliases: dict[bytes, tuple[bytes, int]]) -> tuple[tuple[str, ...], bytes, int]:
    """The names from alias to alias, the last of them, and the shortest life on the way."""
    chain: list[str] = []
    last, ttl = asked, _MAX_TTL
    while (alias := aliases.get(last)) is not None:
        last, ttl = alias[0], min(ttl, alias[1])
        if len(chain) == MAX_ALIASES:
            raise AnswerError(f"expected at most {MAX_ALIASES} aliases, got more, or a ring of them")
        chain.append(host_name(last))
    return tuple(name for name in chain if name), last, ttl


def _name(message: bytes, at: int) -> tuple[bytes, int]:
    """A name in lower case, and where it ends. A pointer leads to an earlier place only (RFC 1035 4.1.4), so none leads round."""
    labels: list[bytes] = []
    size, end, limit = 1, 0, at
    for _ in range(_MAX_STEPS):
        if at >= len(message):
            raise AnswerError("expected a name, got the end of the message")
        length = message[at]
        if length == 0:
            return b".".join(labels).lower(), end or at + 1
        if length >= 0xC0:
            if at + 2 > len(message):
                raise AnswerError("expected a pointer to a name, got the end of the message")
            end = end or at + 2
            at = (length & 0x3F) << 8 | message[at + 1]
            if not _HEADER.size <= at < limit:
                raise AnswerError(f"expected a pointer to an earlier name, got one to byte {at}")
            limit = at
            continue
        size += length + 1
        if length > 63 or size > _MAX_NAME:
            raise AnswerError(f"expected labels of at most 63 bytes and a name of {_MAX_NAME}, got more")
        labels.append(message[at + 1 : at + 1 + length])
        if at + 1 + length > len(message):
            raise AnswerError("expected a label, got the end of the message")
        at += 1 + length
    raise AnswerError("expected a name that ends, got pointers without end")
