"""A client's Initial packets in a datagram, and the pieces of the hello that they carry (RFC 9000 12.2, 17.2, 19; RFC 9369 3.2). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sensor.handshakes.errors import QuicError, QuicVersionUnknown
from sensor.handshakes.quic_keys import SAMPLE_BYTES, VERSION_1, VERSION_2, InitialKeys

_LONG_HEADER: Final = 0x80
_FIXED_BIT: Final = 0x40
# RFC 9000 17.2
_MAX_CONNECTION_ID: Final = 20
# Of long headers, in each version's own numbers.
_INITIAL: Final = {VERSION_1: 0, VERSION_2: 1}
_RETRY: Final = {VERSION_1: 3, VERSION_2: 0}
# One of each kind is what a client has a reason to send together.
_MAX_COALESCED: Final = 8

_PADDING: Final = re.compile(rb"\x00+")
_PING, _ACK, _ACK_ECN, _CRYPTO, _CLOSE = 1, 2, 3, 6, 0x1C


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialPacket:
    """An Initial packet as it was sent, from the first byte of its header, with the ids of whom it is to (`connection_id`) and from;
    `number_at` is where its packet number begins."""

    version: int
    connection_id: bytes
    source_id: bytes
    data: bytes
    number_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CryptoPiece:
    """A piece of the handshake, and how far from its first byte it begins."""

    offset: int
    data: bytes


def packets(datagram: bytes) -> Iterator[InitialPacket]:
    """The Initial packets of a datagram. Raises QuicError where the datagram goes wrong, which may be after the first of them."""
    at = 0
    for _ in range(_MAX_COALESCED):
        # What follows the Initial packets may be of any kind, and padding outside of a packet is seen too.
        if at >= len(datagram) or not datagram[at] & _LONG_HEADER or not datagram[at] & _FIXED_BIT:
            if at == 0:
                raise QuicError("expected a QUIC packet with a long header, got none")
            return
        packet, at = _packet(datagram, at)
        if packet is not None:
            yield packet


def _packet(datagram: bytes, begin: int) -> tuple[InitialPacket | None, int]:
    """The packet that begins there, when it is an Initial, and where it ends."""
    version = int.from_bytes(datagram[begin + 1 : begin + 5], "big")
    if version not in _INITIAL:
        raise QuicVersionUnknown(f"expected QUIC version 1 or 2, got {version:#010x}")
    kind = datagram[begin] >> 4 & 3
    connection_id, at = _connection_id(datagram, begin + 5)
    source_id, at = _connection_id(datagram, at)
    if kind == _RETRY[version]:
        return None, len(datagram)
    if kind == _INITIAL[version]:
        token_bytes, at = _varint(datagram, at)
        at += token_bytes
    length, at = _varint(datagram, at)
    end = at + length
    if end > len(datagram):
        raise QuicError(f"expected a packet of {length} bytes from byte {at}, got a datagram of {len(datagram)}")
    if kind != _INITIAL[version]:
        return None, end
    if length < 4 + SAMPLE_BYTES:
        raise QuicError(f"expected a packet of at least {4 + SAMPLE_BYTES} bytes (RFC 9001 5.4.2), got one of {length}")
    data = datagram[begin:end]
    return InitialPacket(version=version, connection_id=connection_id, source_id=source_id, data=data, number_at=at - begin), end


def _connection_id(data: bytes, at: int) -> tuple[bytes, int]:
    if at >= len(data):
        raise QuicError("expected a connection id, got the end of the datagram")
    end = at + 1 + data[at]
    if data[at] > _MAX_CONNECTION_ID or end > len(data):
        raise QuicError(f"expected a connection id of at most {_MAX_CONNECTION_ID} bytes, got {data[at]}")
    return data[at + 1 : end], end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable length (RFC 9000 16) and where it ends."""
    if at >= len(data):
        raise QuicError("expected a number, got the end")
    width = 1 << (data[at] >> 6)
    end = at + width
    if end > len(data):
        raise QuicError(f"expected a number of {width} bytes, got the end")
    return int.from_bytes(data[at:end], "big") & ((1 << (8 * width - 2)) - 1), end


def open_packet(packet: InitialPacket, keys: InitialKeys) -> bytes:
    """The frames of a packet (RFC 9001 5.3, 5.4). Raises QuicNotAuthentic."""
    data, at = packet.data, packet.number_at
    mask = keys.mask(data[at + 4 : at + 4 + SAMPLE_BYTES])
    first = data[0] ^ (mask[0] & 0x0F)
    width = (first & 3) + 1
    number = int.from_bytes(data[at : at + width], "big") ^ int.from_bytes(mask[1 : 1 + width], "big")
    header = bytes([first]) + data[1:at] + number.to_bytes(width, "big")
    # A hello is among a connection's first packets, whose numbers are whole in the header (RFC 9000 17.1).
    return keys.open(number, header, data[at + width :])


def crypto_pieces(frames: bytes) -> Iterator[CryptoPiece]:
    """What the frames of an Initial packet carry of the handshake. Raises QuicError for a frame that none may have (RFC 9000 12.4)."""
    at = 0
    while at < len(frames):
        kind = frames[at]
        if kind == 0:
            padding = _PADDING.match(frames, at)
            at = padding.end() if padding else at + 1
            continue
        at += 1
        if kind == _PING:
            continue
        if kind == _CRYPTO:
            offset, at = _varint(frames, at)
            length, at = _varint(frames, at)
            if at + length > len(frames):
                raise QuicError(f"expected {length} bytes of handshake, got the end of the packet")
            yield CryptoPiece(offset=offset, data=frames[at : at + length])
            at += length
        elif kind in (_ACK, _ACK_ECN):
            at = _after_ack(frames, at, counts=3 if kind == _ACK_ECN else 0)
        elif kind == _CLOSE:
            return
        else:
            raise QuicError(f"expected a frame that an Initial packet may have, got one of type {kind}")


def _after_ack(frames: bytes, at: int, *, counts: int) -> int:
    """Where an acknowledgement ends (RFC 9000 19.3). A range takes two bytes at least, so the frame's size bounds their number."""
    for _ in range(2):
        _, at = _varint(frames, at)
    ranges, at = _varint(frames, at)
    if ranges > len(frames) - at:
        raise QuicError(f"expected {ranges} ranges of acknowledged packets, got the end of the packet")
    for _ in range(1 + 2 * ranges + counts):
        _, at = _varint(frames, at)
    return at
