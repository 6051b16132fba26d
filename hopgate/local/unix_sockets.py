"""The path-based Unix sockets of this machine: a program that can reach one has a way past its network namespace.

The kernel lists the sockets of each network namespace under /proc/PID/net/unix; a path works across network namespaces, so the lists of all
of them are read. Names that were bound relative to a working directory are looked for below that of whoever holds the socket.

Not seen: a socket bound after `bound_paths` was called, and one whose path another mount namespace alone knows.
"""

from __future__ import annotations

import contextlib
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# Num RefCount Protocol Flags Type St Inode Path (net/unix/af_unix.c); the path is the rest of the line, and may hold spaces
_LINE: Final = re.compile(r"[0-9a-fA-F]+: [0-9A-F]{8} [0-9A-F]{8} [0-9A-F]{8} [0-9A-F]{4} [0-9A-F]{2} +([0-9]+) (.+)")
_SOCKET_LINK: Final = re.compile(r"socket:\[([0-9]+)\]")
_PROC: Final = Path("/proc")


def parse(listing: str) -> dict[str, set[int]]:
    """Path as it was bound → inodes of its sockets. Abstract names (`@…`) belong to their network namespace and are left out."""
    found: dict[str, set[int]] = {}
    for line in listing.splitlines():
        match = _LINE.fullmatch(line)
        if match is not None and not match.group(2).startswith("@"):
            found.setdefault(match.group(2), set()).add(int(match.group(1)))
    return found


def bound_paths(proc: Path = _PROC) -> tuple[Path, ...]:
    """Where sockets are on this machine now, resolved and sorted. What can't be read because it ended meanwhile is passed over."""
    named: dict[str, set[int]] = {}
    for listing in _listings(proc):
        for path, inodes in parse(listing).items():
            named.setdefault(path, set()).update(inodes)
    wanted = {inode: path for path, inodes in named.items() if not path.startswith("/") for inode in inodes}
    candidates = [Path(path) for path in named if path.startswith("/")]
    if wanted:
        candidates += _below_their_folders(proc, wanted)
    return tuple(sorted({candidate.resolve() for candidate in candidates if is_socket(candidate)}))


def is_socket(path: Path) -> bool:
    """Whether a socket is at `path`, through symbolic links. What can't be looked at is none."""
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _processes(proc: Path) -> Iterator[Path]:
    return (entry for entry in proc.iterdir() if entry.name.isdecimal())


def _listings(proc: Path) -> Iterator[str]:
    """One list for each network namespace that a process is in."""
    seen: set[str] = set()
    for process in _processes(proc):
        with contextlib.suppress(OSError):
            namespace = str((process / "ns/net").readlink())
            if namespace not in seen:
                listing = (process / "net/unix").read_text(encoding="utf-8", errors="surrogateescape")
                seen.add(namespace)
                yield listing


def _below_their_folders(proc: Path, wanted: dict[int, str]) -> Iterator[Path]:
    for process in _processes(proc):
        with contextlib.suppress(OSError):
            folder = (process / "cwd").readlink()
            for link in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    match = _SOCKET_LINK.fullmatch(str(link.readlink()))
                    if match is not None and int(match.group(1)) in wanted:
                        yield folder / wanted[int(match.group(1))]
