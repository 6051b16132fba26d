"""authz alone: the real process on its Unix socket, checks at a fixed rate, and as fast as sixteen at a time go."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio

from authz import state
from authz.server import METHOD
from authz.state import State, Workload
from bench import checks
from bench.figures import Figure, percentile
from hopgate import children
from hopgate.manifests import snapshots

RATE, SECONDS = 500, 10
FULL_SPEED_CHECKS, IN_FLIGHT = 6000, 16
METADATA = (("authorization", f"Bearer {checks.CREDENTIAL}"), ("x-hopgate-direction", "outbound"))
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mb(pid: int) -> float:
    """Memory that a process holds."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def measure() -> list[Figure]:
    """The real process, and the same on grpcio's threads: which of them is used is decided by these figures."""
    return [*_measure("authz", "asyncio"), *_measure("bench.sync_authz", "threads")]


def _measure(module: str, name_of_server: str) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        resources, socket = checks.write_manifests(folder / "resources"), folder / "authz.sock"
        command = (sys.executable, "-m", module, "--resources", str(resources), "--data", str(folder), "--socket", str(socket))
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("the process has no pipes")
            process.stdout.readline()
            workload = Workload(credential_sha256=state.credential_sha256(checks.CREDENTIAL), agent="bench/planner")
            process.stdin.write(children.encode(State(sequence=1, workloads=(workload,))))
            process.stdin.flush()
            process.stdout.readline()
            address = snapshots.load(resources, previous=None, now=int(time.time())).registry.by_host["tickets.bench.svc"].address
            request = checks.request("tickets.bench.svc", 80, address, checks.CALL)
            figures = asyncio.run(_load(process.pid, socket, request))
            process.stdin.close()
            return [replace(figure, what=f"{name_of_server}: {figure.what}") for figure in figures]


async def _load(pid: int, socket: Path, request: bytes) -> list[Figure]:
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        ask = channel.unary_unary(METHOD)
        for _ in range(300):
            await ask(request, metadata=METADATA)
        latencies: list[float] = []

        async def one() -> None:
            started = time.perf_counter()
            await ask(request, metadata=METADATA)
            latencies.append((time.perf_counter() - started) * 1000)

        before, started = cpu_seconds(pid), time.perf_counter()
        tasks = []
        for number in range(RATE * SECONDS):
            await asyncio.sleep(max(0.0, started + number / RATE - time.perf_counter()))
            tasks.append(asyncio.create_task(one()))
        await asyncio.gather(*tasks)
        paced = (cpu_seconds(pid) - before) / len(latencies) * 1e6
        at_rate = list(latencies)
        latencies.clear()
        before, started = cpu_seconds(pid), time.perf_counter()

        async def many() -> None:
            for _ in range(FULL_SPEED_CHECKS // IN_FLIGHT):
                await one()

        await asyncio.gather(*(many() for _ in range(IN_FLIGHT)))
        spent = time.perf_counter() - started
        full = (cpu_seconds(pid) - before) / len(latencies) * 1e6
    return [
        Figure(what=f"p50 at {RATE} checks a second", value=f"{percentile(at_rate, 0.5):.2f} ms", target="1.5 ms"),
        Figure(what=f"p99 at {RATE} checks a second", value=f"{percentile(at_rate, 0.99):.2f} ms", target="8 ms"),
        Figure(what=f"CPU of the process a check at {RATE} checks a second", value=f"{paced:.0f} us"),
        Figure(what=f"checks a second, {IN_FLIGHT} at a time", value=f"{len(latencies) / spent:.0f}"),
        Figure(what=f"CPU of the process a check, {IN_FLIGHT} at a time", value=f"{full:.0f} us"),
        Figure(what="memory of the process after that", value=f"{resident_mb(pid):.0f} MB", target="120 MB"),
    ]
