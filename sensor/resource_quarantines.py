"""What resources say about quarantines, put in force: `spec.quarantine` of agents, which the gate tells, and of shadow agents.

The work is done in a thread: it takes a lock that a person's command may hold, and looks into every network namespace.
Several gates of a machine have a sensor each, so each has the say about its own agents and files only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sensor import enforcement, programs, state
from sensor.kernel import KernelError
from sensor.quarantine import Quarantine, Wanted
from sensor.shadow_folder import ShadowFolder
from sensor.state import State

# A file that a person changes is in force well within a second.
LOOK_SECONDS: Final = 0.25
# What is in force is looked at again: somebody may have taken it away, and what could not be done may be possible by now.
AGAIN_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What resources ask for. `cgroups` and `names` are those that this sensor has the say about, cut off or not."""

    wanted: frozenset[Wanted] = frozenset()
    cgroups: frozenset[int] = frozenset()
    names: frozenset[str] = frozenset()
    protected: frozenset[int] = frozenset()
    mistakes: tuple[str, ...] = ()

    def decides(self, standing: Quarantine) -> bool:
        """Whether this sensor has the say about a quarantine that is in force."""
        return standing.cgroup_id in self.cgroups or standing.subject in self.names


class ResourceQuarantines:
    """Keeps what resources ask for in force. `shadows` None: only agents are looked at. `now` is in seconds."""

    def __init__(self, pins: Path, shadows: ShadowFolder | None, now: Callable[[], float]) -> None:
        self._pins = pins
        self._shadows = shadows
        self._now = now
        self._state = State(sequence=0)
        self._changed = asyncio.Event()
        self._done: Asked | None = None
        self._done_at = 0.0
        self._names: frozenset[str] = frozenset()
        self.problems: tuple[str, ...] = ()

    def govern(self, told: State) -> None:
        """Take the gate's state; it is put in force by `run`."""
        self._state = told
        self._changed.set()

    async def run(self) -> None:
        """Keep to what resources ask for, until cancelled. What is in force then stays."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), AGAIN_SECONDS if self._shadows is None else LOOK_SECONDS)
            self._changed.clear()
            self.problems = await asyncio.to_thread(self.settle)

    def settle(self) -> tuple[str, ...]:
        """Make what is asked for be in force, unless it is since a moment ago. What could not be done, a sentence each."""
        try:
            asked = self._asked()
        except KernelError as error:
            return (str(error),)
        if asked == self._done and self._now() - self._done_at < AGAIN_SECONDS:
            return self.problems
        self._done, self._done_at = asked, self._now()
        kept = enforcement.keep(self._pins, asked.wanted, decides=asked.decides, protected=asked.protected)
        return (*asked.mistakes, *kept.failed, *kept.gaps)

    def _asked(self) -> Asked:
        told = self._state
        wanted: set[Wanted] = set()
        mistakes: list[str] = []
        for agent in told.agents:
            if agent.quarantine and not agent.cgroup_id:
                mistakes.append(f"`{agent.agent}` is not cut off: it has no cgroup of its own")
            elif agent.quarantine:
                wanted.add(Wanted(cgroup_id=agent.cgroup_id, subject=agent.agent, allowed=state.reachable(agent.listeners)))
        if self._shadows is not None:
            self._ask_for_shadows(self._shadows, wanted, mistakes)
        return Asked(
            wanted=frozenset(wanted),
            cgroups=frozenset(agent.cgroup_id for agent in told.agents if agent.cgroup_id),
            names=self._names,
            protected=frozenset(told.gate_processes),
            mistakes=tuple(mistakes),
        )

    def _ask_for_shadows(self, folder: ShadowFolder, wanted: set[Wanted], mistakes: list[str]) -> None:
        try:
            found = folder.read()
        except OSError as error:
            mistakes.append(f"shadow agents' files can't be read: {error.strerror}; what was decided before holds")
            self._names = frozenset()
            return
        mistakes += found.mistakes.values()
        # A file that went away decided while it was there; one that can't be read decides nothing.
        self._names = (self._names | found.shadows.keys()) - found.mistakes.keys()
        for shadow in found.shadows.values():
            if not shadow.quarantine:
                continue
            if not shadow.cgroup:
                mistakes.append(f"`{shadow.name}` is not cut off: its cgroup is not known")
            elif number := cgroup_of(shadow.cgroup):
                wanted.add(Wanted(cgroup_id=number, subject=shadow.name))


def cgroup_of(path: str) -> int:
    """The id of the cgroup at a path below the cgroup2 mount, as a file has it; 0 when there is none. Raises KernelError."""
    root = programs.root()
    place = Path(os.path.normpath(root / path.lstrip("/")))
    try:
        return place.stat().st_ino if place.is_relative_to(root) and (place / "cgroup.procs").exists() else 0
    except OSError:
        return 0
