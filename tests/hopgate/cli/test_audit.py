"""`hopgate audit`: rows for people and for programs, and exit codes that a script can go by."""

from __future__ import annotations

import datetime
import json
import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hopgate.cli.main import commands
from tests.hopgate.audit import samples

HOUR = 3_600_000_000
NOW = int(time.time() * 1_000_000)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two decisions of an hour ago and one of three hours ago, a name and a run."""
    folder = tmp_path_factory.mktemp("data")
    spool = samples.spool(folder / "spool")
    told = {"caller": "demo/planner", "action": "CallTool", "resource": 'Tool::"demo/tickets/search"'}
    spool.append(samples.decision(0xA1, **told, direction="Outbound", time=NOW - 3 * HOUR, reason="Permitted", policies=("demo/p/search",)))
    spool.append(samples.decision(0xA2, **told, direction="Mesh", time=NOW - HOUR, reason="Permitted", user="ada", latency_us=1500))
    spool.append(
        samples.decision(
            0xB1, time=NOW - HOUR + 1, verdict="Deny", reason="NoPermit", direction="Inbound", path="/\x1b[2J\x9bü", caller="demo/other"
        )
    )
    spool.append(samples.name(time=NOW - HOUR))
    spool.append(samples.change(time=NOW - HOUR, after={"command": ["a\x1b[2J"]}))
    spool.close()
    return folder


def audit(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(commands, ["audit", *arguments, "--data", str(data)])


def found(data: Path, *arguments: str) -> list[int]:
    """Which of the decisions are listed."""
    ran = audit(data, "list", "--json", *arguments)
    assert ran.exit_code == 0, ran.output
    return [int(json.loads(line)["id"], 16) for line in ran.stdout.splitlines()]


def test_lists_decisions_for_people(data: Path) -> None:
    ran = audit(data)
    heading, denied, allowed, first = ran.stdout.splitlines()
    assert ran.exit_code == 0
    assert heading.split()[:2] == ["time", "who"]
    times = 2 if re.match(r"\d{4}-", denied) else 1  # the day stands before the time once one of them is of yesterday
    assert denied.split()[times:] == ["demo/other", "-", "in", "?", "Deny", "NoPermit", "-", "0.0", "0" * 8]
    assert allowed.split()[times : times + 7] == [
        "demo/planner",
        "ada",
        "mesh",
        "CallTool",
        'Tool::"demo/tickets/search"',
        "Allow",
        "Permitted",
    ]
    assert "demo/p/search" in first
    assert ran.stderr == ""


def test_without_a_verb_it_lists(data: Path) -> None:
    assert audit(data, "--verdict", "Deny").stdout == audit(data, "list", "--verdict", "Deny").stdout


FILTERS: dict[str, tuple[list[str], list[int]]] = {
    "nothing": ([], [0xB1, 0xA2, 0xA1]),
    "the oldest first": (["--oldest-first"], [0xA1, 0xA2, 0xB1]),
    "so many": (["--limit", "1"], [0xB1]),
    "a verdict": (["--verdict", "Deny"], [0xB1]),
    "a caller": (["--caller", "demo/planner"], [0xA2, 0xA1]),
    "a user": (["--user", "ada"], [0xA2]),
    "a reason": (["--reason", "NoPermit"], [0xB1]),
    "an action": (["--action", "CallTool"], [0xA2, 0xA1]),
    "how long ago": (["--since", "2h"], [0xB1, 0xA2]),
    "minutes ago": (["--since", "90m", "--verdict", "Allow"], [0xA2]),
    "until": (["--until", "2h"], [0xA1]),
    "a day ago": (["--since", "1d", "--until", "7200s"], [0xA1]),
    "the longest time ago that can be said": (["--since", "999999999d"], [0xB1, 0xA2, 0xA1]),
    "a date": (["--since", "2020-01-31"], [0xB1, 0xA2, 0xA1]),
    "a moment with its zone": (["--since", datetime.datetime.now(datetime.UTC).isoformat()], []),
    "a filter that says more": (["--caller", "x' OR 1=1 --"], []),
}


@pytest.mark.parametrize(("arguments", "numbers"), FILTERS.values(), ids=FILTERS)
def test_filters(data: Path, arguments: list[str], numbers: list[int]) -> None:
    assert found(data, *arguments) == numbers


def test_json_is_whole_and_has_times_that_people_read(data: Path) -> None:
    [line] = audit(data, "--json", "--verdict", "Deny").stdout.splitlines()
    row = json.loads(line)
    assert row["path"] == "/\x1b[2J\x9bü"
    assert line.isprintable()
    assert datetime.datetime.fromisoformat(row["time"]).timestamp() == pytest.approx((NOW - HOUR) / 1_000_000, abs=1)


@pytest.mark.parametrize(("table", "shown"), [("names", "a.example"), ("changes", "\\x1b[2J")])
def test_lists_the_other_tables(data: Path, table: str, shown: str) -> None:
    heading, row = audit(data, "list", "--table", table).stdout.splitlines()
    assert heading.startswith("time")
    assert "demo/planner" in row
    assert row.isprintable()
    assert shown in row or shown.encode().decode("unicode_escape") not in row
    assert len(audit(data, "list", "--table", table, "--json").stdout.splitlines()) == 1


WRONG = {
    "a filter that the table does not have": ["list", "--table", "names", "--verdict", "Deny"],
    "a time that is none": ["list", "--since", "yesterday"],
    "a table that is none": ["list", "--table", "x"],
    "a limit of none": ["list", "--limit", "0"],
    "no id": ["show"],
    "a verb that is none": ["drop"],
    "an option before the verb, which would not reach it": ["--verdict", "Deny", "list"],
    "an option before another verb": ["--json", "verify"],
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_wrong_usage_ends_with_2(data: Path, arguments: list[str]) -> None:
    ran = audit(data, *arguments)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr


def test_a_folder_without_records_ends_with_2_and_says_where_to_look(tmp_path: Path) -> None:
    for verb in ("list", "verify"):
        ran = audit(tmp_path, verb)
        assert (ran.exit_code, ran.stdout) == (2, "")
        assert "--data" in ran.stderr


def test_shows_one_decision(data: Path) -> None:
    ran = audit(data, "show", f"{0xB1:032x}")
    assert ran.exit_code == 0
    shown = dict(line.split(maxsplit=1) for line in ran.stdout.splitlines())
    assert (shown["reason"], shown["path"]) == ("NoPermit", "/\\x1b[2J\\x9bü")
    [line] = audit(data, "show", f"{0xB1:032x}", "--json").stdout.splitlines()
    assert json.loads(line)["path"] == "/\x1b[2J\x9bü"


@pytest.mark.parametrize(("beginning", "count"), [("ffff", 0), ("0", 2), ("' OR 1=1", 0)], ids=["none", "several", "a filter"])
def test_shows_nothing_where_no_one_decision_is_named(data: Path, beginning: str, count: int) -> None:
    ran = audit(data, "show", beginning)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert f"begins {count}" in ran.stderr


def test_whole_records_verify(data: Path) -> None:
    ran = audit(data, "verify")
    assert (ran.exit_code, ran.stdout) == (0, "whole: 5 records of 3 chains in 3 files\n")
    assert json.loads(audit(data, "verify", "--json").stdout)["faults"] == []


def test_a_fault_ends_with_1_and_says_where(tmp_path: Path) -> None:
    [path] = samples.written(tmp_path / "spool", 3)
    path.write_bytes(path.read_bytes().replace(b"planner", b"plamner", 1))
    ran = audit(tmp_path, "verify")
    assert ran.exit_code == 1
    assert ran.stdout.splitlines() == [
        "decisions/authz-1-000001.jsonl:1: record 0: its contents are not what was written (Altered)",
        "1 faults: 3 records of 1 chains in 1 files",
    ]
    ran = audit(tmp_path, "verify", "--json")
    assert (ran.exit_code, json.loads(ran.stdout)["faults"][0]["line"]) == (1, 1)


def test_a_fault_is_told_without_what_a_terminal_obeys(tmp_path: Path) -> None:
    [path] = samples.written(tmp_path / "spool", 1)
    path.write_bytes(path.read_bytes().replace(b'"authz-1"', '"\x9b2J"'.encode()))
    ran = audit(tmp_path, "verify")
    assert "\\x9b2J" in ran.stdout
    assert "\x9b" not in ran.stdout


def test_half_a_line_is_told_and_no_fault(tmp_path: Path) -> None:
    [path] = samples.written(tmp_path / "spool", 3)
    path.write_bytes(path.read_bytes()[:-5])
    ran = audit(tmp_path, "verify")
    assert (ran.exit_code, "1 files end in half a line" in ran.stdout) == (0, True)
    listed = audit(tmp_path, "list", "--json")
    assert (listed.exit_code, len(listed.stdout.splitlines())) == (0, 2)
    assert "1 lines are no records" in listed.stderr


def test_a_record_with_an_impossible_time_is_listed_all_the_same(tmp_path: Path) -> None:
    samples.written(tmp_path / "spool", 1)
    spool = samples.spool(tmp_path / "spool", "authz-2")
    spool.append(samples.decision(9, time=2**62))
    spool.close()
    assert found(tmp_path) == [9, 0]
    assert audit(tmp_path).exit_code == 0


SQL = "SELECT caller, count() AS hops, max(latency_us) AS slowest FROM decisions GROUP BY caller ORDER BY hops DESC, caller"


def test_sql_answers_for_people_and_for_programs(data: Path) -> None:
    ran = audit(data, "sql", SQL)
    assert ran.exit_code == 0, ran.output
    assert [line.split() for line in ran.stdout.splitlines()] == [
        ["caller", "hops", "slowest"],
        ["demo/planner", "2", "1500"],
        ["demo/other", "1", "0"],
    ]
    ran = audit(data, "sql", SQL + ";", "--json")
    assert [json.loads(line) for line in ran.stdout.splitlines()] == [
        {"caller": "demo/planner", "hops": 2, "slowest": 1500},
        {"caller": "demo/other", "hops": 1, "slowest": 0},
    ]


def test_sql_without_rows_is_an_answer_and_a_table_without_files_is_empty(data: Path) -> None:
    ran = audit(data, "sql", "SELECT id FROM flows")
    assert (ran.exit_code, ran.stdout.split()) == (0, ["id"])


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT nothing FROM decisions",
        "SELECT 1 FROM no_table",
        "DROP TABLE decisions",
        "INSERT INTO FUNCTION file('/dev/null', CSV) SELECT 1",
        "SELECT 1; SELECT 2",
        "",
    ],
)
def test_sql_that_is_no_question_to_the_record_is_refused(data: Path, statement: str) -> None:
    ran = audit(data, "sql", statement)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "QueryFailed" in ran.stderr


def test_sql_shows_control_characters_and_obeys_none(data: Path) -> None:
    ran = audit(data, "sql", "SELECT path, user_groups FROM decisions WHERE verdict = 'Deny'")
    assert ran.exit_code == 0
    assert "\\x1b[2J\\x9bü" in ran.stdout
    assert "\x1b" not in ran.stdout
