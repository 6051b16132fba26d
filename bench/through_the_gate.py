"""What the gate adds to a warm MCP call: the same client and server, direct and through the gate, in turns."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import checks
from bench.figures import Figure, percentile
from bench.startup import HOPGATE, gate

RATE, SECONDS, ROUNDS = 100, 5, 3
CALLER = Path(__file__).with_name("caller.py")
SERVER = Path(__file__).with_name("answerer.py")


def measure() -> list[Figure]:
    with (
        tempfile.TemporaryDirectory() as name,
        subprocess.Popen((sys.executable, str(SERVER)), stdout=subprocess.PIPE, text=True) as server,
    ):
        if server.stdout is None:
            raise RuntimeError("the server has no pipe")
        port = int(server.stdout.readline())
        resources, data = checks.write_manifests(Path(name) / "resources", port), Path(name) / "data"
        direct: list[float] = []
        governed: list[float] = []
        try:
            with gate(resources, data):
                for _ in range(ROUNDS):
                    direct += _latencies((), "127.0.0.1", port)
                    run = (
                        HOPGATE,
                        "run",
                        "--agent",
                        "bench/planner",
                        "--resources",
                        str(resources),
                        "--data",
                        str(data),
                        "--bind",
                        sys.prefix,
                    )
                    governed += _latencies((*run, "--"), "tickets.bench.svc", 80)
        finally:
            server.terminate()
    figures = []
    for share, target in ((0.5, "3 ms"), (0.99, "10 ms")):
        one, other = percentile(direct, share), percentile(governed, share)
        shown = f"{one:.2f} / {other:.2f} / {other - one:.2f} ms"
        figures.append(
            Figure(what=f"p{share * 100:.0f} of a call at {RATE} a second: direct / governed / added", value=shown, target=target)
        )
    return figures


def _latencies(before: tuple[str, ...], host: str, port: int) -> list[float]:
    command = (*before, sys.executable, str(CALLER), host, str(port), "tickets.bench.svc", str(RATE), str(SECONDS))
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL, cwd=CALLER.parent)
    found: list[float] = json.loads(done.stdout)
    return found
