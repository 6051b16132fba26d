"""How soon a program that nobody registered is on record after it spoke to a model: from before its connect to the row that names it.

The sensor is the real process, as `hopgate up` has it. Each program is another one, so that each makes a row of its own: a script that
opens TLS to a server of this process on loopback, under a model's name, and then stays for a moment or ends at once.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from bench.figures import Figure, percentile
from bench.sensor import Sensor

PROGRAMS: Final = 200
_WAIT_SECONDS: Final = 20.0
_MODEL: Final = "api.openai.com"
_CALL: Final = """
import socket, ssl, sys, time
print(time.time_ns(), flush=True)
context = ssl._create_unverified_context()
try:
    context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5), server_hostname=sys.argv[2])
except OSError:
    pass
time.sleep(float(sys.argv[3]))
"""


def measure() -> list[Figure]:
    if os.geteuid() != 0:
        return [Figure(what="left out: loading programs into the kernel needs root", value="")]
    return [*_measure("that stay for 0.3 s", "0.3"), *_measure("that end at once", "0")]


def _measure(which: str, stays: str) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_hang_up, args=(server,), daemon=True).start()
        folder = Path(name)
        running = Sensor(folder, "--sightings")
        try:
            called = {number: _call(folder, number, server.getsockname()[1], stays) for number in range(PROGRAMS)}
            told = _told(folder, len(called))
        finally:
            running.end()
    spent = sorted((told[number] / 1e6 - began / 1e9) * 1e3 for number, began in called.items() if number in told)
    return [
        Figure(what=f"of {PROGRAMS} programs {which}: on record by name", value=str(len(spent))),
        Figure(
            what="from before the connect to the record, p50 / p99 / longest",
            value=f"{percentile(spent, 0.5):.0f} / {percentile(spent, 0.99):.0f} / {spent[-1]:.0f} ms" if spent else "none",
            target="p99 1 s",
        ),
    ]


def _hang_up(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.recv(4096)


def _call(folder: Path, number: int, port: int, stays: str) -> int:
    """When the program was about to connect, in Unix nanoseconds."""
    script = folder / f"agent-{number}.py"
    script.write_text(_CALL, encoding="utf-8")
    done = subprocess.run((sys.executable, str(script), str(port), _MODEL, stays), capture_output=True, text=True, timeout=30, check=True)
    return int(done.stdout)


def _told(folder: Path, count: int) -> dict[int, int]:
    """When the first row of each program was written, in Unix microseconds."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        rows = [row for row in _rows(folder) if "agent-" in row["command"] and row["reached"]]
        first: dict[int, int] = {}
        for row in rows:
            number = int(row["command"].rpartition("agent-")[2].partition(".py")[0])
            first[number] = min(row["time"], first.get(number, row["time"]))
        if len(first) >= count or time.monotonic() > deadline:
            return first
        time.sleep(0.2)


def _rows(folder: Path) -> list[dict[str, Any]]:
    lines = [line for path in sorted((folder / "spool" / "sightings").glob("*.jsonl")) for line in path.read_bytes().splitlines()]
    return [json.loads(line)["record"] for line in lines]
