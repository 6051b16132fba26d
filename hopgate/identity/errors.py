"""Errors of identity parsing.

IdentityError
└── InvalidNameError   a namespace or name that Kubernetes would not accept
"""

from __future__ import annotations

from typing import ClassVar


class IdentityError(ValueError):
    """Root of the errors that parsing an identity can raise."""

    code: ClassVar[str] = "InvalidIdentity"


class InvalidNameError(IdentityError):
    """A namespace or an object name that is not a DNS label or subdomain (RFC 1123)."""

    code: ClassVar[str] = "InvalidName"
