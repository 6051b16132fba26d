"""Bytes that come in pieces, in any order and more than once, put together from the first byte on.

Where two pieces overlap, the bytes that came first stand. Each piece is copied once or twice, so the whole is linear.
"""

from __future__ import annotations

import bisect
from typing import Final

from sensor.handshakes.errors import PieceError

# A hello of a post-quantum client with a session ticket has 3 KB; what is told of one ends here (sensor/bpf).
MAX_BYTES: Final = 16_384
# Of pieces that wait for the ones before them.
MAX_WAITING: Final = 64


class Pieces:
    """Pieces of one stream by their offset from its first byte."""

    __slots__ = ("_waiting", "ready")

    def __init__(self) -> None:
        self.ready = bytearray()
        self._waiting: list[tuple[int, bytes]] = []

    @property
    def size(self) -> int:
        """How many bytes are held."""
        return len(self.ready) + sum(len(data) for _, data in self._waiting)

    def add(self, offset: int, data: bytes) -> None:
        """Take in a piece. Raises PieceError when it is beyond the bounds; then it is not held."""
        if not 0 <= offset <= MAX_BYTES - len(data):
            raise PieceError(f"expected a piece within {MAX_BYTES} bytes, got {len(data)} bytes from {offset}")
        if offset > len(self.ready):
            self._wait(offset, data)
            return
        self.ready += data[len(self.ready) - offset :]
        while self._waiting and self._waiting[0][0] <= len(self.ready):
            offset, data = self._waiting.pop(0)
            self.ready += data[len(self.ready) - offset :]

    def _wait(self, offset: int, data: bytes) -> None:
        at = bisect.bisect_left(self._waiting, offset, key=lambda piece: piece[0])
        if at < len(self._waiting) and self._waiting[at][0] == offset:
            if len(data) > len(self._waiting[at][1]):
                self._waiting[at] = (offset, self._waiting[at][1] + data[len(self._waiting[at][1]) :])
            return
        if len(self._waiting) >= MAX_WAITING:
            raise PieceError(f"expected at most {MAX_WAITING} pieces that wait for others, got one more")
        self._waiting.insert(at, (offset, data))

    def moved(self, distance: int) -> Pieces:
        """The same pieces, when the first byte turns out to be `distance` bytes before. Raises PieceError."""
        found = Pieces()
        for offset, data in ((0, bytes(self.ready)), *self._waiting):
            if data:
                found.add(offset + distance, data)
        return found
