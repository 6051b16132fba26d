"""What the guest does, as root of its own kernel: `python in_guest.py LSM_OBJECT`. Prints one JSON object."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from pathlib import Path

from sensor import libbpf, programs
from sensor.kernel import Loader

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


def main() -> None:
    with contextlib.closing(programs.open(loader=Loader.CO_RE)) as kernel:
        hooks = {hook.name: hook.reason if not hook.attached else "" for hook in kernel.hooks}
    print(json.dumps({"release": os.uname().release, "hooks": hooks, "lsm": lsm(Path(sys.argv[1]))}))


if __name__ == "__main__":
    main()
