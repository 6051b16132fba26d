"""What first bytes say: the name in a TLS hello, the head of an HTTP request, the name and addresses of a DNS answer. Pure.

Any bytes give a value or nothing, never an error: what others send is not to be trusted to be well made. A hello may come in several
pieces, which are put together by TCP's numbers; a bounded number of unfinished ones is kept.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from sensor.events import Kind, Payload

_MAX_UNFINISHED: Final = 1024
# As the programs in the kernel bound it.
_MAX_HELLO_BYTES: Final = 16_384
_SERVER_NAME: Final = 0
_HANDSHAKE_RECORD, _CLIENT_HELLO = 0x16, 1
_A, _AAAA = 1, 28
_MAX_RECORDS: Final = 64
_SEQUENCES: Final = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """A TLS hello's server name, in lower case; empty when it has none."""

    server_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The head of an HTTP/1 request, as far as it came. Names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A DNS answer: what was asked for, and the addresses that came."""

    name: str
    addresses: tuple[str, ...]


@dataclass(slots=True)
class _Unfinished:
    """Pieces of one stream by how far from its first byte they begin."""

    first: int
    pieces: dict[int, bytes] = field(default_factory=dict)

    def whole(self) -> bytes:
        """What there is from the first byte on without a gap."""
        found = b""
        for offset in sorted(self.pieces):
            if offset > len(found):
                break
            found = found[:offset] + self.pieces[offset] + found[offset + len(self.pieces[offset]) :]
        return found


class FirstBytes:
    """Reads payloads; keeps what of a hello has come."""

    def __init__(self) -> None:
        self._unfinished: OrderedDict[int, _Unfinished] = OrderedDict()

    def read(self, payload: Payload) -> Hello | Request | Answer | None:
        """What the payload says; None for what says nothing, or not yet."""
        match payload.kind:
            case Kind.TLS:
                return self._hello(payload)
            case Kind.HTTP:
                return request(payload.data)
            case Kind.DNS:
                return answer(payload.data)
            case _:
                return None

    def _hello(self, payload: Payload) -> Hello | None:
        held = self._unfinished.pop(payload.cookie, None) or _Unfinished(payload.sequence)
        offset = (payload.sequence - held.first) % _SEQUENCES
        if offset >= _MAX_HELLO_BYTES:
            return None
        held.pieces[offset] = payload.data
        message = _handshake(held.whole())
        found = hello(message) if message is not None else None
        if found is None:
            self._unfinished[payload.cookie] = held
            if len(self._unfinished) > _MAX_UNFINISHED:
                self._unfinished.popitem(last=False)
        return found


def _handshake(data: bytes) -> bytes | None:
    """The first handshake message, joined over records (RFC 8446 5.1); None while it is not whole."""
    message = b""
    at = 0
    while at + 5 <= len(data) and data[at] == _HANDSHAKE_RECORD:
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        message += data[at + 5 : at + 5 + length]
        at += 5 + length
    if len(message) < 4 or message[0] != _CLIENT_HELLO:
        return None
    end = 4 + int.from_bytes(message[1:4], "big")
    return message[4:end] if len(message) >= end else None


def hello(message: bytes) -> Hello | None:
    """A ClientHello's body (RFC 8446 4.1.2); None when it is none."""
    try:
        at = 34
        at += 1 + message[at]
        at += 2 + int.from_bytes(message[at : at + 2], "big")
        at += 1 + message[at]
        end = min(len(message), at + 2 + int.from_bytes(message[at : at + 2], "big"))
    except IndexError:
        return None
    at += 2
    while at + 4 <= end:
        kind, length = struct.unpack_from(">HH", message, at)
        if kind == _SERVER_NAME:
            # RFC 6066 3: a list of one; its length, the kind of name, the name's length.
            name = message[at + 9 : min(end, at + 4 + length)]
            return Hello(server_name=name.decode("ascii", "replace").lower())
        at += 4 + length
    return Hello(server_name="")


def request(data: bytes) -> Request | None:
    """The head of an HTTP/1 request (RFC 9112); None when it is none."""
    head = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    line = head[0].split(" ")
    if len(line) != 3 or not line[2].startswith("HTTP/1."):
        return None
    headers: dict[str, str] = {}
    for text in head[1:]:
        name, separator, value = text.partition(":")
        if separator:
            headers.setdefault(name.lower(), value.strip())
    return Request(method=line[0], target=line[1], headers=headers)


def answer(data: bytes) -> Answer | None:
    """A DNS answer to one question (RFC 1035 4); None when it is none."""
    if len(data) < 12:
        return None
    _, flags, questions, answers = struct.unpack_from(">4H", data)
    if not flags & 0x8000 or questions != 1:
        return None
    name, at = _name(data, 12)
    if at is None:
        return None
    at += 4
    addresses = []
    for _ in range(min(answers, _MAX_RECORDS)):
        _, after = _name(data, at)
        if after is None or after + 10 > len(data):
            break
        kind, _, _, length = struct.unpack_from(">HHIH", data, after)
        value = data[after + 10 : after + 10 + length]
        if kind == _A and len(value) == 4:
            addresses.append(str(IPv4Address(value)))
        elif kind == _AAAA and len(value) == 16:
            addresses.append(str(IPv6Address(value)))
        at = after + 10 + length
    return Answer(name=name, addresses=tuple(addresses))


def _name(data: bytes, at: int) -> tuple[str, int | None]:
    """A name in lower case and where it ends; None for the end of one that is not well made. A pointer ends it: none is followed."""
    labels: list[str] = []
    while at < len(data):
        length = data[at]
        if length == 0:
            return ".".join(labels).lower(), at + 1
        if length >= 0xC0:
            return ".".join(labels).lower(), at + 2
        labels.append(data[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    return "", None
