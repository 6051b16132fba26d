"""From a cgroup's id, which the kernel gives with each event, to its path.

The id is the inode number of the cgroup's folder in the cgroup2 hierarchy. It is opened by that number, which takes microseconds, and
kept: a short-lived container's cgroup is gone within seconds, and then nothing tells its path.

Where controllers are mounted the old way (v1, hybrid), container engines place containers in the v1 hierarchies only. Then every event
has the root's id, and /proc/PID/cgroup says what the id can't.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from hopgate import kernel
from sensor.bounded import remember

# A node runs some hundred containers at a time.
MAX_KEPT: Final = 10_000
ROOT: Final = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """Where cgroup2 is mounted, and whether controllers of the old kind stand beside it."""

    mount: Path
    hybrid: bool


def find(proc: Path = Path("/proc/self")) -> Hierarchy | None:
    """The cgroup2 hierarchy of this machine; None when none is mounted."""
    mounts = [_cgroup2_mount(line) for line in (proc / "mountinfo").read_text(encoding="utf-8").splitlines()]
    found = next((mount for mount in mounts if mount is not None), None)
    if found is None:
        return None
    lines = (proc / "cgroup").read_text(encoding="utf-8").splitlines()
    return Hierarchy(mount=found, hybrid=any(not line.startswith("0::") for line in lines))


def _cgroup2_mount(line: str) -> Path | None:
    """Where a line of mountinfo (proc(5)) mounts cgroup2."""
    place, _, source = line.partition(" - ")
    return Path(place.split(" ")[4]) if source.split(" ", 1)[0] == "cgroup2" else None


def of_process(process: int | str = "self") -> str | None:
    """The path of a process's cgroup2, as told from this process's own cgroup namespace on (proc_pid_cgroup(5)); None where none is told.

    Raises OSError when the process is gone.
    """
    lines = Path(f"/proc/{process}/cgroup").read_text(encoding="utf-8").splitlines()
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)


class Cgroups:
    """Paths of cgroups by id, each looked up once."""

    def __init__(self, mount: Path) -> None:
        """Raises OSError when `mount` can't be opened."""
        self._mount = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._prefix = _path(self._mount)
        self._paths: OrderedDict[int, str] = OrderedDict()

    def path(self, cgroup_id: int) -> str:
        """The path from the mount on, `/` for the root; empty when the cgroup is gone and was never asked for before."""
        kept = self._paths.get(cgroup_id)
        if kept is not None:
            self._paths.move_to_end(cgroup_id)
            return kept
        found = self._look_up(cgroup_id)
        if found:
            remember(self._paths, cgroup_id, found, MAX_KEPT)
        return found

    def _look_up(self, cgroup_id: int) -> str:
        try:
            opened = kernel.open_cgroup(self._mount, cgroup_id)
        except OSError:
            return ""
        try:
            path = _path(opened)
        finally:
            os.close(opened)
        # Of a folder that was just removed the kernel says so behind its name.
        return path.removeprefix(self._prefix).removesuffix(" (deleted)") or ROOT

    def close(self) -> None:
        """Give the mount's descriptor back."""
        os.close(self._mount)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _path(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())
