"""Every manipulation is named by file, line and sequence; what a killed writer leaves is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopgate.audit import chain, store, verify
from hopgate.audit.errors import QueryError
from hopgate.audit.verify import FaultKind
from tests.hopgate.audit import samples

Lines = list[bytes]
COUNT = 5


def forged(sequence: int, previous: str, writer: str = samples.WRITER, table: str = "decisions") -> bytes:
    """A line that fits behind `previous`, of somebody who knows the formula."""
    return chain.encode(chain.link(writer, table, sequence, previous, b'{"id":"forged"}'))


def hash_of(line: bytes) -> str:
    found = chain.decode(line)
    assert found is not None
    return found.hash


def rehashed(lines: Lines, at: int) -> Lines:
    """Line `at` with other contents and a hash that fits them."""
    old = chain.decode(lines[at])
    assert old is not None
    return [*lines[:at], forged(at, old.previous), *lines[at + 1 :]]


# name → (what is done to the lines, the faults as (kind, line, sequence))
MANIPULATIONS: dict[str, tuple[Callable[[Lines], Lines], list[tuple[FaultKind, int, int | None]]]] = {
    "a record altered": (
        lambda lines: [*lines[:2], lines[2].replace(b"planner", b"plamner"), *lines[3:]],
        [(FaultKind.ALTERED, 3, 2)],
    ),
    "a record altered and its hash made to fit": (lambda lines: rehashed(lines, 2), [(FaultKind.BROKEN, 4, 3)]),
    "a record removed": (lambda lines: lines[:2] + lines[3:], [(FaultKind.MISSING, 3, 3)]),
    "the first record removed": (lambda lines: lines[1:], [(FaultKind.MISSING, 1, 1)]),
    "two records in each other's place": (
        lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
        [(FaultKind.MISSING, 2, 2), (FaultKind.DOUBLED, 3, 1)],
    ),
    "a record doubled": (lambda lines: [*lines[:3], lines[2], *lines[3:]], [(FaultKind.DOUBLED, 4, 2)]),
    "a record inserted": (
        lambda lines: [*lines[:2], forged(2, hash_of(lines[1])), *lines[2:]],
        [(FaultKind.DOUBLED, 4, 2), (FaultKind.BROKEN, 5, 3)],
    ),
    "a record of another writer": (
        lambda lines: [*lines[:2], forged(2, hash_of(lines[1]), writer="authz-2"), *lines[2:]],
        [(FaultKind.MISPLACED, 3, 2)],
    ),
    "a record of another table": (
        lambda lines: [*lines[:2], forged(2, hash_of(lines[1]), table="names"), *lines[2:]],
        [(FaultKind.MISPLACED, 3, 2)],
    ),
    "a record that begins another chain": (lambda lines: [*lines, forged(0, chain.GENESIS)], [(FaultKind.DOUBLED, 6, 0)]),
    "text that is no record": (lambda lines: [*lines[:2], b"hello\n", *lines[2:]], [(FaultKind.UNREADABLE, 3, None)]),
    "an empty line": (lambda lines: [*lines[:2], b"\n", *lines[2:]], [(FaultKind.UNREADABLE, 3, None)]),
    "a field more beside the record": (
        lambda lines: [lines[0].replace(b'{"writer"', b'{"extra":1,"writer"'), *lines[1:]],
        [(FaultKind.UNREADABLE, 1, None), (FaultKind.MISSING, 2, 1)],
    ),
    "white space that changes no value": (
        lambda lines: [lines[0].replace(b'"sequence":0', b'"sequence": 0'), *lines[1:]],
        [(FaultKind.UNREADABLE, 1, None), (FaultKind.MISSING, 2, 1)],
    ),
}


@pytest.mark.parametrize(("manipulate", "faults"), MANIPULATIONS.values(), ids=MANIPULATIONS)
def test_names_what_was_done(tmp_path: Path, manipulate: Callable[[Lines], Lines], faults: list[tuple[FaultKind, int, int | None]]) -> None:
    [path] = samples.written(tmp_path, COUNT)
    path.write_bytes(b"".join(manipulate(path.read_bytes().splitlines(keepends=True))))
    found = verify.verify(tmp_path).faults
    assert [(fault.kind, fault.line, fault.sequence) for fault in found] == faults
    assert {fault.file for fault in found} == {"decisions/authz-1-000001.jsonl"}
    assert all(str(fault).startswith(f"decisions/authz-1-000001.jsonl:{fault.line}: ") for fault in found)


def test_finds_nothing_in_what_was_written(tmp_path: Path) -> None:
    samples.written(tmp_path, COUNT)
    samples.written(tmp_path, 2, writer="authz-2")
    found = verify.verify(tmp_path)
    assert (found.records, found.writers, found.files, found.unfinished, found.faults) == (COUNT + 2, 2, 2, (), ())


@pytest.mark.parametrize(
    ("removed", "fault"),
    [(1, ("decisions/authz-1-000003.jsonl", 1, 2)), (0, ("decisions/authz-1-000002.jsonl", 1, 1))],
    ids=["a middle segment", "the first segment"],
)
def test_names_a_segment_that_is_not_there(tmp_path: Path, removed: int, fault: tuple[str, int, int]) -> None:
    segments = samples.written(tmp_path, COUNT, segment_bytes=1)
    assert len(segments) == COUNT
    segments[removed].unlink()
    [found] = verify.verify(tmp_path).faults
    assert (found.kind, found.file, found.line, found.sequence) == (FaultKind.MISSING, *fault)


def test_names_segments_that_changed_places(tmp_path: Path) -> None:
    first, second, *_ = samples.written(tmp_path, COUNT, segment_bytes=1)
    held = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(held)
    assert [fault.kind for fault in verify.verify(tmp_path).faults] == [FaultKind.MISSING, FaultKind.DOUBLED]


def test_names_a_segment_under_another_writers_name(tmp_path: Path) -> None:
    [path] = samples.written(tmp_path, 1)
    path.rename(path.with_name("authz-2-000001.jsonl"))
    [found] = verify.verify(tmp_path).faults
    assert (found.kind, found.sequence) == (FaultKind.MISPLACED, 0)


def test_half_a_last_line_is_unfinished_and_no_fault(tmp_path: Path) -> None:
    [path] = samples.written(tmp_path, COUNT)
    path.write_bytes(path.read_bytes()[:-20])
    found = verify.verify(tmp_path)
    assert (found.records, found.unfinished, found.faults) == (COUNT - 1, ("decisions/authz-1-000001.jsonl",), ())


def test_only_half_a_line_is_unfinished_and_no_fault(tmp_path: Path) -> None:
    [path] = samples.written(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:10])
    found = verify.verify(tmp_path)
    assert (found.records, len(found.unfinished), found.faults) == (0, 1, ())


def test_refuses_a_folder_without_records(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="found none"):
        verify.verify(tmp_path)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    [path] = samples.written(tmp_path_factory.mktemp("spool"), COUNT)
    return path.read_bytes().splitlines()


@given(data=st.data())
def test_any_altered_byte_is_found(lines: Lines, data: st.DataObject) -> None:
    """Also the last line's, and whatever the byte becomes: a line's end too, which makes two lines of one."""
    number = data.draw(st.integers(0, COUNT - 1), "line")
    at = data.draw(st.integers(0, len(lines[number]) - 1), "byte")
    becomes = data.draw(st.integers(0, 255).filter(lambda value: value != lines[number][at]), "value")
    altered = lines[number][:at] + bytes([becomes]) + lines[number][at + 1 :]
    changed = b"\n".join([*lines[:number], altered, *lines[number + 1 :]]).split(b"\n")
    assert list(verify.check_lines("f", samples.WRITER, "decisions", changed))


def test_whole_lines_have_no_fault(lines: Lines) -> None:
    assert not list(verify.check_lines("f", samples.WRITER, "decisions", lines))


def _unlistable(folder: Path) -> None:
    for path in (folder / "decisions").iterdir():
        path.unlink()
    (folder / "decisions").rmdir()
    (folder / "decisions").write_bytes(b"")


def _dangling(folder: Path) -> None:
    (folder / "decisions" / "authz-1-00000009.jsonl").symlink_to(folder / "nowhere")


def _no_file(folder: Path) -> None:
    (folder / "decisions" / "authz-1-00000009.jsonl").mkdir()


@pytest.mark.parametrize("hide", [_unlistable, _dangling, _no_file], ids=["no folder", "a segment that is gone", "no file"])
def test_what_can_not_be_read_is_never_whole(tmp_path: Path, hide: Callable[[Path], None]) -> None:
    samples.written(tmp_path, COUNT)
    spool = samples.spool(tmp_path)
    spool.append(samples.name())
    spool.close()
    assert verify.verify(tmp_path).faults == ()
    hide(tmp_path)
    with pytest.raises(QueryError, match="can't be read"):
        verify.verify(tmp_path)
    with pytest.raises(QueryError, match="can't be read"):
        store.query(tmp_path, "decisions", store.Filters())
