"""Kubernetes events (events.k8s.io/v1) of hopgate's objects: what a person must know, told once.

The same thing told again is the same event, counted as its series. How many are written is bounded, for each object and for all: after a
start with a thousand broken objects their conditions say so, and the first events do. An event that can't be written is left out.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import http
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hopgate.kubernetes.access import Calls
from hopgate.kubernetes.api import ClientError, Manifest, RefusedError
from hopgate.resources.kinds import GROUP, VERSION
from hopgate.resources.reference import ObjectReference

CONTROLLER: Final = "hopgate.dev/controller"
# Of objects of the whole cluster (Kubernetes: their events are in this namespace).
_CLUSTER_NAMESPACE: Final = "default"
# Limits of events.k8s.io/v1.
_MAX_NOTE: Final = 1024
_MAX_INSTANCE: Final = 128
_MAX_NAME: Final = 253
BURST: Final = 50
PER_SECOND: Final = 1.0
OBJECT_BURST: Final = 5
OBJECT_PER_SECOND: Final = 1 / 60
_COUNTED: Final = 4_096

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """One thing to tell about one object. `action` is what was done, `reason` a stable code; a `warning` is about a mistake."""

    reference: ObjectReference
    uid: str
    action: str
    reason: str
    note: str
    warning: bool


def manifest(told: Announcement, instance: str, now: float) -> dict[str, Any]:
    """The event. Its name is of what is told, so that the API server has it once. `now` in Unix seconds."""
    own = told.reference
    described = "\n".join((own.kind, own.namespace or "", own.name, told.uid, told.action, told.reason, told.note))
    digest = hashlib.sha256(described.encode()).hexdigest()[:16]
    regarding = {"apiVersion": f"{GROUP}/{VERSION}", "kind": own.kind, "name": own.name, "uid": told.uid}
    if own.namespace is not None:
        regarding["namespace"] = own.namespace
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{own.name[: _MAX_NAME - len(digest) - 1]}.{digest}", "namespace": own.namespace or _CLUSTER_NAMESPACE},
        "eventTime": _time(now),
        "reportingController": CONTROLLER,
        "reportingInstance": instance[:_MAX_INSTANCE],
        "action": told.action,
        "reason": told.reason,
        "regarding": regarding,
        "note": told.note if len(told.note) <= _MAX_NOTE else told.note[: _MAX_NOTE - 1] + "…",
        "type": "Warning" if told.warning else "Normal",
    }


def again(count: int, now: float) -> dict[str, Any]:
    """What to merge into an event that is told for the `count`th time."""
    return {"series": {"count": count, "lastObservedTime": _time(now)}}


def _time(now: float) -> str:
    return dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Bucket:
    """So many at once, and so many a second in the long run."""

    def __init__(self, burst: int, per_second: float) -> None:
        self._burst, self._per_second = float(burst), per_second
        self._level, self._at = float(burst), 0.0

    def take(self, now: float) -> bool:
        """Whether there is one left; it is taken. `now` is monotonic, in seconds."""
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._per_second)
        self._at = now
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return True

    def is_full(self, now: float) -> bool:
        """Whether nothing was taken that has not come back."""
        return self._level + max(0.0, now - self._at) * self._per_second >= self._burst


class Announcer:
    """Writes events. For one thread at a time."""

    def __init__(self, calls: Calls, *, instance: str, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        """`instance` names this process; `clock` is monotonic, `wall` gives Unix seconds."""
        self._calls = calls
        self._instance = instance
        self._clock, self._wall = clock, wall
        self._all = Bucket(BURST, PER_SECOND)
        self._by_uid: dict[str, Bucket] = {}
        self._counts: dict[str, int] = {}
        self.left_out = 0

    def tell(self, told: Announcement) -> None:
        """Write the event, unless there were too many. Does not raise: what it tells of stands in the status too."""
        if not self._may(told.uid):
            self.left_out += 1
            _log.info("an event too many: %s: %s (%s)", told.reference, told.note, told.reason)
            return
        now = self._wall()
        event = manifest(told, self._instance, now)
        path = f"/apis/events.k8s.io/v1/namespaces/{event['metadata']['namespace']}/events"
        try:
            self._write(path, event, now)
        except ClientError as error:
            self.left_out += 1
            _log.warning("an event of %s could not be written: %s (%s)", told.reference, error, error.code)

    def _write(self, path: str, event: Manifest, now: float) -> None:
        own = f"{path}/{event['metadata']['name']}"
        try:
            self._calls.call("POST", path, event)
            self._count(own, 1)
            return
        except RefusedError as refused:
            if refused.status != http.HTTPStatus.CONFLICT:
                raise
        # What another process told before is known to be one at least.
        count = self._count(own, self._counts.get(own, 1) + 1)
        self._calls.call("PATCH", own, again(count, now), content_type="application/merge-patch+json")

    def _count(self, own: str, count: int) -> int:
        """Events live for an hour, and more are not counted than are written in one."""
        self._counts.pop(own, None)
        self._counts[own] = count
        while len(self._counts) > _COUNTED:
            del self._counts[next(iter(self._counts))]
        return count

    def _may(self, uid: str) -> bool:
        now = self._clock()
        for known in [each for each, bucket in self._by_uid.items() if bucket.is_full(now)]:
            del self._by_uid[known]
        own = self._by_uid.setdefault(uid, Bucket(OBJECT_BURST, OBJECT_PER_SECOND))
        return own.take(now) and self._all.take(now)
