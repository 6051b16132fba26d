"""The authz process: `python -m authz --resources DIR --data DIR --socket PATH`; `python -m authz cluster …` for a cluster.

A composition root, of one machine; that of a cluster (`authz.cluster_command`) is imported only when it is called. The gate that started
this process writes its state on standard input and reads answers from standard output, one JSON message a line (`authz.state`); when
standard input ends, the process ends.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import signal
import sys
from pathlib import Path

from authz import process
from hopgate import children

_log = logging.getLogger("authz")


def main() -> int:
    """Run until standard input ends. Exit code 0 after an orderly end, 1 when the process could not start."""
    if sys.argv[1:2] == ["cluster"]:
        return int(importlib.import_module("authz.cluster_command").main(sys.argv[2:]))
    parser = argparse.ArgumentParser(prog="python -m authz", description=__doc__)
    parser.add_argument("--resources", type=Path, required=True, help="the folder of manifests")
    parser.add_argument("--data", type=Path, required=True, help="the data folder, whose spool takes the decisions")
    parser.add_argument("--socket", type=Path, required=True, help="the Unix socket to answer checks on")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="hopgate authz: %(levelname)s: %(message)s")
    children.end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return asyncio.run(process.serve(arguments.resources, arguments.data / "spool", arguments.socket))
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
