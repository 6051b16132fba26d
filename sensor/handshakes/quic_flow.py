"""The ClientHellos that one socket sends to one address over QUIC, put together from its datagrams.

The keys of all Initial packets of a connection come from the client's first Destination Connection ID (RFC 9001 5.2). Later packets name
the id that the server chose, so what the kept keys open belongs to what was begun; what only the packet's own id opens begins a connection
(the first one, the next one, or the same one after a Retry); the rest is late and says nothing.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Final

from sensor.handshakes import client_hello
from sensor.handshakes.errors import QuicNotAuthentic
from sensor.handshakes.pieces import Pieces
from sensor.handshakes.quic_keys import InitialKeys
from sensor.handshakes.quic_packet import InitialPacket, crypto_pieces, open_packet, packets

# Connections of one socket to one address that are under way at once; and the datagrams of a flow that are looked at.
_MAX_ATTEMPTS: Final = 4
MAX_DATAGRAMS: Final = 64
_MAX_MARKS: Final = 16
# Of a hello's body (RFC 8446 4.1.2).
_RANDOM: Final = slice(2, 34)


@dataclass(slots=True)
class _Attempt:
    version: int
    connection_id: bytes
    source_id: bytes
    keys: InitialKeys
    pieces: Pieces = field(default_factory=Pieces)
    done: bool = False


class QuicFlow:
    """`late` counts packets that nothing opens once something was begun."""

    __slots__ = ("_attempts", "_datagrams", "_told", "began_ns", "late")

    def __init__(self, began_ns: int) -> None:
        self.began_ns = began_ns
        self.late = 0
        self._attempts: list[_Attempt] = []
        self._told: list[bytes] = []
        self._datagrams = 0

    @property
    def begun(self) -> bool:
        """Whether a packet was opened at all."""
        return bool(self._attempts)

    @property
    def size(self) -> int:
        """How many bytes are held."""
        return sum(attempt.pieces.size for attempt in self._attempts)

    def add(self, datagram: bytes) -> list[bytes]:
        """Take in a datagram; the bodies of the hellos that are whole by it. Raises HandshakeError."""
        found: list[bytes] = []
        self._datagrams += 1
        if self._datagrams > MAX_DATAGRAMS:
            self.late += 1
            return found
        for packet in packets(datagram):
            opened = self._open(packet)
            if opened is None:
                self.late += 1
                continue
            attempt, frames = opened
            if attempt.done:
                continue
            for piece in crypto_pieces(frames):
                attempt.pieces.add(piece.offset, piece.data)
            body = client_hello.body_of(attempt.pieces.ready)
            if body is not None:
                attempt.done = True
                attempt.pieces = Pieces()
                if self._is_new(attempt, body):
                    found.append(body)
        return found

    def _is_new(self, attempt: _Attempt, body: bytes) -> bool:
        """Whether it is no hello of a connection that was told. After a Retry a client keeps its own id (RFC 9000 17.2.5.2), which may be
        empty, and should say the same hello again (17.2.5.3), which not all do."""
        marks = {mark for mark in (attempt.source_id, body[_RANDOM]) if mark}
        new = marks.isdisjoint(self._told)
        self._told = [*marks, *self._told][:_MAX_MARKS]
        return new

    def _open(self, packet: InitialPacket) -> tuple[_Attempt, bytes] | None:
        """The connection that a packet belongs to and its frames; None for one that came late."""
        for attempt in self._attempts:
            if attempt.version == packet.version:
                with contextlib.suppress(QuicNotAuthentic):
                    return attempt, open_packet(packet, attempt.keys)
        if any(attempt.connection_id == packet.connection_id and attempt.version == packet.version for attempt in self._attempts):
            return None
        keys = InitialKeys(packet.version, packet.connection_id)
        try:
            frames = open_packet(packet, keys)
        except QuicNotAuthentic:
            if not self._attempts:
                raise
            return None
        attempt = _Attempt(packet.version, packet.connection_id, packet.source_id, keys)
        self._attempts = [attempt, *self._attempts][:_MAX_ATTEMPTS]
        return attempt, frames
