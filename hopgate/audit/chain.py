"""The hash chain of one writer's records in one table: what is hashed, and the line that it stands in.

    hash = SHA-256(writer \\n table \\n sequence \\n previous \\n record)

`record` is the exact JSON text, and `previous` the hash of the line before, or 64 zeros. A record that was altered, taken out, put
in, doubled or moved no longer fits its neighbours; ClickHouse can compute the same from the columns. Pure.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

import msgspec

GENESIS: Final = "0" * 64
FORMAT: Final = 1
_WRITER = re.compile(r"[a-z0-9-]{1,100}")


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    writer: str
    table: str
    sequence: int
    previous: str
    hash: str
    record: msgspec.Raw


_decoder = msgspec.json.Decoder(_Line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One line of a chain. `record` is its JSON text, byte for byte."""

    writer: str
    table: str
    sequence: int
    previous: str
    hash: str
    record: bytes


def is_writer(text: str) -> bool:
    """Whether `text` can name a writer: lower-case letters, digits and hyphens."""
    return _WRITER.fullmatch(text) is not None


def digest(writer: str, table: str, sequence: int, previous: str, record: bytes) -> str:
    """The hash of a link, 64 hexadecimal digits."""
    return hashlib.sha256(b"%s\n%s\n%d\n%s\n%s" % (writer.encode(), table.encode(), sequence, previous.encode(), record)).hexdigest()


def link(writer: str, table: str, sequence: int, previous: str, record: bytes) -> Link:
    """The next link of a chain."""
    hashed = digest(writer, table, sequence, previous, record)
    return Link(writer=writer, table=table, sequence=sequence, previous=previous, hash=hashed, record=record)


def encode(made: Link) -> bytes:
    """A link as one line, with its end."""
    head = f'{{"writer":"{made.writer}","table":"{made.table}","sequence":{made.sequence}'
    return f'{head},"previous":"{made.previous}","hash":"{made.hash}","record":'.encode() + made.record + b"}\n"


def decode(line: bytes) -> Link | None:
    """A line as a link; None for what no writer wrote. The line must be exactly what encoding it gives again."""
    try:
        read = _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # the last: a record that nests without end
        return None
    found = Link(
        writer=read.writer, table=read.table, sequence=read.sequence, previous=read.previous, hash=read.hash, record=bytes(read.record)
    )
    return found if encode(found) == line.rstrip(b"\n") + b"\n" else None
