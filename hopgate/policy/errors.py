"""Errors of the policy package.

PolicyError
├── CedarSyntaxError   Cedar text that Cedar can't read, or a policy that is a template
└── CedarSchemaError   a schema that Cedar can't read: a programmer's mistake
"""

from __future__ import annotations

from typing import ClassVar


class PolicyError(ValueError):
    """Root of the errors of this package. `code` is stable."""

    code: ClassVar[str] = "InvalidPolicy"


class CedarSyntaxError(PolicyError):
    """Cedar could not read a policy's text."""

    code: ClassVar[str] = "InvalidSyntax"


class CedarSchemaError(PolicyError):
    """Cedar could not read a schema."""

    code: ClassVar[str] = "InvalidSchema"
