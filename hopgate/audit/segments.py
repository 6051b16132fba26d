"""The files of a spool as its readers find them: every one of a table, or an error.

A file or folder that can't be read is never passed over: what was not looked at would count as empty, or as whole.
"""

from __future__ import annotations

import os
from pathlib import Path

from hopgate.audit.errors import QueryError


def of(spool: Path, table: str) -> tuple[Path, ...]:
    """A table's segments by name, which is each writer's order; none where nothing was written yet.

    Raises QueryError when the folder can't be listed, or one of its segments can't be opened.
    """
    folder = spool / table
    try:
        with os.scandir(folder) as entries:  # not Path.glob, which takes a folder that it may not list for an empty one
            found = sorted(folder / entry.name for entry in entries if entry.name.endswith(".jsonl"))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise unreadable(folder, error) from error
    for path in found:
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise unreadable(path, error) from error
    return tuple(found)


def read(path: Path) -> bytes:
    """A segment's bytes. Raises QueryError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> QueryError:
    """What is told of a file or folder that can't be read, with the remedy where there is one."""
    remedy = ": run this as the one who runs the gate (sudo?)" if isinstance(error, PermissionError) else ""
    return QueryError(f"the records in `{path}` can't be read, {error.strerror}{remedy}")
