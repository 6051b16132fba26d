"""Questions to the record, asked of the spool's files where they are, with ClickHouse's own engine (chdb).

Nothing is imported and nothing locked: writers go on while a question runs. Every value of a filter is a bound parameter. Lines that
can't be read (half a line of a writer at work, or damage that `verify` names) are counted, not hidden. The only module that imports chdb,
and only when a question is asked: the import takes a second.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from hopgate.audit import records
from hopgate.audit.errors import QueryError

DEFAULT_LIMIT: Final = 50
_LINE = "writer String, `table` String, sequence UInt64, previous String, hash String, record String"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which rows. Times are in Unix microseconds; text is matched whole. None: no matter."""

    since: int | None = None
    until: int | None = None
    id: str | None = None
    caller: str | None = None
    user: str | None = None
    action: str | None = None
    verdict: str | None = None
    reason: str | None = None
    limit: int = DEFAULT_LIMIT
    oldest_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Rows as mappings of column to value. `unreadable` counts lines that are no records."""

    rows: tuple[dict[str, Any], ...]
    unreadable: int


# filter → column, and how they are compared; `caller` is called otherwise in the other tables
_COMPARED: Final = {"since": ("time", ">="), "until": ("time", "<"), "id": ("id", "=")}
_CALLER: Final = {"decisions": "caller", "names": "agent", "changes": "name"}


def query(spool: Path, table: str, filters: Filters) -> Answer:
    """Rows of one table. Raises QueryError when there is none to read, or a filter is not one of this table's."""
    if table not in records.TABLES:
        raise QueryError(f"expected one of the tables {', '.join(records.TABLES)}, got `{table[:40]}`")
    if not any((spool / table).glob("*.jsonl")):
        return Answer(rows=(), unreadable=0)
    condition, parameters = _condition(table, filters)
    order = "ASC" if filters.oldest_first else "DESC"
    # The rows that were asked for, and beside them what is there at all: the difference is what could not be read.
    rows = _run(
        f"SELECT {_columns(table)} FROM {_source(spool, table)} WHERE {condition} ORDER BY time {order}, id LIMIT {{limit:UInt32}}",  # noqa: S608 - names are ours, values are bound
        {**parameters, "limit": filters.limit},
    )
    return Answer(rows=tuple(_parsed(table, row) for row in rows), unreadable=_unreadable(spool, table))


def find(spool: Path, beginning: str) -> Answer:
    """The decisions whose id begins so, at most two. Raises QueryError."""
    if not any((spool / "decisions").glob("*.jsonl")):
        return Answer(rows=(), unreadable=0)
    statement = f"SELECT {_columns('decisions')} FROM {_source(spool, 'decisions')} WHERE startsWith(id, {{beginning:String}}) LIMIT 2"  # noqa: S608 - names are ours, values are bound
    rows = _run(statement, {"beginning": beginning})
    return Answer(rows=tuple(_parsed("decisions", row) for row in rows), unreadable=0)


def _source(spool: Path, table: str) -> str:
    """The files of a table as rows of (writer, table, sequence, previous, hash, record)."""
    pattern = str(spool.resolve() / table / "*.jsonl").replace("\\", "\\\\").replace("'", "\\'")
    return f"file('{pattern}', JSONEachRow, '{_LINE}')"


def _columns(table: str) -> str:
    return ", ".join(f"JSONExtract(record, '{name}', '{_extracted(kind)}') AS {name}" for name, kind in records.columns(table).items())


def _extracted(kind: str) -> str:
    return kind.removeprefix("LowCardinality(").removesuffix(")") if kind.startswith("LowCardinality(") else kind


def _condition(table: str, filters: Filters) -> tuple[str, dict[str, Any]]:
    known = records.columns(table)
    conditions, parameters = ["record != ''"], {}
    for item in fields(Filters):
        value = getattr(filters, item.name)
        if value is None or item.name in {"limit", "oldest_first"}:
            continue
        column, operator = _COMPARED.get(item.name, (item.name, "="))
        column = _CALLER[table] if item.name == "caller" else column
        if column not in known:
            raise QueryError(f"expected a filter that the table `{table}` has, got `{item.name}`: its columns are {', '.join(known)}")
        kind = _extracted(known[column])
        conditions.append(f"{column} {operator} {{{item.name}:{kind}}}")
        parameters[item.name] = value
    return " AND ".join(conditions), parameters


def _run(statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    import chdb  # noqa: PLC0415 - see the module's docstring

    settings = (
        "input_format_allow_errors_num=1000000, input_format_json_read_objects_as_strings=1, output_format_json_quote_64bit_integers=0"
    )
    try:
        answered = chdb.query(  # type: ignore[no-untyped-call]  # the package has no types
            f"{statement} SETTINGS {settings}", "JSONEachRow", params=parameters
        )
    except RuntimeError as error:
        raise QueryError(f"the records can't be queried: {str(error).splitlines()[0][:300]}") from error
    return [json.loads(line) for line in answered.bytes().splitlines()]


def _parsed(table: str, row: dict[str, Any]) -> dict[str, Any]:
    """Columns that hold JSON text as what they hold."""
    for name in ("context", "before", "after"):
        if name in row and table in records.TABLES:
            row[name] = json.loads(row[name] or "{}")
    return row


def _unreadable(spool: Path, table: str) -> int:
    pattern = str(spool.resolve() / table / "*.jsonl").replace("\\", "\\\\").replace("'", "\\'")
    lines = _run(f"SELECT count() AS n FROM file('{pattern}', LineAsString, 'line String')", {})  # noqa: S608 - the path is quoted above
    whole = _run(f"SELECT count() AS n FROM {_source(spool, table)} WHERE record != ''", {})  # noqa: S608 - names are ours
    return int(lines[0]["n"]) - int(whole[0]["n"])
