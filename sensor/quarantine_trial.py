"""A quarantine of one cgroup by programs that know no other one: what it stops here, tried without touching one in force."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sensor import enforcement, libbpf, objects, programs, quarantine
from sensor.clock import now_ns
from sensor.quarantine import Origin

_SUBJECT: Final = "coverage probe"


@contextlib.contextmanager
def cut_off(folder: Path) -> Iterator[None]:
    """The cgroup at `folder` is cut off for as long as the block lasts. Raises KernelError, OSError.

    Attached at the root, as those in force: the kernel asks the programs of the cgroup
    that made the socket, which may be another.
    """
    loaded = libbpf.load(objects.find(objects.QUARANTINE), map_bytes={})
    with contextlib.ExitStack() as undo:
        undo.callback(loaded.close)
        value = quarantine.pack_value(_SUBJECT, Origin.COMMAND, now_ns())
        libbpf.store(loaded.maps["quarantined"], quarantine.KEY.pack(folder.stat().st_ino), value)
        cgroup = os.open(programs.root(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        undo.callback(os.close, cgroup)
        for name, attach_type in enforcement.HOOKS.items():
            if name in loaded.programs:
                undo.callback(os.close, libbpf.link(loaded.programs[name], cgroup, attach_type))
        if enforcement.FAMILY in loaded.programs:
            with contextlib.suppress(OSError):  # without it packet sockets go through, which is what is to be found out
                undo.callback(os.close, enforcement.link_family(loaded.programs[enforcement.FAMILY]))
        yield
