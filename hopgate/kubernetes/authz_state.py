"""How an authz process of a cluster stands, as annotations of the Lease that it publishes its keys with. Pure: values in, text out.

Whoever may read Leases in hopgate's namespace learns it without reaching the process: `hopgate status`, and the controller for
`Agent.status.lastSeen`. It says nothing that a decision goes by.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec

from hopgate.identity import names
from hopgate.identity.errors import InvalidNameError
from hopgate.identity.names import ObjectName

STATE: Final = "hopgate.dev/state"
LAST_SEEN: Final = "hopgate.dev/last-seen"
# Written every 15 s: who reads each minute misses nobody, also after some minutes without the API server.
LAST_SEEN_SECONDS: Final = 600
LAST_SEEN_AGENTS: Final = 2_000
# All annotations of an object together have 256 KiB (Kubernetes, TotalAnnotationSizeLimitB); the keys take up to 16.
LAST_SEEN_BYTES: Final = 160 * 1024
_STATE_BYTES: Final = 16 * 1024

# Whole Unix seconds, or a number of something.
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Text = Annotated[str, msgspec.Meta(max_length=253)]


class AuthzState(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One process. Times are Unix seconds, counts are since the start.

    `snapshot_at` is when the snapshot in force was built, `watches` when each kind was last heard of; None: not yet.
    `failed_open` counts answers that let a hop pass although something had failed: it is always 0.
    """

    version: _Text
    started_at: _Number
    snapshot_at: _Number | None
    watches: Annotated[dict[_Text, _Number | None], msgspec.Meta(max_length=64)]
    certificate_ends_at: _Number
    key_made_at: _Number
    allowed: _Number
    denied: _Number
    failed_open: _Number


def write(state: AuthzState, last_seen: Mapping[ObjectName, int]) -> dict[str, str]:
    """The annotations. `last_seen` has agents with the time of the last decision about them (Unix seconds).

    Of more agents than there is room for, those that were seen last are written.
    """
    newest = heapq.nlargest(LAST_SEEN_AGENTS, ((at, str(agent)) for agent, at in last_seen.items()))
    return {STATE: msgspec.json.encode(state).decode(), LAST_SEEN: _bounded(newest)}


def read(annotations: Mapping[str, Any]) -> AuthzState | None:
    """The state that a process wrote; None for anything else. Members that are not known belong to a later version and are left out."""
    found = _decode(annotations.get(STATE), AuthzState, _STATE_BYTES)
    return found if isinstance(found, AuthzState) else None


def read_last_seen(annotations: Mapping[str, Any]) -> dict[ObjectName, int]:
    """The agents that a process wrote, with the time of the last decision (Unix seconds). What is no such thing is left out."""
    seen: dict[ObjectName, int] = {}
    for text, at in (_decode(annotations.get(LAST_SEEN), dict[str, _Number], LAST_SEEN_BYTES) or {}).items():
        with contextlib.suppress(InvalidNameError):
            seen[names.parse(text)] = at
    return seen


def _bounded(newest: Iterable[tuple[int, str]]) -> str:
    """One object of the first members that fit. Names of objects are ASCII and need no escapes in JSON."""
    members: list[str] = []
    length = len("{}")
    for at, agent in newest:
        member = f'"{agent}":{at}'
        length += len(member) + len(",")
        if length > LAST_SEEN_BYTES:
            break
        members.append(member)
    return f"{{{','.join(members)}}}"


def _decode(text: Any, kind: Any, limit: int) -> Any:
    if not isinstance(text, str) or len(text) > limit:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError):
        return None
