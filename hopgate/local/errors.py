"""The root of the errors of one machine's gate: each says what was expected, what came, and what to do."""

from __future__ import annotations


class LocalError(Exception):
    """`code` is stable; `remedy` is what the person at the keyboard can do."""

    code = "LocalError"

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy
