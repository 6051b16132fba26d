"""What the guest does, as root of its own kernel: `python in_guest.py LSM_OBJECT`. Prints one JSON object."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from pathlib import Path

from sensor import libbpf, programs
from sensor.enforcement import Enforcement, uninstall
from sensor.kernel import Loader
from sensor.quarantine import Origin, Wanted

LSM_MAC = 27  # linux/bpf.h BPF_LSM_MAC


def can_make(family: int) -> bool:
    try:
        socket.socket(family, socket.SOCK_RAW if family == socket.AF_PACKET else socket.SOCK_STREAM).close()
    except PermissionError:
        return False
    return True


def lsm(path: Path) -> list[bool]:
    """Whether a packet socket can be made before, during and after, and another one during."""
    before = can_make(socket.AF_PACKET)
    loaded = libbpf.load(path, map_bytes={})
    link = libbpf.link(loaded.programs["refuse_packet_sockets"], 0, LSM_MAC)
    during, other = can_make(socket.AF_PACKET), can_make(socket.AF_INET)
    os.close(link)
    loaded.close()
    return [before, during, other, can_make(socket.AF_PACKET)]


def quarantine() -> list[str]:
    """What a child in a cgroup of its own gets from connect(2): before it is cut off, while it is, and after."""
    cgroup = programs.root() / "quarantined"
    cgroup.mkdir()
    server = socket.create_server(("127.0.0.1", 0))
    wanted = Wanted(cgroup_id=cgroup.stat().st_ino, subject="demo/planner")

    def connect() -> str:
        if (child := os.fork()) == 0:
            (cgroup / "cgroup.procs").write_text("0")
            with socket.socket() as client:
                os._exit(client.connect_ex(server.getsockname()))
        return os.strerror(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    with Enforcement() as enforcement:
        said = [connect()]
        enforcement.begin(wanted, Origin.COMMAND)
        said.append(connect())
        enforcement.end(wanted.cgroup_id)
        said.append(connect())
        said += enforcement.gaps
    uninstall()
    return said


def main() -> None:
    with contextlib.closing(programs.open(loader=Loader.CO_RE)) as kernel:
        hooks = {hook.name: hook.reason if not hook.attached else "" for hook in kernel.hooks}
    print(json.dumps({"release": os.uname().release, "hooks": hooks, "lsm": lsm(Path(sys.argv[1])), "quarantine": quarantine()}))


if __name__ == "__main__":
    main()
