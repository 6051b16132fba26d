"""QUIC packets made to measure, sealed by another implementation than the one under test."""

from __future__ import annotations

import functools

from aioquic.quic.crypto import CryptoPair

from sensor.handshakes.quic_keys import VERSION_1, VERSION_2
from tests.sensor.handshakes import hellos

_INITIAL = {VERSION_1: 0, VERSION_2: 1}


def varint(value: int) -> bytes:
    if value < 1 << 6:
        return bytes([value])
    if value < 1 << 14:
        return (value | 1 << 14).to_bytes(2, "big")
    return (value | 1 << 31).to_bytes(4, "big")


def crypto(offset: int, data: bytes) -> bytes:
    """A CRYPTO frame."""
    return b"\x06" + varint(offset) + varint(len(data)) + data


def initial(
    frames: bytes,
    *,
    version: int = VERSION_1,
    connection_id: bytes = hellos.QUIC_CONNECTION_ID,
    keys_of: bytes | None = None,
    number: int = 0,
    token: bytes = b"",
    source_id: bytes = b"",
    number_bytes: int = 4,
) -> bytes:
    """A client's Initial packet, sealed with the keys of `keys_of` (the connection id itself where there is none)."""
    frames = frames.ljust(4, b"\0")
    first = 0xC0 | _INITIAL[version] << 4 | number_bytes - 1
    length = number_bytes + len(frames) + 16
    header = (
        bytes([first])
        + version.to_bytes(4, "big")
        + hellos.vector(connection_id, 1)
        + hellos.vector(source_id, 1)
        + varint(len(token))
        + token
    )
    header += (length | 1 << 14).to_bytes(2, "big") + number.to_bytes(number_bytes, "big")
    return bytes(_keys(connection_id if keys_of is None else keys_of, version).encrypt_packet(header, frames, number))


@functools.cache
def _keys(connection_id: bytes, version: int) -> CryptoPair:
    pair = CryptoPair()
    pair.setup_initial(cid=connection_id, is_client=True, version=version)
    return pair


def other_packet(kind: int, *, version: int = VERSION_1, size: int = 50) -> bytes:
    """A packet with a long header of this kind (0-RTT, Handshake), with nothing readable in it."""
    return (
        bytes([0xC0 | kind << 4])
        + version.to_bytes(4, "big")
        + hellos.vector(hellos.QUIC_CONNECTION_ID, 1)
        + b"\0"
        + varint(size)
        + bytes(size)
    )
