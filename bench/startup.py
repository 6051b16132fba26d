"""`hopgate run` from its start to the program's first instruction, with a gate brought along and with one that runs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import checks
from bench.figures import Figure, spread

HOPGATE = str(Path(sys.executable).with_name("hopgate"))
ROUNDS = 7


@contextmanager
def gate(resources: Path, data: Path) -> Iterator[None]:
    """A `hopgate up` that answers."""
    with subprocess.Popen((HOPGATE, "up", "--resources", str(resources), "--data", str(data)), stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 30
        while subprocess.run((HOPGATE, "status", "--data", str(data)), capture_output=True, check=False).returncode:
            if time.monotonic() > end:
                raise RuntimeError("the gate did not start")
            time.sleep(0.1)
        try:
            yield
        finally:
            process.terminate()


def first_instruction(resources: Path, data: Path) -> float:
    """Seconds until `date`, the program, reads the clock."""
    given = ("--agent", "bench/planner", "--resources", str(resources), "--data", str(data))
    started = time.time_ns()
    done = subprocess.run(
        (HOPGATE, "run", *given, "--", "date", "+%s%N"), capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    return (int(done.stdout) - started) / 1e9


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        resources, data = checks.write_manifests(Path(name) / "resources"), Path(name) / "data"
        first_instruction(resources, data)
        along = [first_instruction(resources, data) for _ in range(ROUNDS)]
        with gate(resources, data):
            running = [first_instruction(resources, data) for _ in range(ROUNDS)]
    return [
        Figure(what="to the first instruction, gate brought along (min / median / max)", value=spread(along, "s"), target="1 s"),
        Figure(what="to the first instruction, `hopgate up` running (min / median / max)", value=spread(running, "s"), target="0.4 s"),
    ]
