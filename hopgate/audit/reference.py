"""The reference page of the record, from its definition: `python -m hopgate.audit.reference FILE`.

The tables, their columns and what they say come from `hopgate.audit.records`, bounds and SQL from the modules that apply
them, so that the page can't say anything else than what is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from hopgate.audit import records, spool, store, verify

_TABLES: Final = {
    "decisions": "One row for each hop that was judged, in either direction, allowed or denied.",
    "names": "One row for each question that an agent asked its resolver.",
    "changes": "One row for each start and end of a run; in a cluster for each accepted change, and each opt-out of a pod.",
    "flows": """What the kernel saw of each connection that a governed agent made, told by the sensor, which knows nothing of the decisions.

A connection has one `Ended` row when it is over, and before it a `Begun` row when it has been open for five seconds, or as soon as it is
known to go around the gate. A datagram socket has one `Begun` row for each destination, since nothing tells its end. So
`uniqExact(id)` counts connections, whatever state they are in, also when two sensors told of one; `phase = 'Ended'` has the bytes.
The last row of an id has the verdict that counts: `argMax(verdict, duration_us)`.""",
    "sightings": "One row for each unregistered program that looks like an agent, when it is first seen and when more is known of it.",
}
_FAULTS: Final = {
    verify.FaultKind.ALTERED: "the line's hash is not that of its contents",
    verify.FaultKind.UNREADABLE: "the line is none that a writer wrote",
    verify.FaultKind.DOUBLED: "a sequence number that came before: a record was doubled, put in or moved",
    verify.FaultKind.MISSING: "sequence numbers that are not there: a record or a whole file was taken out or moved",
    verify.FaultKind.BROKEN: "the line does not name the hash of the one before it",
    verify.FaultKind.MISPLACED: "a line of another writer or table than its file's",
}


def page() -> str:
    """The whole page, Markdown."""
    return "\n\n".join([_head(), *(_table(table) for table in records.TABLES), _chain(), _sql()]) + "\n"


def _head() -> str:
    return f"""# The record

Every decision of a gate, every name that an agent asks for, every run, and what the kernel saw of each connection. \
A decision is written before it takes effect: a hop whose decision can't be written is denied (`RecordFailed`).

This page is generated from `hopgate/audit/records.py`; `make gen` writes it again.

## Where it is

    DATA/spool/TABLE/WRITER-000001.jsonl

Each process that writes has a name and files of its own, which it only appends to; nothing is locked. Files are for their owner
only (0600, folders 0700). A file is followed by the next after {spool.SEGMENT_BYTES >> 20} MiB or {spool.SEGMENT_SECONDS:.0f} s. \
Ask with `hopgate audit`, in SQL with `hopgate audit sql "SELECT …"` (each table below by its name, with the columns of the chain \
as well: {", ".join(f"`{name}`" for name in store.CHAIN_COLUMNS)}), or with anything that reads JSON lines.

A record has at most {records.MAX_RECORD_BYTES >> 10} KiB. A decision that is larger loses its `context` and says so in `truncated`; \
what is still too large has its texts cut,
which then end in `…`. A text of more than {records.MAX_TEXT} characters in a context is kept as its length and digest, \
`{{"length": …, "sha256": …}}`.
Bytes of a path that are no UTF-8 are written as their code, `\\udcff`. Credentials are named, never shown."""


def _table(table: str) -> str:
    kinds, meanings = records.columns(table), records.meanings(table)
    rows = "\n".join(f"| `{name}` | `{kinds[name]}` | {meanings[name].replace('|', chr(92) + '|')} |" for name in kinds)
    return f"## `{table}`\n\n{_TABLES[table]}\n\n| column | type | meaning |\n|---|---|---|\n{rows}"


def _chain() -> str:
    faults = "\n".join(f"| `{kind.value}` | {_FAULTS[kind]} |" for kind in verify.FaultKind)
    return f"""## The chain

A line is a record with its place:

    {{"writer":"…","table":"…","sequence":0,"previous":"…","hash":"…","record":{{…}}}}

`sequence` counts from 0 for each writer and table. `previous` is the hash of the line before, 64 zeros for the first. The hash, \
in hexadecimal digits:

    hash = SHA-256(writer \\n table \\n sequence \\n previous \\n record)

where `record` is the JSON text exactly as it stands in the line, and `\\n` one line feed.

`hopgate audit verify` reads every line and names each fault with its file, line and sequence number:

| fault | what it means |
|---|---|
{faults}

Half a line at the end of a file is what a killed writer leaves: it is told as unfinished and is no fault. What the chain can't
tell is that a writer's last records, or all of them, were taken away: nothing comes after them."""


def _sql() -> str:
    return f"""## Verification by SQL

With the lines as rows of (`writer`, `table`, `sequence`, `previous`, `hash`, `record`), all of them text but `sequence`, ClickHouse
computes the same. With `clickhouse local`, in `DATA/spool/decisions`:

```sql
{verification_sql("file('*.jsonl', LineAsString, 'line String')")}
```

It gives a row for each record that was altered, or that does not follow the one before it."""


def verification_sql(lines: str) -> str:
    """The statement of the page: every link that does not fit. `lines` is a table expression with one column, `line`."""
    return f"""WITH links AS (
  {store.links(lines)}
)
SELECT writer, `table`, sequence,
  {store.HASH_FITS} AS whole,
  sequence = expected AND previous = before AS in_place
FROM (
  SELECT *, row_number() OVER chain - 1 AS expected,
    lagInFrame(hash, 1, repeat('0', 64)) OVER (chain ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS before
  FROM links WINDOW chain AS (PARTITION BY writer, `table` ORDER BY sequence)
)
WHERE NOT (whole AND in_place)"""  # noqa: S608 - nothing in it comes from outside


def main(arguments: list[str]) -> int:
    """Write the page to the file that is named. Exit code 2 when none is."""
    if len(arguments) != 1:
        sys.stderr.write("expected the file to write: python -m hopgate.audit.reference FILE\n")
        return 2
    Path(arguments[0]).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
