"""Where else a file can be reached: the other mounts of the same file system that show the same file.

A folder that is hidden, or a socket that is masked, at one path is open as long as a second mount shows it at another. Pure: the text of
/proc/PID/mountinfo comes in, paths go out. Mounts that a later one covers may be named too; that costs a mask too many.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# proc_pid_mountinfo(5): space, tab, newline and backslash are written in octal
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mount: `device` is `major:minor`, `root` the folder of that file system that is seen at `point`."""

    device: str
    root: Path
    point: Path


def parse(mountinfo: str) -> tuple[Mount, ...]:
    """The mounts in the order in which they were made. Lines that are no mounts are passed over."""
    found = []
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) > 5:
            found.append(Mount(device=fields[2], root=Path(_unescaped(fields[3])), point=Path(_unescaped(fields[4]))))
    return tuple(found)


def aliases(mounts: tuple[Mount, ...], path: Path) -> tuple[Path, ...]:
    """Every other path that shows `path` (absolute, resolved), or a part of it."""
    home = _mount_of(mounts, path)
    if home is None:
        return ()
    inner = home.root / path.relative_to(home.point)
    found: set[Path] = set()
    for mount in mounts:
        if mount.device != home.device:
            continue
        if inner.is_relative_to(mount.root):
            found.add(mount.point / inner.relative_to(mount.root))
        elif mount.root.is_relative_to(inner) and not mount.point.is_relative_to(path):
            found.add(mount.point)
    return tuple(sorted(found - {path}))


def _mount_of(mounts: tuple[Mount, ...], path: Path) -> Mount | None:
    """The mount that a walk to `path` ends in: the longest mount point, the last one made there."""
    best: Mount | None = None
    for mount in mounts:
        if path.is_relative_to(mount.point) and (best is None or len(mount.point.parts) >= len(best.point.parts)):
            best = mount
    return best


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match.group(1), 8)), text)
