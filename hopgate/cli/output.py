"""What commands print: a table for people, JSON lines for programs. Colours and drawing only on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click


def json_lines(rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line. What is not printable is written as JSON's own escape: a terminal must not obey it."""
    for row in rows:
        click.echo(_escaped(json.dumps(row, ensure_ascii=False), lambda character: json.dumps(character)[1:-1]))


def line(text: str) -> None:
    """One line of text that others had a part in. Control characters in it are shown, not obeyed."""
    click.echo(visible(text))


def visible(text: str) -> str:
    """`text` with every character that is not printable (also what turns the direction of writing) as its code."""
    return _escaped(text, lambda character: f"\\x{ord(character):02x}")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, red: Sequence[bool] = ()) -> None:
    """Aligned columns. `red` marks rows that a person should see first. Control characters in the values are shown, not obeyed."""
    cleaned = [[visible(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _drawn(headings, cleaned, red)
        return
    widths = [max(len(heading), *(len(row[at]) for row in cleaned), 0) for at, heading in enumerate(headings)]
    for row in (headings, *cleaned):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _drawn(headings: Sequence[str], rows: Sequence[Sequence[str]], red: Sequence[bool]) -> None:
    from rich import box  # noqa: PLC0415 - for a terminal only
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(*headings, box=box.SIMPLE_HEAD, pad_edge=False)
    for at, row in enumerate(rows):
        style = "red" if at < len(red) and red[at] else ""
        drawn.add_row(*(Text(cell, style=style, overflow="fold") for cell in row))
    Console().print(drawn)


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    return "".join(character if character.isprintable() else escape(character) for character in text)
