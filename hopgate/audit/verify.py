"""Whether the records are as they were written: every chain of every writer, every fault named by file, line and sequence.

What it can't tell: that the last records of a writer were cut off at the end, since nothing comes after them. Pure, but for
`verify`, which reads the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hopgate.audit import chain, records, segments
from hopgate.audit.errors import QueryError


class FaultKind(StrEnum):
    """What is wrong at a place."""

    ALTERED = "Altered"  # the line's hash is not that of its contents
    UNREADABLE = "Unreadable"  # the line is none that a writer wrote
    DOUBLED = "Doubled"  # a sequence number that came before
    MISSING = "Missing"  # sequence numbers that are not there
    BROKEN = "Broken"  # a line that does not name the hash of the one before it
    MISPLACED = "Misplaced"  # a line of another writer or table than its file's


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. `line` counts from 1; `sequence` is None where the line does not tell."""

    kind: FaultKind
    file: str
    line: int
    sequence: int | None
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message} ({self.kind})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """`unfinished` are files that end in half a line, as a killed writer leaves them: nothing is wrong with that."""

    records: int
    writers: int
    files: int
    unfinished: tuple[str, ...]
    faults: tuple[Fault, ...]


@dataclass(slots=True)
class _Progress:
    sequence: int = 0
    previous: str = chain.GENESIS


def verify(folder: Path) -> Verification:
    """Verify every segment of a spool. Raises QueryError when there is none, or one can't be read."""
    faults: list[Fault] = []
    unfinished: list[str] = []
    counted, files, writers = 0, 0, 0
    for table in records.TABLES:
        for writer, paths in _by_writer(segments.of(folder, table)).items():
            writers += 1
            progress = _Progress()
            for path in paths:
                files += 1
                data = segments.read(path)
                shown = str(path.relative_to(folder))
                whole, _, half = data.rpartition(b"\n")
                if half:
                    unfinished.append(shown)
                lines = whole.split(b"\n") if whole else []
                counted += len(lines)
                faults.extend(check_lines(shown, writer, table, lines, progress))
    if not files:
        raise QueryError(f"expected records in `{folder}`, found none: name the data folder with --data")
    return Verification(records=counted, writers=writers, files=files, unfinished=tuple(unfinished), faults=tuple(faults))


def _by_writer(paths: Iterable[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(path.stem.rpartition("-")[0], []).append(path)
    return found


def check_lines(file: str, writer: str, table: str, lines: Iterable[bytes], progress: _Progress | None = None) -> Iterator[Fault]:
    """The faults of one segment's lines. `progress` carries on from the writer's segment before."""
    at = progress if progress is not None else _Progress()
    for number, line in enumerate(lines, start=1):
        found = chain.decode(line)
        if found is None:
            yield Fault(kind=FaultKind.UNREADABLE, file=file, line=number, sequence=None, message="the line is not a record")
            continue
        yield from _check(found, file, number, writer, table, at)


def _check(found: chain.Link, file: str, line: int, writer: str, table: str, at: _Progress) -> Iterator[Fault]:
    def fault(kind: FaultKind, message: str) -> Fault:
        return Fault(kind=kind, file=file, line=line, sequence=found.sequence, message=f"record {found.sequence}: {message}")

    if (found.writer, found.table) != (writer, table):
        yield fault(FaultKind.MISPLACED, f"it belongs to {found.writer}, table {found.table}")
        return
    if chain.digest(found.writer, found.table, found.sequence, found.previous, found.record) != found.hash:
        yield fault(FaultKind.ALTERED, "its contents are not what was written")
    if found.sequence < at.sequence:
        yield fault(FaultKind.DOUBLED, f"expected record {at.sequence}, this one came before")
        return
    if found.sequence > at.sequence:
        yield fault(FaultKind.MISSING, f"records {at.sequence} to {found.sequence - 1} are not there")
    elif found.previous != at.previous:
        yield fault(FaultKind.BROKEN, "the record before it is not the one that it was written after")
    at.sequence, at.previous = found.sequence + 1, found.hash
