"""Shadow agents of a node told as objects of the API server: made once, and their status kept.

Several nodes tell of one object: each adds what it saw to what stands there, by the version that it read, and reads again when another was
faster. How much is written is bounded; what is left waits, and the newest of one program is what is told.
"""

from __future__ import annotations

import http
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from hopgate.kubernetes import statuses
from hopgate.kubernetes.access import Calls
from hopgate.kubernetes.announcements import Bucket
from hopgate.kubernetes.api import Manifest, RefusedError
from hopgate.kubernetes.statuses import Verdict
from hopgate.resources.kinds import GROUP, VERSION
from sensor import node_governance, node_pods, shadow_agents
from sensor.node_objects import Told
from sensor.shadow_agents import Where
from sensor.sightings import Sighting

PATH: Final = f"/apis/{GROUP}/{VERSION}/shadowagents"
BURST: Final = 50
PER_SECOND: Final = 2.0
# Programs that wait to be told; with more, what waits the longest is given up, and told when it is seen again.
MOST_WAITING: Final = 1_000
# How long it is waited for the API server to tell whose pod it is.
UNKNOWN_SECONDS: Final = 10.0
CONDITION: Final = "Quarantined"
# Its reasons, beside that of one that is in force.
NOT_ENFORCED: Final = "NotEnforced"
RELEASED: Final = "Released"
_TRIES: Final = 3
_MERGE_PATCH: Final = "application/merge-patch+json"

_log = logging.getLogger(__name__)


class ShadowObjects:
    """`tell` from the loop that reads the kernel, `write` and `condition` from one thread at a time."""

    def __init__(self, calls: Calls, look: Callable[[], Told], *, node: str, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        """`clock` is monotonic, `wall` gives Unix seconds."""
        self._calls = calls
        self._look = look
        self.node = node
        self._clock = clock
        self._wall = wall
        self._bucket = Bucket(BURST, PER_SECOND)
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[float, Sighting]] = {}

    def tell(self, seen: Sighting) -> bool:
        """Tell of it soon. False when there is no room."""
        with self._lock:
            since, _ = self._waiting.get(seen.program.id, (self._clock(), seen))
            if seen.program.id not in self._waiting and len(self._waiting) >= MOST_WAITING:
                return False
            self._waiting[seen.program.id] = (since, seen)
        return True

    @property
    def waiting(self) -> int:
        """How many programs are not told of yet."""
        return len(self._waiting)

    def write(self) -> None:
        """Write what waits, as far as it is known where it runs. Raises ClientError; what is left is written the next time."""
        with self._lock:
            waiting = dict(self._waiting)
        told = self._look()
        for key, (since, seen) in waiting.items():
            pod = told.pods.get(seen.program.placement.pod)
            # By now it may be known whose it is.
            if pod is None or not node_governance.agent_of(pod, told.agents):
                place = node_pods.where(seen.program, told.pods, self.node)
                if place is None and self._clock() - since < UNKNOWN_SECONDS:
                    continue
                if not self._bucket.take(self._clock()):
                    return
                self._write(told, seen, place or Where(node=self.node, pod=seen.program.placement.pod, cgroup=seen.program.cgroup))
            with self._lock:
                if self._waiting.get(key, (since, None))[1] is seen:
                    del self._waiting[key]

    def condition(self, name: str, *, status: bool, reason: str, message: str) -> None:
        """Say of a shadow agent how its quarantine stands on this node. Raises ClientError.

        What another node failed at is not said to be well by this one.
        """
        own = f"node {self.node}: "

        def change(manifest: Manifest) -> Mapping[str, Any] | None:
            before = manifest.get("status") or {}
            standing = statuses.condition(before, CONDITION)
            if standing is None and reason == RELEASED:
                return None
            if standing is not None and (standing.get("status"), standing.get("reason")) == (str(status), reason):
                return None
            elsewhere = standing is not None and not str(standing.get("message")).startswith(own)
            if status and elsewhere and standing is not None and standing.get("reason") == NOT_ENFORCED:
                return None
            generation = int(manifest["metadata"].get("generation") or 0)
            verdict = Verdict(type=CONDITION, status=str(status), reason=reason, message=own + message, generation=generation)
            return {**before, "conditions": statuses.conditions(before, verdict, self._wall())}

        self._change(name, self._look().manifests.get(name), change)

    def _write(self, told: Told, seen: Sighting, place: Where) -> None:
        known = replace(seen, program=node_pods.subject(seen.program, place))
        name = shadow_agents.name(known.program)
        manifest = told.manifests.get(name)
        if manifest is None:
            made = shadow_agents.new(known, place)
            del made["status"]
            try:
                manifest = self._calls.call("POST", PATH, made)
            except RefusedError as refused:
                if refused.status != http.HTTPStatus.CONFLICT:
                    raise
                manifest = None
            else:
                _log.info("a shadow agent: %s", name)

        def change(manifest: Manifest) -> Mapping[str, Any] | None:
            before = manifest.get("status") or {}
            status = shadow_agents.status(known, place, before)
            return None if shadow_agents.is_old_news(status, before) else status

        self._change(name, manifest, change)

    def _change(self, name: str, manifest: Manifest | None, change: Callable[[Manifest], Mapping[str, Any] | None]) -> None:
        """Bring the status to what `change` makes of the object as it stands; None: it is well as it is."""
        for _ in range(_TRIES):
            try:
                if manifest is None:
                    manifest = self._calls.call("GET", f"{PATH}/{name}")
                status = change(manifest)
                if status is None:
                    return
                version = {"resourceVersion": manifest["metadata"]["resourceVersion"]}
                self._calls.call("PATCH", f"{PATH}/{name}/status", {"metadata": version, "status": status}, content_type=_MERGE_PATCH)
            except RefusedError as refused:
                if refused.status == http.HTTPStatus.NOT_FOUND:
                    return  # people delete what they have dealt with; it is made anew when it is seen again
                if refused.status != http.HTTPStatus.CONFLICT:
                    raise
                manifest = None
            else:
                return
