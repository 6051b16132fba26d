"""A cgroup of a cluster's own: everything that it starts is in it, so that it is found and ended, whoever started it has gone or not.

kubelet removes what it doesn't know below its cgroup root, so two clusters of one machine need two. cgroup v1 and v2 side by side.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.api_server import eventually

_PREFIX = "hopgate-cluster-"

_numbers = itertools.count(1)


class Cgroup:
    """One name in every hierarchy. `kubelet` gets it as its root; `join` puts a command into its child `system`."""

    def __init__(self, name: str | None = None) -> None:
        """Without a name: a new one of this process. When this process is gone, `remove_abandoned` removes it."""
        self.name = name or f"{_PREFIX}{os.getpid()}-{next(_numbers)}"

    def make(self) -> None:
        """Make it in every hierarchy."""
        for root in _hierarchies():
            for folder in (root / self.name, root / self.name / "system"):
                folder.mkdir(exist_ok=True)
                _make_usable(folder)

    def join(self) -> tuple[str, ...]:
        """What a command is put behind, to run in it."""
        script = 'while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs"; shift; done; shift; exec "$@"'
        return ("sh", "-c", script, "sh", *(str(root / self.name / "system") for root in _hierarchies()), "--")

    def processes(self) -> set[int]:
        """Whatever runs in it, or below."""
        found: set[int] = set()
        for root in _hierarchies():
            for file in (root / self.name).rglob("cgroup.procs"):
                with contextlib.suppress(OSError):  # went away meanwhile
                    found.update(int(line) for line in file.read_text().split())
        return found

    def remove(self) -> None:
        """End every process in it, and remove it. Raises TimeoutError when one doesn't end."""
        eventually(self._killed, f"every process of {self.name} has ended")
        eventually(self._removed, f"the cgroup {self.name} is removed")

    def _killed(self) -> bool:
        running = self.processes()
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return not running

    def _removed(self) -> bool:
        for root in _hierarchies():
            for folder, _, _ in os.walk(root / self.name, topdown=False):
                with contextlib.suppress(OSError):  # still busy
                    Path(folder).rmdir()
        return not any((root / self.name).exists() for root in _hierarchies())


def remove_of(owner: int) -> None:
    """Remove the cgroups, and end the processes, of a process that is known to be gone."""
    for name in _names():
        if name.startswith(f"{_PREFIX}{owner}-"):
            Cgroup(name).remove()


def remove_abandoned() -> None:
    """The same for every process that is gone."""
    for name in _names():
        owner = re.fullmatch(rf"{_PREFIX}(\d+)-\d+", name)
        if owner and not _runs(Path("/proc", owner[1])):
            Cgroup(name).remove()


def _names() -> set[str]:
    return {folder.name for root in _hierarchies() for folder in root.glob(f"{_PREFIX}*")}


def _runs(process: Path) -> bool:
    """Not when it has ended and only its parent hasn't asked how (a zombie)."""
    try:
        return not re.search(r"^State:\s+[ZX]", (process / "status").read_text(), re.MULTILINE)
    except OSError:
        return False


def _hierarchies() -> Iterator[Path]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind in {"cgroup", "cgroup2"}:
            yield Path(where)


def _make_usable(folder: Path) -> None:
    """v1: a cpuset takes no process before it has processors and memory. v2: children have the controllers that their parents give them."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        given, parent = folder / name, folder.parent / name
        if parent.exists() and not given.read_text().strip():
            given.write_text(parent.read_text())
    controllers = folder / "cgroup.controllers"
    if controllers.exists() and folder.name != "system":
        for root in (folder.parent, folder):
            for controller in (root / "cgroup.controllers").read_text().split():
                with contextlib.suppress(OSError):  # one that v1 has taken, or that this machine doesn't hand on
                    (root / "cgroup.subtree_control").write_text(f"+{controller}")
