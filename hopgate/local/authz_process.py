"""The authz process beside a gate.

While it is down every check fails and Envoy denies; when it is back it is told the whole state before it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from authz import state as states
from authz.state import Report, State
from hopgate.local.child_process import ChildProcess, Kind
from hopgate.local.errors import LocalError


class AuthzError(LocalError):
    """The authz process could not be started, or did not take the gate's state."""

    code = "AuthzUnavailable"


_KIND: Final[Kind[State, Report]] = Kind(
    module="authz",
    name="authz",
    without="every hop is denied",
    error=AuthzError,
    empty=State(sequence=0),
    decode=states.decode_from_authz,
)


class AuthzProcess(ChildProcess[State, Report]):
    """Keeps one authz process alive. `arguments` follow `python -m authz`; `say` gets lines for a person."""

    def __init__(self, arguments: tuple[str, ...], say: Callable[[str], None]) -> None:
        super().__init__(_KIND, arguments, say)
