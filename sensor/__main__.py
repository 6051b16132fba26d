"""The sensor process beside a gate: `python -m sensor --data DIR`. A composition root; not called by people.

The gate that started it writes its state on standard input and reads answers from standard output (`sensor.state`); when standard input
ends, the process ends.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from hopgate import children
from sensor import data, privileges, process, programs
from sensor.kernel import KernelError


def main() -> int:
    """Run until standard input ends. Exit code 0 after an orderly end, 1 when the kernel does not take the programs."""
    parser = argparse.ArgumentParser(prog="python -m sensor", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the data folder, whose spool takes the flows")
    parser.add_argument("--sightings", action="store_true", help="look for agents that nobody registered, too")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="hopgate sensor: %(levelname)s: %(message)s")
    children.end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        kernel = programs.open()
    except KernelError as error:
        return process.fail(error)
    providers = data.built_in() if arguments.sightings else None
    missing = privileges.drop(tuple(privileges.KEPT))
    return asyncio.run(process.serve(kernel, arguments.data / "spool", providers, missing))


if __name__ == "__main__":
    sys.exit(main())
