"""Questions to the record, asked of the spool's files where they are, with ClickHouse's own engine (chdb).

Nothing is imported and nothing locked: writers go on while a question runs. Every value of a filter is a bound parameter. Lines that
can't be read (half a line of a writer at work, or damage that `verify` names) are counted, not hidden. The only module that imports chdb,
and only when a question is asked: the import takes a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from hopgate.audit import records, segments
from hopgate.audit.errors import QueryError

DEFAULT_LIMIT: Final = 50
# Whether a row's hash is that of its contents, in SQL over (writer, table, sequence, previous, hash, record).
HASH_FITS: Final = "lower(hex(SHA256(concat(writer, '\\n', `table`, '\\n', toString(sequence), '\\n', previous, '\\n', record)))) = hash"
_RECORD_BEGINS: Final = ',"record":'
# A String parameter is read in the TabSeparated form (ClickHouse, "Queries with parameters").
_ESCAPED: Final = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The answer to a statement: its columns' names and its rows. `unreadable` counts lines of the tables in it that are no records."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    unreadable: int


# What the chain is checked with, beside the record's own columns.
CHAIN_COLUMNS: Final = ("writer", "sequence", "previous", "hash", "record")
# filter → column, and how they are compared; `caller` is called otherwise in the other tables
_COMPARED: Final = {"since": ("time", ">="), "until": ("time", "<"), "id": ("id", "=")}
_CALLER: Final = {"decisions": "caller", "names": "agent", "changes": "name", "flows": "agent", "sightings": "name"}


def query(spool: Path, table: str, filters: Filters) -> Answer:
    """Rows of one table. Raises QueryError when they can't be read, or a filter is not one of this table's."""
    if table not in records.TABLES:
        raise QueryError(f"expected one of the tables {', '.join(records.TABLES)}, got `{table[:40]}`")
    condition, parameters = _condition(table, filters)
    if not segments.of(spool, table):
        return Answer(rows=(), unreadable=0)
    order = "ASC" if filters.oldest_first else "DESC"
    with _lines(spool, table) as lines:
        rows = _run(
            f"SELECT {_columns(table)} FROM ({links(lines)}) WHERE {condition} ORDER BY time {order}, id LIMIT {{limit:UInt32}}",  # noqa: S608 - names are ours, values are bound
            {**parameters, "limit": filters.limit},
        )
        unreadable = _unreadable(lines)
    return Answer(rows=tuple(_parsed(row) for row in rows), unreadable=unreadable)


def find(spool: Path, beginning: str) -> Answer:
    """The decisions whose id begins so, at most two. Raises QueryError."""
    if not segments.of(spool, "decisions"):
        return Answer(rows=(), unreadable=0)
    with _lines(spool, "decisions") as lines:
        rows = _run(
            f"SELECT {_columns('decisions')} FROM ({links(lines)}) WHERE startsWith(id, {{beginning:String}}) ORDER BY id LIMIT 2",  # noqa: S608 - names are ours, values are bound
            {"beginning": beginning},
        )
        unreadable = _unreadable(lines)
    return Answer(rows=tuple(_parsed(row) for row in rows), unreadable=unreadable)


def ask(spool: Path, statement: str) -> Result:
    """The answer to one SELECT in ClickHouse's SQL, over all tables of the record by their names. It has the caller's own rights.

    Raises QueryError when it can't be answered, also for a statement that is no SELECT.
    """
    statement = statement.strip().rstrip(";")
    named = [table for table in records.TABLES if re.search(rf"\b{table}\b", statement)]
    with contextlib.ExitStack() as stack:
        lines = {table: stack.enter_context(_lines(spool, table)) for table in named if segments.of(spool, table)}
        views = ",\n".join(f"{table} AS (SELECT {_with_chain(table)} FROM ({links(lines.get(table, _NO_LINES))}))" for table in named)  # noqa: S608 - names are ours
        # In brackets it can only be a SELECT, and the new line ends a comment that it may end in.
        asked = f"{f'WITH {views}' if views else ''}\nSELECT * FROM (\n{statement}\n)"
        [header, *rows] = _lines_of(asked, "JSONCompactEachRowWithNames", {}) or [b"[]"]
        unreadable = sum(_unreadable(read) for read in lines.values())
    return Result(columns=tuple(json.loads(header)), rows=tuple(tuple(json.loads(row)) for row in rows), unreadable=unreadable)


_NO_LINES: Final = "null('line String')"


@contextlib.contextmanager
def _lines(spool: Path, table: str) -> Iterator[str]:
    """The lines of a table's files as ClickHouse reads them, one column `line`: each by itself, so that a bad one hides no other.

    The folder goes in as a descriptor: in its own path `{`, `*` and `?` would be patterns, and there is no way to escape them.
    """
    try:
        descriptor = os.open(spool / table, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise segments.unreadable(spool / table, error) from error
    try:
        yield f"file('/proc/self/fd/{descriptor}/*.jsonl', LineAsString, 'line String')"
    finally:
        os.close(descriptor)


_IS_LINK: Final = "(isValidJSON(line) AND JSONType(line, 'record') = 'Object')"


def links(lines: str) -> str:
    """Lines as rows of (writer, table, sequence, previous, hash, record), the record's text byte for byte as it was hashed."""
    texts = ",\n    ".join(f"JSONExtractString(line, '{name}') AS `{name}`" for name in ("writer", "table", "previous", "hash"))
    begins = f"position(line, '{_RECORD_BEGINS}') + {len(_RECORD_BEGINS)}"
    others = f"JSONExtractUInt(line, 'sequence') AS sequence,\n    substring(line, {begins}, length(line) - ({begins})) AS record"
    return f"SELECT {texts},\n    {others}\n  FROM {lines}\n  WHERE {_IS_LINK}"  # noqa: S608 - names are ours


def _unreadable(lines: str) -> int:
    [counted] = _run(f"SELECT countIf(NOT {_IS_LINK}) AS unreadable FROM {lines}", {})  # noqa: S608 - names are ours
    return int(counted["unreadable"])


def _columns(table: str) -> str:
    return ", ".join(_column(name, kind) for name, kind in records.columns(table).items())


def _with_chain(table: str) -> str:
    return f"{_columns(table)}, {', '.join(CHAIN_COLUMNS)}"


def _column(name: str, kind: str) -> str:
    if name in records.JSON_COLUMNS:
        return f"JSONExtractRaw(record, '{name}') AS {name}"
    return f"JSONExtract(record, '{name}', '{_extracted(kind)}') AS {name}"


def _extracted(kind: str) -> str:
    return kind.removeprefix("LowCardinality(").removesuffix(")") if kind.startswith("LowCardinality(") else kind


def _condition(table: str, filters: Filters) -> tuple[str, dict[str, Any]]:
    known = records.columns(table)
    conditions, parameters = ["1"], {}
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
    return [json.loads(line) for line in _lines_of(statement, "JSONEachRow", parameters)]


def _lines_of(statement: str, form: str, parameters: dict[str, Any]) -> list[bytes]:
    """The answer's lines, in one of ClickHouse's formats that has a line for each row. Raises QueryError."""
    import chdb  # noqa: PLC0415 - see the module's docstring

    bound = {name: value.translate(_ESCAPED) if isinstance(value, str) else value for name, value in parameters.items()}
    try:
        answered = chdb.query(  # type: ignore[no-untyped-call]  # the package has no types
            f"{statement} SETTINGS output_format_json_quote_64bit_integers=0", form, params=bound
        )
    except RuntimeError as error:
        raise QueryError(f"the records can't be queried: {str(error).splitlines()[0][:300]}") from error
    return list(answered.bytes().splitlines())


def _parsed(row: dict[str, Any]) -> dict[str, Any]:
    """Columns that hold JSON text as what they hold."""
    return {name: json.loads(value or "{}") if name in records.JSON_COLUMNS else value for name, value in row.items()}
