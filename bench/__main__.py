"""Runs the benchmarks that are named, or all of them, and prints a table (or JSON lines with --json). Writes nothing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from bench import authz_alone, by_part, cluster, first_bytes, imports, quarantine, replay, sensor, sightings, startup, through_the_gate
from bench.figures import Figure

BENCHES: dict[str, Callable[[], list[Figure]]] = {
    "by-part": by_part.measure,
    "hellos": first_bytes.measure,
    "authz": authz_alone.measure,
    "startup": startup.measure,
    "imports": imports.measure,
    "gate": through_the_gate.measure,
    "cluster": cluster.measure,
    "sensor": sensor.measure,
    "sightings": sightings.measure,
    "quarantine": quarantine.measure,
    "replay": replay.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, epilog=f"Benchmarks: {', '.join(BENCHES)}")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHES]
    if unknown:
        parser.error(f"expected one of {', '.join(BENCHES)}, got {', '.join(unknown)}")
    for name in arguments.names or BENCHES:
        for figure in BENCHES[name]():
            print(json.dumps({"bench": name, **figure.__dict__}) if arguments.json else f"{name:12}{figure}", flush=True)
    return 0


sys.exit(main())
