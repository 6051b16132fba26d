"""Open connections of cgroups ended at once, in every network namespace that a process is in, by sock_diag.

A quarantine drops their packets by itself, also when nobody is there to end them; this is so that a program learns of it now, not when its
patience ends. The other end is not told: what would tell it is a packet of a quarantined socket.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hopgate import kernel
from sensor import open_connections
from sensor.events import TCP, UDP
from sensor.open_connections import ListedSocket
from sensor.processes import sockets
from sensor.quarantine import Destination

_PROC: Final = Path("/proc")
# net/tcp_states.h; a connected datagram socket has the first of them
_ESTABLISHED: Final = 1
_LISTEN: Final = 10
# A connect that was let through before the quarantine began may make a connection after the first look.
_LOOKS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How many connections were ended; in how many network namespaces they could not be, and why the first could not."""

    ended: int = 0
    failed: int = 0
    reason: str = ""


def cut(folder: Path, allowed: Collection[Destination]) -> Cut:
    """End all connections of the cgroup at `folder` and those beneath it, but those to what is `allowed`.

    They are known by the cgroup that made their socket, and by the processes that hold them now.
    """
    ended, failed, reason = 0, 0, ""
    for _ in range(_LOOKS):
        cgroups: set[int] = set()
        held: set[int] = set()
        for each in tree(folder):
            cgroups.add(each.stat().st_ino)
            for process in processes_in(each):
                held |= sockets(process)
        found = 0
        failed, reason = 0, ""
        for namespace in open_connections.namespaces(_PROC):
            try:
                found += kernel.within(namespace, lambda: _cut_here(cgroups, held, allowed))  # noqa: B023 - called before the next turn
            except FileNotFoundError:
                continue  # its last process has ended
            except OSError as error:
                failed += 1
                reason = reason or os.strerror(error.errno or 0)
        ended += found
        if not found:
            break
    return Cut(ended=ended, failed=failed, reason=reason)


def tree(folder: Path) -> Iterator[Path]:
    """A cgroup's folder and those beneath it. What is removed meanwhile is left out."""
    for path, _, _ in os.walk(folder):
        if Path(path).is_dir():
            yield Path(path)


def processes_in(folder: Path) -> list[int]:
    """The processes of one cgroup; none when it is gone."""
    try:
        return [int(line) for line in (folder / "cgroup.procs").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _cut_here(cgroups: Collection[int], held: Collection[int], allowed: Collection[Destination]) -> int:
    ended = 0
    for protocol in (TCP, UDP):
        for found in list(open_connections.list_sockets(protocol)):
            if (found.cgroup_id in cgroups or found.inode in held) and _is_cut(found, protocol, allowed):
                ended += open_connections.destroy(found, protocol)
    return ended


def _is_cut(found: ListedSocket, protocol: int, allowed: Collection[Destination]) -> bool:
    if found.remote is None or found.state == _LISTEN or (protocol == UDP and found.state != _ESTABLISHED):
        return False
    return Destination(found.remote, protocol) not in allowed
