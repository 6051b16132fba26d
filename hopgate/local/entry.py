"""What a child of `hopgate run` does between fork and exec: enter the sandbox, and give up every right.

The program thereby is a direct child: its exit code, the signal that ended it, its terminal and its process group are its own,
with nothing between. The order matters: rights go after the namespaces are entered, the working directory is entered with the
user's rights, and the filter comes last.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hopgate import kernel
from hopgate.local import cgroups


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Everything prepared before the fork. `namespaces` are descriptors with their CLONE_NEW… kind, the mount namespace last.

    `report` is the writing end of a pipe that closes at exec: a step that fails leaves its name and errno there. `cgroup` is the open
    `cgroup.procs` of the program's own cgroup, None when it has none.
    """

    namespaces: tuple[tuple[int, int], ...]
    uid: int
    gid: int
    groups: tuple[int, ...]
    working_directory: Path
    seccomp: bytes
    report: int
    cgroup: int | None = None

    def __call__(self) -> None:
        """Do it. Raises OSError after reporting; the process must then not go on to exec."""
        step = "enter the cgroup"
        try:
            if self.cgroup is not None:
                cgroups.enter(self.cgroup)
            step = "enter the namespaces"
            for descriptor, kind in self.namespaces:
                kernel.setns(descriptor, kind)
            step = f"become user {self.uid}"
            kernel.drop_bounding_set()
            os.setgroups(self.groups)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
            kernel.drop_capabilities()
            kernel.forbid_new_privileges()
            step = f"enter the working directory `{self.working_directory}`"
            os.chdir(self.working_directory)
            step = "install the system call filter"
            kernel.install_filter(self.seccomp)
        except OSError as error:
            os.write(self.report, f"{step}: {error.strerror}".encode())
            raise
