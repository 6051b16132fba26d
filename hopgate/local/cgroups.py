"""Cgroups of their own for a governed program and for a gate's Envoys: by them the kernel tells whose a connection is.

They are made below the cgroup of the process that makes them, so that its limits hold for them too, and removed with the run folder that
names them; of a killed run, by the next start. Where none can be made the program runs all the same, and the network namespace alone
tells whose its connections are.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sensor import cgroups

_PROCESSES: Final = "cgroup.procs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup:
    """A cgroup of the unified hierarchy. `id` is the kernel's, which is the inode number of its folder."""

    path: Path
    id: int

    @property
    def processes(self) -> Path:
        """The file that a process's id, or 0 for the writer's own, is written to."""
        return self.path / _PROCESSES


def own() -> Path | None:
    """The folder of this process's cgroup; None where no unified hierarchy is mounted, or it does not show this process."""
    hierarchy, inner = cgroups.find(), cgroups.of_process()
    if hierarchy is None or inner is None:
        return None
    path = hierarchy.mount / inner.lstrip("/")
    return path if path.is_dir() else None


def identify(path: Path) -> int:
    """The kernel's id of the cgroup whose folder this is. Raises OSError."""
    return path.stat().st_ino


def make(name: str) -> Cgroup | None:
    """A cgroup below this process's own, also one that is there already; None when none can be made here."""
    above = own()
    if above is None:
        return None
    path = above / name
    try:
        path.mkdir(exist_ok=True)
        made = Cgroup(path=path, id=identify(path))
        with made.processes.open("ab"):
            pass  # to be written to by whoever enters: a read-only hierarchy is found out here
    except OSError:
        return None
    return made


def remove(path: Path) -> bool:
    """Remove a cgroup. False while a process is in it."""
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def enter(processes: int) -> None:
    """Put this process into the cgroup whose `cgroup.procs` is open for writing. Raises OSError."""
    os.write(processes, b"0")
