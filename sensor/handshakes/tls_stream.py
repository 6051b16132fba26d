"""The ClientHello at the beginning of a TCP stream, joined over segments and TLS records (RFC 8446 5.1).

TCP's numbers put segments in order. Where a stream begins is known once the segment with its first byte is there, so one that lies
before all others moves the beginning.
"""

from __future__ import annotations

from typing import Final

from sensor.handshakes import client_hello
from sensor.handshakes.errors import HelloError, PieceError
from sensor.handshakes.pieces import Pieces

HANDSHAKE_RECORD: Final = 0x16
# Of each version from SSL 3 on.
_BEGINNING: Final = bytes([HANDSHAKE_RECORD, 3])
_HEAD: Final = 5
_MAX_FRAGMENT: Final = 1 << 14
_SEQUENCES: Final = 1 << 32
# Each move reads the stream anew.
_MAX_MOVES: Final = 8


class TlsStream:
    """One stream while its hello is not whole."""

    __slots__ = ("_at", "_first", "_left", "_message", "_moves", "_pieces", "began_ns")

    def __init__(self, began_ns: int) -> None:
        self.began_ns = began_ns
        self._first: int | None = None
        self._moves = 0
        self._pieces = Pieces()
        self._begin()

    def _begin(self) -> None:
        self._at = self._left = 0
        self._message = bytearray()

    @property
    def size(self) -> int:
        """How many bytes are held."""
        return self._pieces.size + len(self._message)

    def add(self, sequence: int, data: bytes) -> bytes | None:
        """Take in the piece whose first byte has this number; the hello's body once it is whole. Raises HelloError and PieceError."""
        if self._first is None:
            self._first = sequence
        offset = (sequence - self._first) % _SEQUENCES
        if offset > _SEQUENCES // 2:
            self._move(sequence, _SEQUENCES - offset)
            offset = 0
        self._pieces.add(offset, data)
        return self._read()

    def _move(self, sequence: int, distance: int) -> None:
        if self._moves >= _MAX_MOVES:
            raise PieceError(f"expected a beginning that moves at most {_MAX_MOVES} times, got once more")
        self._pieces = self._pieces.moved(distance)
        self._first = sequence
        self._moves += 1
        self._begin()

    def _read(self) -> bytes | None:
        ready = self._pieces.ready
        if ready[: len(_BEGINNING)] != _BEGINNING[: len(ready)]:
            # The middle of a hello, whose beginning may still come.
            return None
        while self._at < len(ready):
            if not self._left:
                if len(ready) - self._at < _HEAD:
                    return None
                self._left = _fragment_bytes(ready[self._at : self._at + _HEAD])
                self._at += _HEAD
            fragment = ready[self._at : self._at + self._left]
            self._message += fragment
            self._at += len(fragment)
            self._left -= len(fragment)
            if (body := client_hello.body_of(self._message)) is not None:
                return body
        return None


def _fragment_bytes(head: bytearray) -> int:
    """How long the fragment is that a record's head announces. A handshake's is never empty (RFC 8446 5.1)."""
    length = head[3] << 8 | head[4]
    if head[0] != HANDSHAKE_RECORD or head[1] != 3 or not 0 < length <= _MAX_FRAGMENT:
        raise HelloError(f"expected a TLS handshake record, got one that begins with {head.hex()}")
    return length


def read(stream: bytes) -> client_hello.ClientHello | None:
    """The hello that the first bytes of a stream are; None while it is not whole. Raises HelloError and PieceError."""
    body = TlsStream(0).add(0, stream)
    return client_hello.read(body) if body is not None else None
