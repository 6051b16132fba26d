"""What the gate itself records: runs, with what was opened for them."""

from __future__ import annotations

import secrets

from hopgate.audit.records import Change
from hopgate.local.attachment import AttachmentSpec


def run_change(operation: str, spec: AttachmentSpec, wall_ns: int) -> Change:
    """The start or end of a run. `wall_ns` is in Unix nanoseconds."""
    opened = {
        # Arguments may hold anything, also what must not be written down.
        "program": spec.command[0],
        "arguments": len(spec.command) - 1,
        "pid": spec.pid,
        "listen": spec.listen,
        "binds": list(spec.binds),
        "allowSockets": list(spec.allow_sockets),
        "keptVariables": list(spec.kept_variables),
    }
    started = operation == "Start"
    return Change(
        id=secrets.token_hex(16),
        time=wall_ns // 1000,
        who=str(spec.user),
        operation=operation,
        kind="Run",
        name=str(spec.agent),
        before={} if started else opened,
        after=opened if started else {},
    )
