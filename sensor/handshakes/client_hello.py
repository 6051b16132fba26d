"""A TLS ClientHello as a value (RFC 8446 4.1.2; TLS 1.0 to 1.3, and the one inside of QUIC). Pure.

Read as a strict server reads it: each length must fit, and no extension may come twice. A hello that is not well made is an error, and is
told as one, so a name that a lax server might still find in it is not guessed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sensor.handshakes import pieces
from sensor.handshakes.errors import HelloError, HelloTooLong
from sensor.handshakes.host_names import host_name

CLIENT_HELLO: Final = 1
_HEAD: Final = 4

# RFC 8701 2: for cipher suites, extensions, groups, signature algorithms and versions.
GREASE: Final = frozenset(number << 8 | number for number in range(0x0A, 0x100, 0x10))

SERVER_NAME: Final = 0
SIGNATURE_ALGORITHMS: Final = 13
ALPN: Final = 16
SUPPORTED_VERSIONS: Final = 43
ENCRYPTED_CLIENT_HELLO: Final = 0xFE0D


class NameState(StrEnum):
    """What stands where the server's name belongs (RFC 6066 3)."""

    ABSENT = "Absent"
    HOST_NAME = "HostName"
    NOT_A_HOST_NAME = "NotAHostName"
    """Something is there that no host is called: an address, or bytes. It is not handed on."""


class Ech(StrEnum):
    """What is known of Encrypted Client Hello (RFC 9849)."""

    ABSENT = "Absent"
    OUTER_OR_GREASE = "OuterOrGrease"
    """A sealed hello may be inside, and then the name that shows is only the front's; or there is none and the extension is a decoy
    (GREASE), and then the name is true. That the two look alike is the purpose of the decoy."""
    INNER = "Inner"
    """The mark of a sealed hello, in clear: nobody should send it so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientHello:
    """What a client offers, in its order. `server_name` is empty unless `name_state` is HOST_NAME; `alpn` is as it was sent."""

    version: int
    random: bytes
    cipher_suites: tuple[int, ...]
    extensions: tuple[int, ...]
    server_name: str
    name_state: NameState
    alpn: tuple[bytes, ...]
    supported_versions: tuple[int, ...]
    signature_algorithms: tuple[int, ...]
    ech: Ech


def body_of(message: bytes | bytearray) -> bytes | None:
    """The body of the ClientHello that a handshake begins with; None while it is not whole. Raises HelloError."""
    if message and message[0] != CLIENT_HELLO:
        raise HelloError(f"expected a ClientHello (1), got a handshake message of type {message[0]}")
    if len(message) < _HEAD:
        return None
    end = _HEAD + int.from_bytes(message[1:_HEAD], "big")
    if end > pieces.MAX_BYTES:
        raise HelloTooLong(f"expected a hello of at most {pieces.MAX_BYTES} bytes, got one of {end}")
    return bytes(message[_HEAD:end]) if len(message) >= end else None


def read(body: bytes) -> ClientHello:
    """The hello that a handshake message's body is. Raises HelloError."""
    if len(body) < 34:
        raise HelloError(f"expected a version and a random value (34 bytes), got {len(body)} bytes")
    session, at = _vector(body, 34, 1)
    if len(session) > 32:
        raise HelloError(f"expected a session id of at most 32 bytes, got {len(session)}")
    suites, at = _vector(body, at, 2)
    compression, at = _vector(body, at, 1)
    if not compression:
        raise HelloError("expected a compression method, got none")
    listed = b""
    if at != len(body):
        listed, at = _vector(body, at, 2)
    if at != len(body):
        raise HelloError(f"expected the end after the extensions, got {len(body) - at} bytes more")
    found = _extensions(listed)
    server_name, name_state = _server_name(found.get(SERVER_NAME))
    return ClientHello(
        version=body[0] << 8 | body[1],
        random=body[2:34],
        cipher_suites=_numbers(suites),
        extensions=tuple(found),
        server_name=server_name,
        name_state=name_state,
        alpn=_alpn(found.get(ALPN)),
        supported_versions=_listed_numbers(found.get(SUPPORTED_VERSIONS), 1),
        signature_algorithms=_listed_numbers(found.get(SIGNATURE_ALGORITHMS), 2),
        ech=_ech(found.get(ENCRYPTED_CLIENT_HELLO)),
    )


def _vector(data: bytes, at: int, width: int) -> tuple[bytes, int]:
    """What follows a length of `width` bytes, and where it ends."""
    begin = at + width
    end = begin + int.from_bytes(data[at:begin], "big")
    if begin > len(data) or end > len(data):
        raise HelloError(f"expected what a length announces at byte {at}, got the end of the hello")
    return data[begin:end], end


def _extensions(listed: bytes) -> dict[int, bytes]:
    """The extensions' data by their type, in the order they came."""
    found: dict[int, bytes] = {}
    at, end = 0, len(listed)
    while at < end:
        if at + 4 > end:
            raise HelloError("expected an extension's type and length, got the end of the list")
        kind, length = struct.unpack_from(">HH", listed, at)
        at += 4 + length
        if at > end:
            raise HelloError(f"expected {length} bytes of extension {kind}, got the end of the list")
        if kind in found:
            raise HelloError(f"expected extension {kind} once (RFC 8446 4.2), got it twice")
        found[kind] = listed[at - length : at]
    return found


def _numbers(data: bytes) -> tuple[int, ...]:
    if len(data) % 2 or not data:
        raise HelloError(f"expected a list of numbers of two bytes, got {len(data)} bytes")
    return struct.unpack(f">{len(data) // 2}H", data)


def _whole(data: bytes, width: int) -> bytes:
    """What an extension that is one vector holds."""
    inside, end = _vector(data, 0, width)
    if end != len(data):
        raise HelloError(f"expected one list in an extension, got {len(data) - end} bytes more")
    return inside


def _listed_numbers(data: bytes | None, width: int) -> tuple[int, ...]:
    return () if data is None else _numbers(_whole(data, width))


def _server_name(data: bytes | None) -> tuple[str, NameState]:
    if data is None:
        return "", NameState.ABSENT
    listed = _whole(data, 2)
    # RFC 6066 3: at most one name of a type, and the only type there is is a host name (0).
    if not listed or listed[0] != 0:
        return "", NameState.NOT_A_HOST_NAME
    written, end = _vector(listed, 1, 2)
    name = host_name(written) if end == len(listed) else ""
    return name, NameState.HOST_NAME if name else NameState.NOT_A_HOST_NAME


def _alpn(data: bytes | None) -> tuple[bytes, ...]:
    if data is None:
        return ()
    listed = _whole(data, 2)
    found = []
    at = 0
    while at < len(listed):
        name, at = _vector(listed, at, 1)
        if not name:
            raise HelloError("expected a protocol's name in ALPN (RFC 7301 3.1), got an empty one")
        found.append(name)
    return tuple(found)


def _ech(data: bytes | None) -> Ech:
    """RFC 9849 5: the first byte says which of the two hellos it marks."""
    if data is None:
        return Ech.ABSENT
    return Ech.INNER if data == b"\x01" else Ech.OUTER_OR_GREASE
