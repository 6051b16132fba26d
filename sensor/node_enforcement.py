"""What resources say about quarantines, put in force on a node, and told of.

Where the sensor may not (it only looks), a quarantine that is asked for is said to be not in force.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sensor import enforcement, node_governance
from sensor.kernel import KernelError
from sensor.node_cgroups import Found
from sensor.node_objects import Told
from sensor.node_shadows import NOT_ENFORCED, RELEASED, ShadowObjects
from sensor.quarantine import Wanted
from sensor.resource_quarantines import AGAIN_SECONDS, cgroup_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the quarantine of one shadow agent stands on this node."""

    status: bool
    reason: str
    message: str


class NodeEnforcement:
    """`settle` and `tell` are each for one thread at a time. `pins` None: nobody is cut off."""

    def __init__(self, pins: Path | None, shadows: ShadowObjects, *, clock: Callable[[], float]) -> None:
        self._pins = pins
        self._shadows = shadows
        self._clock = clock
        self._done: tuple[Wanted, ...] | None = None
        self._done_at = 0.0
        self._failed: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._standing: dict[str, Standing] = {}
        self._told: dict[str, Standing] = {}

    @property
    def failed(self) -> int:
        """How many quarantines could not be put in force."""
        return len(self._failed)

    def settle(self, told: Told, found: Found) -> None:
        """Make what resources ask for be in force."""
        wanted = (*node_governance.wanted(told.pods, told.agents, told.shadows.values(), found), *self._of_node(told))
        if wanted != self._done or self._clock() - self._done_at >= AGAIN_SECONDS:
            first = wanted != self._done
            self._done, self._done_at = wanted, self._clock()
            if self._pins is not None:
                self._failed = enforcement.keep(self._pins, wanted, may_mount=False).failed
            if first:
                for each in self._failed:
                    _log.error("%s", each)
        standing = {shadow.name: self._judge(shadow.name, wanted) for shadow in told.shadows.values()}
        with self._lock:
            self._standing = {name: each for name, each in standing.items() if each is not None}

    def tell(self) -> None:
        """Write how the quarantines of shadow agents stand. Raises ClientError."""
        with self._lock:
            standing = dict(self._standing)
        for name, each in standing.items():
            if self._told.get(name) != each:
                self._shadows.condition(name, status=each.status, reason=each.reason, message=each.message)
                self._told[name] = each
        for name in self._told.keys() - standing.keys():
            if self._told[name].status:
                self._shadows.condition(name, status=False, reason=RELEASED, message="nothing of it is cut off here")
            del self._told[name]

    def _judge(self, name: str, wanted: tuple[Wanted, ...]) -> Standing | None:
        own = [each for each in wanted if each.subject == name]
        if not own:
            return None
        if self._pins is None:
            return Standing(
                status=False, reason="EnforcementOff", message="this sensor only looks; set `sensor.enforce` to have it cut off"
            )
        failed = [each for each in self._failed if f"`{name}`" in each]
        if failed:
            return Standing(status=False, reason=NOT_ENFORCED, message=failed[0])
        return Standing(status=True, reason="Enforced", message="it is cut off")

    def _of_node(self, told: Told) -> tuple[Wanted, ...]:
        """Shadow agents of this node that are in no pod, by the cgroup that they were last seen in."""
        made = []
        for shadow in told.shadows.values():
            path = shadow.where.get("cgroup")
            if shadow.quarantine and self._shadows.node == shadow.where.get("node") and not shadow.where.get("namespace") and path:
                with contextlib.suppress(KernelError):
                    if number := cgroup_of(str(path)):
                        made.append(Wanted(cgroup_id=number, subject=shadow.name))
        return tuple(made)
