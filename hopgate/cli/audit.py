"""`hopgate audit`: what agents did, read from the records where they are."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from hopgate.audit import records, store
from hopgate.audit import verify as verification
from hopgate.audit.errors import AuditError
from hopgate.audit.store import Filters
from hopgate.cli import output
from hopgate.cli.data import default_data_folder

_WAYS = {"Outbound": "out", "Inbound": "in", "Mesh": "mesh"}
_VERDICTS = ("Allow", "Deny", "ThroughGate", "Bypass", "Local", "Unattributable")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=default_data_folder,
    show_default=True,
    help="The data folder that holds the records.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")


class _Moment(click.ParamType[int]):
    """ISO 8601 (UTC where it names no zone, as in the tables), or how long ago: `15m`, `2h`, `1d`. Gives Unix microseconds."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value)
        ago = re.fullmatch(r"(\d{1,9})([smhd])", text)
        if ago is not None:
            return max(0, int((time.time() - int(ago[1]) * _UNITS[ago[2]]) * 1_000_000))
        try:
            moment = datetime.datetime.fromisoformat(text)
            return int((moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp() * 1_000_000)
        except ValueError:
            self.fail(f"expected a time such as `2h` or `2026-01-31T12:00:00`, got `{text[:40]}`", param, ctx)


MOMENT = _Moment()


def _filters(command: Any) -> Any:
    """The options that choose rows, for `audit` and for `audit list`."""
    for option in reversed(
        (
            click.option("--table", type=click.Choice(tuple(records.TABLES)), default="decisions", show_default=True, help="Which table."),
            click.option("--since", type=MOMENT, help="Not before: `15m`, `2h`, `1d` ago, or ISO 8601 in UTC."),
            click.option("--until", type=MOMENT, help="Before: the same forms."),
            click.option("--caller", help="The calling agent, NAMESPACE/NAME."),
            click.option("--user", help="On whose behalf: the user's id."),
            click.option("--action", help="Cedar's action, such as CallTool."),
            click.option("--verdict", type=click.Choice(_VERDICTS), help="What was enforced; of flows, what was seen."),
            click.option("--reason", help="The reason code, such as NoPermit."),
            click.option(
                "--limit", type=click.IntRange(1, 100_000), default=store.DEFAULT_LIMIT, show_default=True, help="At most so many."
            ),
            click.option("--oldest-first", is_flag=True, help="In the order in which things happened."),
            data_option,
            _json,
        )
    ):
        command = option(command)
    return command


@click.group(invoke_without_command=True, epilog="Example: hopgate audit --verdict Deny --since 1h")
@_filters
@click.pass_context
def group(context: click.Context, /, **options: Any) -> None:
    """What agents did, for whom, and which policy let them. Without a verb: `list`.

    Exit code 0: done; 1: no such record, or `verify` found a fault; 2: wrong usage, or nothing to read.
    """
    if context.invoked_subcommand is None:
        _list(**options)
        return
    given = [name for name in options if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if given:
        option = next(found.opts[0] for found in context.command.params if found.name == given[0])
        raise click.UsageError(f"expected `{option}` behind `{context.invoked_subcommand}`, got it before", context)


@group.command("list", epilog="Example: hopgate audit list --caller demo/planner --action CallTool --json")
@_filters
def list_(**options: Any) -> None:
    """List records, the newest first.

    Times are UTC. Exit code 0: done, also when nothing was found; 2: wrong usage, or nothing to read.
    """
    _list(**options)


def _list(*, table: str, data: Path, as_json: bool, **chosen: Any) -> None:
    try:
        answer = store.query(records_in(data), table, Filters(**chosen))
    except AuditError as error:
        fail(error)
    rows = [_with_time(row) for row in answer.rows]
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    dated = any(not row["time"].startswith(today) for row in rows)
    if as_json:
        output.json_lines(rows)
    elif table == "decisions":
        denied = [row["verdict"] == "Deny" for row in rows]
        headings = ("time", "who", "for whom", "way", "what", "verdict", "reason", "policy", "ms", "id")
        output.table(headings, [_decision_row(row, dated=dated) for row in rows], red=denied)
    else:
        shown = list(records.columns(table))[1:]
        output.table(shown, [[str(row[name]) for name in shown] for row in rows])
    tell_unreadable(answer.unreadable)


@group.command(epilog="Example: hopgate audit show 5f1c…  (the id stands in `hopgate audit` and in every denial)")
@click.argument("identifier", metavar="ID")
@data_option
@_json
def show(identifier: str, data: Path, *, as_json: bool) -> None:
    """Show one decision with everything that is known of it. ID may be its beginning.

    Exit code 0: shown; 1: there is no such decision, or more than one begins so; 2: wrong usage, or nothing to read.
    """
    row = _with_time(find_one(data, identifier))
    if as_json:
        output.json_lines([row])
        return
    meanings = records.meanings("decisions")
    for name, value in row.items():
        if value not in ("", [], {}, False):
            output.line(f"{name:20}{value}   # {meanings[name]}" if sys.stdout.isatty() else f"{name:20}{value}")


@group.command(epilog="Example: hopgate audit sql \"SELECT caller, reason, count() FROM decisions WHERE verdict = 'Deny' GROUP BY ALL\"")
@click.argument("statement", metavar="SELECT")
@data_option
@_json
def sql(statement: str, data: Path, *, as_json: bool) -> None:
    """Ask in ClickHouse's SQL, over the tables of the record by their names.

    SELECT is one statement; it runs with your rights, on the files where they are. `time` is in microseconds since 1970:
    fromUnixTimestamp64Micro(time) reads well. Exit code 0: answered, also without rows; 2: wrong usage, no such column or table, or
    nothing to read.
    """
    try:
        answer = store.ask(records_in(data), statement)
    except AuditError as error:
        fail(error)
    if as_json:
        output.json_lines(dict(zip(answer.columns, row, strict=True)) for row in answer.rows)
    else:
        output.table(answer.columns, [[value if isinstance(value, str) else json.dumps(value) for value in row] for row in answer.rows])
    tell_unreadable(answer.unreadable)


@group.command(epilog="Example: hopgate audit verify")
@data_option
@_json
def verify(data: Path, *, as_json: bool) -> None:
    """Check every chain of every writer: altered, missing, doubled or moved records are named.

    The last records of a writer can be cut off at its end without a trace. Exit code 0: whole; 1: faults; 2: wrong usage, nothing to
    read, or not all of it can be read.
    """
    try:
        found = verification.verify(records_in(data))
    except AuditError as error:
        fail(error)
    if as_json:
        output.json_lines([dataclasses.asdict(found)])
    else:
        for fault in found.faults:
            output.line(str(fault))
        state = "whole" if not found.faults else f"{len(found.faults)} faults"
        unfinished = f", {len(found.unfinished)} files end in half a line (a killed writer's)" if found.unfinished else ""
        click.echo(f"{state}: {found.records} records of {found.writers} chains in {found.files} files{unfinished}")
    sys.exit(1 if found.faults else 0)


def find_one(data: Path, identifier: str) -> dict[str, Any]:
    """The decision whose id is, or begins, so. Ends the command when there is none, or more than one."""
    try:
        answer = store.find(records_in(data), identifier)
    except AuditError as error:
        fail(error)
    tell_unreadable(answer.unreadable)
    if len(answer.rows) != 1:
        click.echo(f"expected the id of one decision, `{identifier[:40]}` begins {len(answer.rows)}", err=True)
        sys.exit(1)
    return answer.rows[0]


def records_in(data: Path) -> Path:
    """The spool of a data folder. Ends the command when there is none, or it may not be read."""
    spool = data / "spool"
    try:
        readable = spool.is_dir()
    except PermissionError:
        click.echo(f"hopgate: `{data}` belongs to another user: run this as the one who runs the gate (sudo?)", err=True)
        sys.exit(2)
    if not readable:
        click.echo(f"hopgate: expected records in `{data}`, found none: name the data folder with --data", err=True)
        sys.exit(2)
    return spool


def tell_unreadable(lines: int) -> None:
    """Say that lines were passed over, if any were."""
    if lines:
        click.echo(f"{lines} lines are no records; `hopgate audit verify` says which", err=True)


def fail(error: AuditError) -> NoReturn:
    """End the command with an error of the record."""
    click.echo(f"hopgate: {error} ({error.code})", err=True)
    sys.exit(2)


def _with_time(row: dict[str, Any]) -> dict[str, Any]:
    try:
        moment = datetime.datetime.fromtimestamp(row["time"] / 1_000_000, datetime.UTC)
    except (ValueError, OverflowError):
        return {**row, "time": str(row["time"])}  # no writer of ours wrote that; `verify` says which line it is
    return {**row, "time": moment.isoformat(timespec="microseconds").replace("+00:00", "Z")}


def _decision_row(row: dict[str, Any], *, dated: bool) -> list[str]:
    """A row for people. `dated` shows the day too, which a table of today's decisions alone doesn't need."""
    resource = row["resource"] or row["destination"] or row["address"]
    return [
        row["time"][0 if dated else 11 : -4].replace("T", " ") if row["time"].endswith("Z") else row["time"],
        row["caller"] or "?",
        row["user"] or "-",
        _WAYS.get(row["direction"], "?"),
        f"{row['action'] or '?'} {resource}",
        row["verdict"],
        row["reason"],
        ", ".join(row["policies"]) or "-",
        f"{row['latency_us'] / 1000:.1f}",
        row["id"][:8],
    ]
