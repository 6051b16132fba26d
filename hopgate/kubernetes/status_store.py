"""What the controller knows of each object beside its spec: version and status, as watched or as it wrote it, whichever is newer.

A watch may tell late what was written a moment ago. Of two versions the later one counts: resource versions are whole numbers that
grow (Kubernetes says so from 1.35 on; etcd's revisions, which they are, were so before).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hopgate.kubernetes import objects
from hopgate.kubernetes.api import Manifest, WatchedKind
from hopgate.kubernetes.statuses import CONDITIONS
from hopgate.resources.reference import ObjectReference


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One version of one object."""

    reference: ObjectReference
    uid: str
    generation: int
    version: str
    status: Mapping[str, Any] = field(repr=False)
    addresses: Mapping[str, str] = field(repr=False)


def read(manifest: Manifest) -> Stored | None:
    """The object; None for one without a status of the controller's, or that is being deleted."""
    reference = objects.refer(manifest)
    if reference is None or reference.kind not in CONDITIONS or manifest["metadata"].get("deletionTimestamp") is not None:
        return None
    metadata, status = manifest["metadata"], manifest.get("status")
    return Stored(
        reference=reference,
        uid=str(metadata.get("uid") or ""),
        generation=int(metadata.get("generation") or 0),
        version=str(metadata.get("resourceVersion") or ""),
        status=status if isinstance(status, dict) else {},
        addresses=objects.read_addresses(status),
    )


class StatusStore:
    """For any number of threads. A `Sink` for the kinds that are watched; `changed` is called when something is to be looked at."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._stored: dict[ObjectReference, Stored] = {}

    def look(self) -> dict[ObjectReference, Stored]:
        """Everything as it is now."""
        with self._lock:
            return dict(self._stored)

    def replace(self, kind: WatchedKind, manifests: Sequence[Manifest]) -> None:
        """See `informers.Sink`."""
        listed = {stored.reference: stored for each in manifests if (stored := read(each)) is not None}
        with self._lock:
            earlier = {own: each for own, each in self._stored.items() if own.kind == kind.kind}
            others = {own: each for own, each in self._stored.items() if own.kind != kind.kind}
            self._stored = {**others, **{own: _later(earlier.get(own), each) for own, each in listed.items()}}
        self._changed()

    def put(self, manifest: Manifest) -> None:
        """See `informers.Sink`."""
        stored = read(manifest)
        if stored is None:
            self.remove(manifest)
            return
        with self._lock:
            earlier = self._stored.get(stored.reference)
            self._stored[stored.reference] = _later(earlier, stored)
            news = self._stored[stored.reference] is not earlier
        if news:
            self._changed()

    def answered(self, manifest: Manifest) -> None:
        """What the API server said of an object just now. One that is not known was deleted meanwhile, and its end was told already."""
        reference = objects.refer(manifest)
        if reference is not None and reference in self.look():
            self.put(manifest)

    def remove(self, manifest: Manifest) -> None:
        """See `informers.Sink`."""
        reference = objects.refer(manifest)
        if reference is None:
            return
        uid = manifest["metadata"].get("uid")
        with self._lock:
            # The end of an object that was made anew since is told late.
            gone = reference in self._stored and self._stored[reference].uid == uid
            if gone:
                del self._stored[reference]
        if gone:
            self._changed()


def _later(earlier: Stored | None, now: Stored) -> Stored:
    if earlier is None:
        return now
    return now if _number(now.version) > _number(earlier.version) else earlier


def _number(version: str) -> int:
    return int(version) if version.isdecimal() else 0
