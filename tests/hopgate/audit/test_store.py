"""What is read with ClickHouse is what was written, while it is written, and no filter is more than a value."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hopgate.audit import records, store
from hopgate.audit.errors import QueryError
from hopgate.audit.records import Decision
from hopgate.audit.store import Filters
from tests.hopgate.audit import samples

HARD_TEXT = "héllo \"q\" 'a' \\ \n\t\r\x00\x1b\u2028\u202e 😀 {x:String} %s"
FULL: Decision = samples.decision(
    7,
    direction="Outbound",
    message=HARD_TEXT,
    caller="demo/planner",
    user=HARD_TEXT,
    user_groups=("a", 'b"c', "d'e", HARD_TEXT),
    chain=("demo/planner", "demo/other"),
    context={"arguments": {"limit": 10, "list": [1, 2.5, True, {"deep": [[]]}], HARD_TEXT: HARD_TEXT}, "big": 2**62, "negative": -1},
    policies=("demo/planner#search",),
    latency_us=2**32 - 1,
    body_bytes=2**53 + 1,
    path=HARD_TEXT,
    truncated=True,
)


def rows(folder: Path, table: str = "decisions", **filters: Any) -> list[dict[str, Any]]:
    return list(store.query(folder, table, Filters(**filters)).rows)


def numbers(folder: Path, **filters: Any) -> list[int]:
    """Which of the sample decisions are found."""
    return [int(row["id"], 16) for row in rows(folder, **filters)]


def as_row(record: records.Record) -> dict[str, Any]:
    return dict(json.loads(json.dumps(dataclasses.asdict(record))))


def test_rows_are_what_was_written(tmp_path: Path) -> None:
    written: dict[str, records.Record] = {
        "decisions": FULL,
        "names": samples.name(1, name="ü"),
        "changes": samples.change(2, after={"command": [HARD_TEXT]}),
        "flows": samples.flow(3, program=HARD_TEXT, cgroup=(1 << 64) - 1, duration_us=7),
        "sightings": samples.sighting(4, evidence=(HARD_TEXT, "b"), reached=("a.example",)),
    }
    spool = samples.spool(tmp_path)
    for record in written.values():
        spool.append(record)
    spool.close()
    for table, record in written.items():
        assert rows(tmp_path, table) == [as_row(record)]


@pytest.mark.parametrize("folder", ["{a,b}", "*?[x]", "it's", "back\\slash", "ü", "a b"])
def test_a_folder_of_any_name_is_read(tmp_path: Path, folder: str) -> None:
    samples.written(tmp_path / folder, 2)
    assert numbers(tmp_path / folder, oldest_first=True) == [0, 1]


def test_nothing_written_is_nothing_found(tmp_path: Path) -> None:
    assert store.query(tmp_path, "names", Filters()) == store.Answer(rows=(), unreadable=0)
    assert store.find(tmp_path, "") == store.Answer(rows=(), unreadable=0)


def test_refuses_a_table_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="expected one of the tables decisions, names, changes"):
        rows(tmp_path, "../decisions")


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six decisions; the odd ones are denials, every third is of another agent."""
    folder = tmp_path_factory.mktemp("six")
    spool = samples.spool(folder)
    for number in range(6):
        verdict, reason = ("Deny", "NoPermit") if number % 2 else ("Allow", "Permitted")
        caller = "demo/a" if number % 3 else "demo/b\\n"
        spool.append(samples.decision(number, verdict=verdict, reason=reason, caller=caller, user=f"u{number}", action="CallTool"))
    spool.append(samples.name(0, agent="demo/a"))
    spool.append(samples.change(0, name="demo/b"))
    spool.close()
    return folder


START = samples.decision(0).time
FILTERS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "the newest first": ({}, [5, 4, 3, 2, 1, 0]),
    "the oldest first": ({"oldest_first": True}, [0, 1, 2, 3, 4, 5]),
    "so many": ({"limit": 2}, [5, 4]),
    "since, that moment too": ({"since": START + 4}, [5, 4]),
    "until, that moment not": ({"until": START + 2}, [1, 0]),
    "a verdict": ({"verdict": "Deny"}, [5, 3, 1]),
    "a reason": ({"reason": "Permitted"}, [4, 2, 0]),
    "a caller": ({"caller": "demo/a"}, [5, 4, 2, 1]),
    "a caller with a backslash": ({"caller": "demo/b\\n"}, [3, 0]),
    "a caller with a line's end": ({"caller": "demo/b\n"}, []),
    "a user": ({"user": "u3"}, [3]),
    "an action": ({"action": "CallTool", "limit": 1}, [5]),
    "an id": ({"id": f"{2:032x}"}, [2]),
    "several at once": ({"verdict": "Deny", "caller": "demo/a"}, [5, 1]),
}


@pytest.mark.parametrize(("filters", "found"), FILTERS.values(), ids=FILTERS)
def test_filters(six: Path, filters: dict[str, Any], found: list[int]) -> None:
    assert numbers(six, **filters) == found


def test_the_caller_of_other_tables_is_who_they_are_about(six: Path) -> None:
    assert [len(rows(six, table, caller=agent)) for table in ("names", "changes") for agent in ("demo/a", "demo/b")] == [1, 0, 0, 1]


def test_refuses_a_filter_that_the_table_does_not_have(six: Path) -> None:
    with pytest.raises(QueryError, match="got `verdict`"):
        rows(six, "names", verdict="Deny")


@pytest.mark.parametrize(
    "value",
    [
        "x' OR '1'='1",
        "x') OR 1=1 --",
        "x' UNION ALL SELECT * FROM file('/etc/passwd', LineAsString) --",
        "{caller:String}",
        "\\' OR 1=1 --",
        "\x00",
        "a\tb\nc",
        "'; DROP TABLE x; --",
    ],
)
def test_a_filter_is_a_value_whatever_it_says(six: Path, value: str) -> None:
    assert rows(six, caller=value) == []
    assert store.find(six, value).rows == ()
    assert len(rows(six, caller="demo/a")) == 4


def test_finds_by_the_beginning_of_an_id(six: Path) -> None:
    assert [row["user"] for row in store.find(six, f"{3:032x}").rows] == ["u3"]
    assert len(store.find(six, "0").rows) == 2
    assert store.find(six, "f").rows == ()


def test_reads_while_a_writer_is_in_the_middle_of_a_line(tmp_path: Path) -> None:
    [path] = samples.written(tmp_path, 3)
    samples.written(tmp_path, 2, writer="authz-2")
    path.write_bytes(path.read_bytes() + path.read_bytes()[:80])
    answer = store.query(tmp_path, "decisions", Filters())
    assert (len(answer.rows), answer.unreadable) == (5, 1)


@pytest.mark.parametrize("bad", [b"hello", b"", b"[]", b'{"record":1}', b'{"writer":"a', b"\xff\xfe", b'{"a":"', b"{}"], ids=repr)
def test_a_bad_line_is_counted_and_hides_no_other(tmp_path: Path, bad: bytes) -> None:
    [path] = samples.written(tmp_path, 4)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], bad, *lines[2:], b""]))
    answer = store.query(tmp_path, "decisions", Filters())
    assert ([int(row["id"], 16) for row in answer.rows], answer.unreadable) == ([3, 2, 1, 0], 1)


def test_clickhouse_computes_the_hashes_that_were_written(tmp_path: Path) -> None:
    """The statement of the reference page, on every kind of text."""
    spool = samples.spool(tmp_path)
    for record in (FULL, samples.decision(1), samples.decision(2, context={"é": 1.0, "e": 1e300})):
        spool.append(record)
    spool.close()
    assert hashes_fit(tmp_path) == [1, 1, 1]
    [path] = (tmp_path / "decisions").iterdir()
    path.write_bytes(path.read_bytes().replace(b"1.0", b"1.1"))
    assert hashes_fit(tmp_path) == [1, 1, 0]


def hashes_fit(folder: Path) -> list[int]:
    with store._lines(folder, "decisions") as lines:
        found = store._run(f"SELECT {store.HASH_FITS} AS fits FROM ({store.links(lines)}) ORDER BY sequence", {})  # noqa: S608 - names are ours
    return [row["fits"] for row in found]


def test_a_question_leaves_nothing_behind_and_prints_nothing(six: Path, tmp_path: Path) -> None:
    script = "import sys, pathlib\nfrom hopgate.audit import store\nstore.query(pathlib.Path(sys.argv[1]), 'decisions', store.Filters())"
    home, current, temporary = (tmp_path / name for name in ("home", "current", "temporary"))
    for folder in (home, current, temporary):
        folder.mkdir()
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(six)],
        env={"HOME": str(home), "TMPDIR": str(temporary), "PYTHONPATH": ":".join(sys.path)},
        cwd=current,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert (ran.stdout, ran.stderr) == (b"", b"")
    assert [list(folder.rglob("*")) for folder in (home, current, temporary)] == [[], [], []]


def test_reads_what_a_writer_at_work_has_written(tmp_path: Path) -> None:
    """Questions while another process appends find more and more, all of it readable."""
    from tests.hopgate.audit.test_spool import writer  # noqa: PLC0415 - the process that writes for ever

    process = writer(tmp_path, "busy", -1)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        deadline = time.monotonic() + 30
        first = len(rows(tmp_path, "names", limit=100_000))
        while (now := len(rows(tmp_path, "names", limit=100_000))) == first < 100_000:
            assert time.monotonic() < deadline
    finally:
        process.kill()
        process.communicate(timeout=30)
    assert now >= first >= 100


@pytest.mark.parametrize("table", records.TABLES)
def test_sql_has_each_column_of_each_table_and_those_of_the_chain(tmp_path: Path, table: str) -> None:
    samples.written(tmp_path, 1)
    assert store.ask(tmp_path, f"SELECT * FROM {table}").columns == (*records.columns(table), *store.CHAIN_COLUMNS)  # noqa: S608 - ours


def test_sql_keeps_the_order_that_it_asks_for(tmp_path: Path) -> None:
    for writer in ("authz-1", "authz-2", "authz-3"):
        samples.written(tmp_path, 3000, writer=writer, segment_bytes=200_000)
    answer = store.ask(tmp_path, "SELECT time, writer FROM decisions ORDER BY time DESC, writer -- the newest first")
    assert len(answer.rows) == 9000
    assert list(answer.rows) == sorted(answer.rows, key=lambda row: (-row[0], row[1]))


def test_sql_joins_tables_and_computes_the_chain(tmp_path: Path) -> None:
    spool = samples.spool(tmp_path)
    spool.append(FULL)
    spool.append(samples.name(1, agent=FULL.caller))
    spool.close()
    joined = "WITH asked AS (SELECT agent FROM names) SELECT message, user_groups FROM decisions JOIN asked ON caller = agent"
    assert store.ask(tmp_path, joined).rows == ((HARD_TEXT, list(FULL.user_groups)),)
    whole = store.HASH_FITS.replace("`table`", "'decisions'")
    assert store.ask(tmp_path, f"SELECT {whole}, JSONExtractInt(context, 'big') FROM decisions").rows == ((1, 2**62),)  # noqa: S608 - ours


def test_sql_counts_the_lines_that_are_no_records_of_the_tables_that_it_asks(tmp_path: Path) -> None:
    [path] = samples.written(tmp_path, 2)
    with path.open("ab") as file:
        file.write(b'{"half')
    assert store.ask(tmp_path, "SELECT count() FROM decisions") == store.Result(columns=("count()",), rows=((2,),), unreadable=1)
    assert store.ask(tmp_path, "SELECT count() FROM names") == store.Result(columns=("count()",), rows=((0,),), unreadable=0)
