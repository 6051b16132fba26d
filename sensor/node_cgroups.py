"""The cgroups of a node's pods, looked up in the cgroup2 tree, and the network namespace of each pod.

A container's cgroup is there before its first process, and often before the API server says so: the tree is asked, by the pod's UID.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hopgate import kernel
from sensor import containers, cutting


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerCgroup:
    """One cgroup of a container, its own or one beneath it."""

    pod: str
    container: str
    cgroup_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All cgroups of the pods that were asked for, and each pod's network namespace, by its cookie."""

    cgroups: tuple[ContainerCgroup, ...] = ()
    namespaces: Mapping[str, int] = field(default_factory=dict)


class PodCgroups:
    """Looks at the tree below `root`. What a pod's network namespace is called is asked once for each namespace."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._cookies: dict[int, int] = {}

    def find(self, pods: Collection[str]) -> Found:
        """What is there now of these pods. The tree is not walked for nobody."""
        if not pods:
            return Found()
        cgroups: list[ContainerCgroup] = []
        namespaces: dict[str, int] = {}
        inodes: set[int] = set()
        for folder, _, _ in os.walk(self._root):
            if "pod" not in folder:
                continue
            placed = containers.place(folder.removeprefix(str(self._root)))
            if placed.pod not in pods or not placed.container:
                continue
            try:
                number = Path(folder).stat().st_ino
            except FileNotFoundError:
                continue  # it has ended
            cgroups.append(ContainerCgroup(pod=placed.pod, container=placed.container, cgroup_id=number))
            if placed.pod not in namespaces and (inode := self._namespace(Path(folder))):
                namespaces[placed.pod] = self._cookies[inode]
                inodes.add(inode)
        self._cookies = {inode: cookie for inode, cookie in self._cookies.items() if inode in inodes}
        return Found(cgroups=tuple(cgroups), namespaces=namespaces)

    def _namespace(self, folder: Path) -> int:
        """The inode of the network namespace that a process of the cgroup is in; 0 when that can't be told."""
        for process in cutting.processes_in(folder):
            path = Path(f"/proc/{process}/ns/net")
            try:
                inode = path.stat().st_ino
                if inode not in self._cookies:
                    self._cookies[inode] = kernel.within(path, kernel.netns_cookie)
            except OSError:
                continue  # it has ended, or a right is missing
            return inode
        return 0
