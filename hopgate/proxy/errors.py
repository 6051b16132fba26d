"""The root of the errors of an agent's proxy: each says what was expected, what came, and what to do.

ProxyError
    BootstrapError           the bootstrap can't be made, or Envoy would not take it
    CaptureError             a pod's capture rules are not in force
    DrainError               Envoy can't be told to drain
"""

from __future__ import annotations


class ProxyError(Exception):
    """`code` is stable; `remedy` is what a person can do."""

    code = "ProxyError"

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy
