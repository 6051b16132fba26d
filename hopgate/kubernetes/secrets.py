"""The Secrets that credentials name: read one by one, by name, and never listed.

The right to `get` those few by name is all that is needed. Kept are the values as `SecretValue`, which don't print; the API server's
answer is dropped once it is read. A Secret is read when a credential first names it and again within `REFRESH_SECONDS`; one that could
not be used, within `RETRY_SECONDS`. While the API server doesn't answer, the last value stays; a Secret that is gone, or that may no
longer be read, is gone here too.
"""

from __future__ import annotations

import http
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from hopgate.identity.names import ObjectName
from hopgate.kubernetes.api import ClientError, RefusedError, SecretSource
from hopgate.resources import parse
from hopgate.resources.kinds import Secret

# A rotated credential is in force within this.
REFRESH_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 5.0
# Requests at a time: 500 Secrets are read in a second, and the API server's fair share (10 seats for one client) is not used up.
_PARALLEL: Final = 8
# Known Secrets that are read again at a time, so that an edit doesn't wait for all of them.
_BATCH: Final = 32

_DENIED: Final = (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is known of one Secret: it, or why not. `denied` says that it may be there and may not be read."""

    secret: Secret | None
    denied: bool = False
    error: str | None = None


@dataclass(slots=True)
class _Entry:
    found: Found
    due: float


class Secrets:
    """Used by one thread at a time."""

    def __init__(self, source: SecretSource, clock: Callable[[], float], spread: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds; `spread` gives by how much of its interval a Secret waits (over 0, at most 1)."""
        self._source = source
        self._clock = clock
        self._spread = spread
        self._unreachable: ClientError | None = None
        self._entries: dict[ObjectName, _Entry] = {}

    def __repr__(self) -> str:
        return f"Secrets({len(self._entries)})"

    def refresh(self, wanted: Iterable[ObjectName]) -> bool:
        """Read what is wanted and due, forget what is not wanted. Whether anything changed."""
        names = frozenset(wanted)
        forgotten = [name for name in self._entries if name not in names]
        for name in forgotten:
            del self._entries[name]
        now = self._clock()
        new = sorted(names - self._entries.keys())
        due = sorted((entry.due, name) for name, entry in self._entries.items() if entry.due <= now)
        read = self._read_all([*new, *(name for _, name in due[:_BATCH])])
        changed = [name for name, found in read if self._keep(name, found)]
        return bool(changed or forgotten)

    def find(self) -> Mapping[ObjectName, Found]:
        """Everything that is known now."""
        return {name: entry.found for name, entry in self._entries.items()}

    def next_due(self) -> float | None:
        """When the next one is due, by the clock; None when none is wanted."""
        return min((entry.due for entry in self._entries.values()), default=None)

    def _read_all(self, names: list[ObjectName]) -> list[tuple[ObjectName, Found]]:
        self._unreachable = None
        if len(names) <= 1:
            return [(name, self._read(name)) for name in names]
        with ThreadPoolExecutor(min(_PARALLEL, len(names)), thread_name_prefix="secrets") as pool:
            return list(zip(names, pool.map(self._read, names), strict=True))

    def _keep(self, name: ObjectName, found: Found) -> bool:
        before = self._entries.get(name)
        usable = found.secret is not None and found.error is None
        # Not all at one moment, though all were first read at one.
        pause = (REFRESH_SECONDS if usable else RETRY_SECONDS) * self._spread()
        self._entries[name] = _Entry(found, self._clock() + pause)
        if before is None:
            return True
        # Another way of not being reached changes nothing where the last value stays.
        same_value = (before.found.secret, before.found.denied) == (found.secret, found.denied)
        return not same_value or (found.secret is None and before.found.error != found.error)

    def _read(self, name: ObjectName) -> Found:
        if self._unreachable is not None:
            # One request that waited in vain is enough: what the others wait for, edits wait for too.
            return self._last(name, self._unreachable)
        try:
            manifest = self._source.read_secret(name.namespace, name.name)
        except RefusedError as refused:
            if refused.status in _DENIED:
                return Found(secret=None, denied=True, error=str(refused))
            return self._last(name, refused)
        except ClientError as error:
            self._unreachable = error
            return self._last(name, error)
        if manifest is None:
            return Found(secret=None)
        result = parse.parse({"kind": "Secret", "apiVersion": "v1", **manifest})
        if not isinstance(result.resource, Secret):
            return Found(secret=None, error="; ".join(str(mistake) for mistake in result.mistakes))
        return Found(secret=result.resource)

    def _last(self, name: ObjectName, error: ClientError) -> Found:
        """The value that was read before, if any, and why it could not be read again."""
        before = self._entries.get(name)
        return Found(secret=None if before is None else before.found.secret, error=str(error))
