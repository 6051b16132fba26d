"""What others wrote is shown on a terminal and never obeyed by it."""

from __future__ import annotations

import io
import json
import sys

import pytest

from hopgate.cli import output

# Escape sequences of the terminal (C0, C1), a carriage return that hides what stands before, and what turns the writing around.
HOSTILE = "a\x1b[2Jb\x9b2Jc\rd\x07e\x7ff\u202eg\u2066h\u2028i\nj\x00"
SHOWN = "a\\x1b[2Jb\\x9b2Jc\\x0dd\\x07e\\x7ff\\x202eg\\x2066h\\x2028i\\x0aj\\x00"


def test_a_table_shows_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name", "x"), [[HOSTILE, "1"], ["höflich 日本", "2"]])
    heading, first, second = capsys.readouterr().out.splitlines()
    assert first == f"{SHOWN}  1"
    assert second.startswith("höflich 日本 ")
    assert heading.startswith("name")


def test_a_table_on_a_terminal_shows_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    output.table(("name", "x"), [[HOSTILE, "[red]1[/red]"]], red=[True])
    assert SHOWN in terminal.getvalue()
    assert "[red]1[/red]" in terminal.getvalue()


def test_a_table_without_rows_has_its_headings(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name", "x"), [])
    assert capsys.readouterr().out == "name  x\n"


def test_a_line_shows_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    output.line(HOSTILE)
    assert capsys.readouterr().out == SHOWN + "\n"


def test_json_is_the_same_value_and_has_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"text": HOSTILE, "ü": ["日本", "\U000e0001"], "n": 1}
    output.json_lines([row, {}])
    first, second = capsys.readouterr().out.splitlines()
    assert (json.loads(first), json.loads(second)) == (row, {})
    assert first.isprintable()
    assert "日本" in first
