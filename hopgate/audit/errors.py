"""Errors of the record.

AuditError
├── SpoolError    a record could not be written whole
└── QueryError    the records can't be read, or the question can't be asked of them
"""

from __future__ import annotations

from typing import ClassVar


class AuditError(Exception):
    """Root of what keeping and reading records can raise. `code` is stable."""

    code: ClassVar[str] = "AuditError"


class SpoolError(AuditError):
    """A record could not be written whole. Nothing of it counts."""

    code: ClassVar[str] = "RecordFailed"


class QueryError(AuditError):
    """There is nothing to read, or the filter is not one."""

    code: ClassVar[str] = "QueryFailed"
