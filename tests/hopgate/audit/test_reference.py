"""The reference page is what its definition gives, and the SQL on it finds what `verify` finds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hopgate.audit import records, reference, store
from tests.hopgate.audit import samples


def test_the_page_is_what_is_generated(repository: Path, tmp_path: Path) -> None:
    made = tmp_path / "records.md"
    subprocess.run([sys.executable, "-m", "hopgate.audit.reference", str(made)], check=True, cwd=repository, stdin=subprocess.DEVNULL)
    assert (repository / "docs" / "reference" / "records.md").read_text(encoding="utf-8") == made.read_text(encoding="utf-8"), (
        "run `make gen`"
    )


def test_without_a_file_it_says_what_it_expects(capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main([]) == 2
    assert "FILE" in capsys.readouterr().err


@pytest.mark.parametrize("table", records.TABLES)
def test_the_page_has_each_column(table: str) -> None:
    section = reference.page().partition(f"## `{table}`")[2].partition("\n## ")[0]
    named = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    assert named == list(records.columns(table))


def faults(folder: Path) -> list[tuple[int, int, int]]:
    with store._lines(folder, "decisions") as lines:
        found = store._run(reference.verification_sql(lines), {})
    return sorted((row["sequence"], row["whole"], row["in_place"]) for row in found)


def test_the_pages_sql_finds_nothing_in_what_was_written(tmp_path: Path) -> None:
    samples.written(tmp_path, 4, segment_bytes=1)
    samples.written(tmp_path, 3, writer="authz-2")
    assert faults(tmp_path) == []


def test_the_pages_sql_finds_what_was_altered(tmp_path: Path) -> None:
    [path] = samples.written(tmp_path, 4)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:1], lines[1].replace(b"planner", b"plamner"), *lines[2:]]))
    assert faults(tmp_path) == [(1, 0, 1)]


def test_the_pages_sql_finds_where_a_record_was_taken_out(tmp_path: Path) -> None:
    [path] = samples.written(tmp_path, 4)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], *lines[2:]]))
    assert faults(tmp_path) == [(2, 1, 0), (3, 1, 0)]
