"""The reader of one BPF ring buffer (kernel: Documentation/bpf/ringbuf.rst), through memory that is shared with the kernel: no call for
each record.

The map is one page with the reader's position, then one with the writer's, then the data. The kernel offers the data a second time behind
that, so that no record is broken at the end. The reader goes without: each page of both would count in its memory.
A record is a head of two words, its length with two marks and its place, and then its bytes, rounded up to eight. The kernel clears
`busy` last of all when a record is whole.
"""

from __future__ import annotations

import mmap
from typing import Final

_BUSY: Final = 1 << 31
_DISCARDED: Final = 1 << 30
HEAD_BYTES: Final = 8


class Ring:
    """A ring that nobody else reads. `descriptor` is the map's, `size` its bytes, a power of two."""

    def __init__(self, descriptor: int, size: int) -> None:
        """Raises OSError."""
        self.descriptor = descriptor
        self._size, self._mask = size, size - 1
        self._reader_page = mmap.mmap(descriptor, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._writer_page = mmap.mmap(descriptor, mmap.PAGESIZE + size, mmap.MAP_SHARED, mmap.PROT_READ, offset=mmap.PAGESIZE)
        self._position = memoryview(self._reader_page).cast("Q")
        self._end = memoryview(self._writer_page)[: mmap.PAGESIZE].cast("Q")
        self._data = memoryview(self._writer_page)[mmap.PAGESIZE :]
        self._words = self._data.cast("I")

    def read(self) -> list[bytes]:
        """Copies of the whole records that were there at the call; bounded by the ring's size.

        Ends at a record that is still being written: those behind it come with the next call. Each is given back to the kernel when it is
        copied, not before.
        """
        records: list[bytes] = []
        position, end = self._position[0], self._end[0]
        while position < end:
            place = position & self._mask
            length = self._words[place >> 2]
            if length & _BUSY:
                break
            size = length & ~_DISCARDED
            if not length & _DISCARDED:
                records.append(self._copy(place + HEAD_BYTES & self._mask, size))
            position += HEAD_BYTES + (size + 7 & ~7)
            self._position[0] = position
        return records

    def read_alike(self, size: int) -> bytes:
        """The records that were there at the call, each behind its head of HEAD_BYTES, in one copy: for a ring whose records are all
        whole multiples of eight, of `size` bytes, and never discarded. Ends where a record is still being written.
        """
        step = HEAD_BYTES + size
        position, end = self._position[0], self._end[0]
        copies: list[bytes | memoryview] = []
        while position + step <= end:
            place = position & self._mask
            # How many lie in one piece; none: the next one is broken at the end.
            count = min(end - position, self._size - place) // step
            whole = self._count_whole(place, max(1, count), size)
            copies.append(self._data[place : place + whole * step] if count else self._copy(place, whole * step))
            position += whole * step
            if whole < count or not whole:
                break
        copied = b"".join(copies)
        self._position[0] = position
        return copied

    def _count_whole(self, place: int, count: int, size: int) -> int:
        """Of so many records from `place` on, how many are whole, up to the first that is not."""
        lengths = self._words[place >> 2 : (place + count * (HEAD_BYTES + size)) >> 2 : (HEAD_BYTES + size) >> 2].tolist()
        return count if lengths.count(size) == count else next(number for number, length in enumerate(lengths) if length != size)

    def _copy(self, place: int, size: int) -> bytes:
        first = bytes(self._data[place : place + size])
        return first if len(first) == size else first + bytes(self._data[: size - len(first)])

    def close(self) -> None:
        """Give the memory back. No record may be in use any more."""
        for view in (self._words, self._data, self._end, self._position):
            view.release()
        self._writer_page.close()
        self._reader_page.close()
