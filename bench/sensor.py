"""The sensor: what a connection costs more beside it, what it costs itself at a high rate, and how soon `hopgate discover` speaks.

Everything is the real process, `python -m sensor`, with no governed agent: what it does for all programs of a machine. Connections are
on loopback, from one process to itself, in blocks by turns with the sensor and without.
"""

from __future__ import annotations

import os
import pty
import resource
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from bench.authz_alone import cpu_seconds, resident_mb
from bench.figures import Figure, spread
from hopgate import children
from hopgate.children import Failed, ReportRequest
from sensor import state
from sensor.state import FromSensor, Report, State

HOPGATE: Final = str(Path(sys.executable).with_name("hopgate"))
BLOCKS, CONNECTIONS = 12, 3000
EVENTS_A_SECOND, SECONDS = 100_000, 5
_BATCH_SECONDS: Final = 0.01
STARTS: Final = 7


class Sensor:
    """The running process."""

    def __init__(self, data: Path, *options: str) -> None:
        command = (sys.executable, "-m", "sensor", "--data", str(data), *options)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        told = self._read()
        if isinstance(told, Failed):
            raise RuntimeError("; ".join(told.messages))
        self._tell(State(sequence=1))

    def report(self) -> Report:
        told = self._tell(ReportRequest())
        if not isinstance(told, Report):
            raise TypeError(f"expected a report, got {told}")
        return told

    def end(self) -> None:
        self.process.communicate(timeout=30)

    def _tell(self, message: State | ReportRequest) -> FromSensor:
        if self.process.stdin is None:
            raise RuntimeError("the sensor has no standard input")
        self.process.stdin.write(children.encode(message))
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> FromSensor:
        if self.process.stdout is None:
            raise RuntimeError("the sensor has no standard output")
        return state.decode_from_sensor(self.process.stdout.readline())


@contextmanager
def _sensor() -> Iterator[Sensor]:
    with tempfile.TemporaryDirectory() as name:
        running = Sensor(Path(name))
        try:
            yield running
        finally:
            running.end()


def measure() -> list[Figure]:
    if os.geteuid() != 0:
        return [Figure(what="left out: loading programs into the kernel needs root", value="")]
    return [*_connections(), *_rate(), *_discover()]


def _connections() -> list[Figure]:
    alone, beside = [], []
    _block()
    for _ in range(BLOCKS):
        alone.append(_block())
        with _sensor():
            beside.append(_block())
    ratios = [100 * (one / other - 1) for one, other in zip(beside, alone, strict=True)]
    return [
        Figure(what="CPU of connect + accept + close, alone (min / median / max)", value=spread(alone, "us")),
        Figure(what="the same beside the sensor", value=spread(beside, "us")),
        Figure(
            what="more, of the lowest; median of pairs",
            value=f"{_more(alone, beside):.1f}; {statistics.median(ratios):.1f} %",
            target="2 %",
        ),
    ]


def _more(alone: list[float], beside: list[float]) -> float:
    return 100 * (min(beside) / min(alone) - 1)


def _block() -> float:
    """Microseconds of this process's CPU for one connection, both ends of it."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=16)) as server:
        address = server.getsockname()
        before = resource.getrusage(resource.RUSAGE_SELF)
        for _ in range(CONNECTIONS):
            with socket.socket() as client:
                client.connect(address)
                accepted, _ = server.accept()
                accepted.close()
        after = resource.getrusage(resource.RUSAGE_SELF)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / CONNECTIONS * 1e6


def _rate() -> list[Figure]:
    """Connects of datagram sockets, each an event, at a steady rate."""
    with _sensor() as running:
        memory = resident_mb(running.process.pid)
        before, cpu = running.report().counters, cpu_seconds(running.process.pid)
        began = time.perf_counter()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for batch in range(int(SECONDS / _BATCH_SECONDS)):
                time.sleep(max(0.0, began + batch * _BATCH_SECONDS - time.perf_counter()))
                for _ in range(int(EVENTS_A_SECOND * _BATCH_SECONDS)):
                    sender.connect(("127.0.0.1", 9))
        spent = time.perf_counter() - began
        after = running.report().counters
        cpu = cpu_seconds(running.process.pid) - cpu
        told, lost = (after[f"events.{name}"] - before[f"events.{name}"] for name in ("attempts", "lost"))
        return [
            Figure(
                what=f"events a second, asked for {EVENTS_A_SECOND}: told / lost", value=f"{told / spent:.0f} / {lost}", target="none lost"
            ),
            Figure(what="share of a core for them, nobody's here", value=f"{100 * cpu / spent:.1f} %", target="5 %"),
            Figure(
                what="resident memory: when ready, then after that",
                value=f"{memory:.0f}, {resident_mb(running.process.pid):.0f} MB",
                target="40 MB",
            ),
        ]


def _discover() -> list[Figure]:
    spent = [_first_line() for _ in range(STARTS)]
    return [
        Figure(what="`hopgate discover` to its first line on a terminal (min / median / max)", value=spread(spent, "s"), target="0.5 s")
    ]


def _first_line() -> float:
    ours, theirs = pty.openpty()
    began = time.perf_counter()
    with subprocess.Popen((HOPGATE, "discover", "--duration", "1"), stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True):
        os.close(theirs)
        select.select([ours], [], [], 30)
        spent = time.perf_counter() - began
        while _more_to_read(ours):
            pass
    os.close(ours)
    return spent


def _more_to_read(descriptor: int) -> bool:
    try:
        return bool(os.read(descriptor, 4096))
    except OSError:
        return False  # EIO: the other end of the terminal is closed
