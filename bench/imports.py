"""Where a start's time goes: what each process imports, by Python's own account (`-X importtime`), dearest first."""

from __future__ import annotations

import subprocess
import sys

from bench.figures import Figure, percentile

ROUNDS = 5
SHOWN = 8
# Process → the modules that are imported before it does its work.
PROCESSES = {
    "hopgate run": ("hopgate.cli.main", "hopgate.cli.run"),
    "gate": ("hopgate.local.__main__", "hopgate.local.gate", "hopgate.local.sessions"),
    "authz": ("authz.__main__",),
}


def measure() -> list[Figure]:
    return [figure for process, modules in PROCESSES.items() for figure in _measure(process, modules)]


def _measure(process: str, modules: tuple[str, ...]) -> list[Figure]:
    """The whole, and the distributions and packages of ours that take most of it themselves. Milliseconds, medians."""
    rounds = [_shares(modules) for _ in range(ROUNDS)]
    packages = {package for shares in rounds for package in shares}
    medians = {package: percentile([shares.get(package, 0.0) for shares in rounds], 0.5) for package in packages}
    dearest = sorted(medians.items(), key=lambda item: -item[1])[:SHOWN]
    whole = percentile([sum(shares.values()) for shares in rounds], 0.5)
    return [
        Figure(what=f"{process}: all imports", value=f"{whole:.0f} ms"),
        *(Figure(what=f"{process}:   of it in {package}", value=f"{spent:.0f} ms") for package, spent in dearest),
    ]


def _shares(modules: tuple[str, ...]) -> dict[str, float]:
    """Top-level package → milliseconds that its own modules take, without what they import."""
    command = (sys.executable, "-X", "importtime", "-c", f"import {', '.join(modules)}")
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    shares: dict[str, float] = {}
    for line in done.stderr.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        name = rest.rpartition("|")[2].strip()
        if own.strip().isdecimal():
            package = "the standard library" if name.partition(".")[0] in sys.stdlib_module_names else name.partition(".")[0]
            shares[package] = shares.get(package, 0.0) + int(own) / 1000
    return shares
