"""A quarantine: what each packet and each connection of others costs while one is in force, and what the cut-off one pays to be refused.

Everything is the real kernel on loopback, in blocks by turns: nothing loaded, then the programs with another cgroup cut off. In between
the programs are taken away again, so that a drift of the machine is in both.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time_ns
from typing import Final

from bench.figures import Figure, spread
from hopgate import kernel
from sensor import enforcement, objects, programs
from sensor.enforcement import Enforcement
from sensor.quarantine import Origin, Wanted

BLOCKS: Final = 12
CONNECTIONS: Final = 2_000
PACKETS: Final = 10_000
REFUSALS: Final = 10_000
_REFUSED: Final = """
import socket, sys, time
count = int(sys.argv[2])
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
began = time.process_time_ns()
for _ in range(count):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect_ex(("127.0.0.1", 9))
print((time.process_time_ns() - began) / count / 1000)
"""


def measure() -> list[Figure]:
    if os.geteuid() != 0:
        return [Figure(what="left out: loading programs into the kernel needs root", value="")]
    objects.build(objects.QUARANTINE)
    with tempfile.TemporaryDirectory() as name, _place(Path(name)) as (pins, cgroup):
        return [
            *_compare("connect + accept + close of another", _connect, pins, cgroup),
            *_compare("a datagram of another, sent and received", _send, pins, cgroup),
            *_compare("socket + connect of the one cut off, refused", lambda: _refused(cgroup), pins, cgroup),
        ]


@contextlib.contextmanager
def _place(folder: Path) -> Iterator[tuple[Path, Path]]:
    """A bpffs, and a cgroup to cut off."""
    kernel.mount("bpf", folder)
    cgroup = programs.root() / f"hopgate-bench-{os.getpid()}"
    cgroup.mkdir()
    try:
        yield folder / "hopgate", cgroup
    finally:
        enforcement.uninstall(folder / "hopgate")
        cgroup.rmdir()
        kernel.unmount(folder)


def _compare(what: str, block: Callable[[], float], pins: Path, cgroup: Path) -> list[Figure]:
    free, cut = [], []
    block()
    for _ in range(BLOCKS):
        free.append(block())
        with Enforcement(pins) as made:
            made.begin(Wanted(cgroup_id=cgroup.stat().st_ino, subject="bench"), Origin.COMMAND)
        cut.append(block())
        enforcement.uninstall(pins)
    ratios = [100 * (one / other - 1) for one, other in zip(cut, free, strict=True)]
    return [
        Figure(what=f"CPU of {what}: nothing loaded", value=spread(free, "us")),
        Figure(what="the same with a quarantine in force", value=spread(cut, "us")),
        Figure(
            what="more, of the lowest; median of pairs", value=f"{100 * (min(cut) / min(free) - 1):.1f}; {statistics.median(ratios):.1f} %"
        ),
    ]


def _connect() -> float:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0), backlog=16)) as server:
        address = server.getsockname()
        began = process_time_ns()
        for _ in range(CONNECTIONS):
            with socket.socket() as client:
                client.connect(address)
                server.accept()[0].close()
        return (process_time_ns() - began) / CONNECTIONS / 1000


def _send() -> float:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        began = process_time_ns()
        for _ in range(PACKETS):
            sender.send(b"x")
            receiver.recv(1)
        return (process_time_ns() - began) / PACKETS / 1000


def _refused(cgroup: Path) -> float:
    command = (sys.executable, "-I", "-S", "-c", _REFUSED, str(cgroup), str(REFUSALS))
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, stdin=subprocess.DEVNULL).stdout)
