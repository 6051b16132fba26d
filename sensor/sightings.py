"""Programs that were seen acting as agents do, as values: who, what they reached, why, when. Pure.

A sighting is a program, not a process: all processes of one program, in one place, of one user are one, and a thousand connections to one
host are one line with a count.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sensor import classify, evidence
from sensor.classify import Likelihood, SightingClass
from sensor.containers import NOWHERE, Placement
from sensor.evidence import Evidence
from sensor.processes import Process


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Who acts. Empty fields are not known; `uid` is -1 then. `shown` is the command line as it may be shown."""

    name: str = ""
    executable: str = ""
    script: str = ""
    shown: str = ""
    uid: int = -1
    user: str = ""
    placement: Placement = NOWHERE
    cgroup: str = ""

    @property
    def is_known(self) -> bool:
        """Whether the program, or at least its container or unit, is known."""
        return bool(self.name or self.executable or self.placement.is_known)

    @property
    def id(self) -> str:
        """The same for the same program in the same place: of two machines, and after a restart."""
        placed = self.placement
        parts = (self.executable or self.name, self.script, placed.pod, placed.container, placed.unit, str(self.uid))
        return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:12]


def program_of(process: Process, cgroup: str = "") -> Program:
    """The program that a process runs."""
    return Program(
        name=process.name,
        executable=process.executable,
        script=process.command.script or process.command.module,
        shown=process.command.shown or process.name,
        uid=process.uid,
        user=process.user,
        placement=process.placement,
        cgroup=cgroup,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """One place that a program talks to: a name, else an address. `provider` is whose model API it is, empty when it is none."""

    host: str
    provider: str
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A program with all that is known of it. Times are Unix nanoseconds; `process` is the one seen last, `processes` how many there were.

    `reached` is what it talks to, models first; `others` counts connections to places beyond those that are kept. `agent` is the governed
    agent's name, empty for others.
    """

    program: Program
    process: int
    processes: int
    agent: str
    evidence: tuple[Evidence, ...]
    reached: tuple[Reached, ...]
    others: int
    connections: int
    first_seen_ns: int
    last_seen_ns: int

    @property
    def weight(self) -> int:
        """How much speaks for an agent, 0 to 100."""
        return evidence.weigh(self.evidence)

    @property
    def likelihood(self) -> Likelihood:
        """The weight in words."""
        return classify.likelihood(self.weight)

    @property
    def kind(self) -> SightingClass:
        """What the program is held for."""
        return classify.classify(self.evidence, registered=bool(self.agent), attributed=self.program.is_known)

    @property
    def has_called(self) -> bool:
        """Whether it was seen to call, not only to run."""
        return any(piece.kind in evidence.OF_CALLS for piece in self.evidence)
