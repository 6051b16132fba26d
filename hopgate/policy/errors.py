"""Errors of the policy package.

PolicyError
├── CedarSyntaxError   Cedar text that Cedar can't read, or a policy that is a template
├── CedarSchemaError   a schema that Cedar can't read: a programmer's mistake
└── ArgumentError   arguments of a tool call that don't fit what the tool declares: a Deny
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


class ArgumentError(PolicyError):
    """Arguments that don't fit the type that the tool declares. The message names the property, never its value."""

    code: ClassVar[str] = "InvalidArguments"
