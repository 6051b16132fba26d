"""The spool: segments of lines, one chain for each writer and table, written by several processes without a lock between them.

A record counts when its line is there with its end. A write that fails leaves the chain where it was: what came of the line is cut off
again, or the segment is given up and the next record begins another. A line without an end is the mark of a killed writer.

    FOLDER/TABLE/WRITER-000001.jsonl
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from hopgate.audit import chain, records
from hopgate.audit.errors import SpoolError
from hopgate.audit.records import Record

# Large enough that a segment is worth shipping, small enough that a query opens few and one that is lost is no disaster.
SEGMENT_BYTES: Final = 16 << 20
SEGMENT_SECONDS: Final = 3600.0


class Durability(StrEnum):
    """What a record has survived when `append` returns: the writer's death (`Write`), or the machine's too (`Fsync`)."""

    WRITE = "Write"
    FSYNC = "Fsync"


@dataclass(slots=True)
class _Segment:
    descriptor: int
    path: Path
    size: int
    opened_at: float


@dataclass(slots=True)
class _Chain:
    """Where the chain of one table is: the next sequence number, the last hash, the segment's number."""

    sequence: int = 0
    previous: str = chain.GENESIS
    segments: int = 0
    segment: _Segment | None = None


@dataclass(slots=True)
class Written:
    """What one writer has written since its start, and how many records it could not."""

    bytes: int = 0
    errors: int = 0


def new_writer(process: str) -> str:
    """The name of a process as a writer of records: no two have one, nor a process and the one before it."""
    return f"{process}-{int(time.time())}-{os.getpid()}-{secrets.token_hex(4)}"


class Spool:
    """One writer. Safe to use from several threads. `clock` gives seconds that only differences are taken of."""

    def __init__(
        self,
        folder: Path,
        writer: str,
        *,
        clock: Callable[[], float],
        durability: Durability,
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
    ) -> None:
        if not chain.is_writer(writer):
            raise ValueError(f"expected a writer's name of letters, digits and hyphens, got `{writer[:80]!r}`")
        self._folder = folder
        self._writer = writer
        self._clock = clock
        self._durability = durability
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._lock = threading.Lock()
        self._chains = {table: _Chain() for table in records.TABLES}
        self.written = Written()

    def append(self, record: Record) -> None:
        """Write one record. Raises SpoolError when it could not be written whole; it does not count then."""
        table = records.table_of(record)
        try:
            rendered = records.render(record)
        except RecursionError as error:
            self.written.errors += 1
            raise SpoolError(f"a record can't be written to `{self._folder}`: it nests too deep") from error
        with self._lock:
            kept = self._chains[table]
            made = chain.link(self._writer, table, kept.sequence, kept.previous, rendered)
            line = chain.encode(made)
            try:
                self._write(self._segment(table, kept), line)
            except OSError as error:
                self.written.errors += 1
                self._give_up(kept)
                raise SpoolError(f"a record can't be written to `{self._folder}`: {error.strerror}") from error
            kept.sequence += 1
            kept.previous = made.hash
            self.written.bytes += len(line)

    def close(self) -> None:
        """Close every segment. Nothing can be appended to them afterwards."""
        with self._lock:
            for kept in self._chains.values():
                if kept.segment is not None:
                    os.close(kept.segment.descriptor)
                    kept.segment = None

    def _segment(self, table: str, kept: _Chain) -> _Segment:
        segment = kept.segment
        if segment is not None:
            if segment.size < self._segment_bytes and self._clock() - segment.opened_at < self._segment_seconds:
                return segment
            kept.segment = None  # first: after a close that fails the number may already be another file's
            os.close(segment.descriptor)
        folder = self._folder / table
        for made in (self._folder, folder):  # not `parents=True`, which makes them with the default mode
            made.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{self._writer}-{kept.segments + 1:06d}.jsonl"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        kept.segments += 1
        kept.segment = _Segment(descriptor=descriptor, path=path, size=0, opened_at=self._clock())
        return kept.segment

    def _write(self, segment: _Segment, line: bytes) -> None:
        """One write of one whole line. Raises OSError; what came of the line is then beyond the segment's size."""
        written = os.write(segment.descriptor, line)
        if written != len(line):
            raise OSError(errno.ENOSPC, "no room for the whole record")
        if self._durability is Durability.FSYNC:
            os.fsync(segment.descriptor)
        segment.size += written  # last: what is beyond the size when anything above fails is cut off again

    def _give_up(self, kept: _Chain) -> None:
        """Begin another segment with the next record: what is at the end of this one is not certain. An empty one is taken away."""
        segment = kept.segment
        if segment is None:
            return
        kept.segment = None
        with contextlib.suppress(OSError):
            os.ftruncate(segment.descriptor, segment.size)
        with contextlib.suppress(OSError):
            os.close(segment.descriptor)
        if segment.size == 0:
            with contextlib.suppress(OSError):
                segment.path.unlink()
                kept.segments -= 1
