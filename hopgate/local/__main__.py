"""The gate that one `hopgate run` brings along: `python -m hopgate.local`. A composition root; not called by people."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hopgate.local import up
from hopgate.local.errors import LocalError


def main() -> int:
    """Run until the lifeline ends. Exit code 1 with a message on standard error when the gate can't start."""
    parser = argparse.ArgumentParser(prog="python -m hopgate.local", description=__doc__)
    parser.add_argument("--resources", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--name", required=True, help="the run folder's name")
    parser.add_argument("--ready", type=int, required=True, help="a descriptor that gets one byte when the gate listens")
    parser.add_argument("--lifeline", type=int, required=True, help="a descriptor whose end is the gate's end")
    parser.add_argument("--no-sensor", action="store_true", help="do not watch connections")
    arguments = parser.parse_args()
    try:
        up.bring_along(
            arguments.resources,
            arguments.data,
            arguments.name,
            arguments.ready,
            arguments.lifeline,
            sensor=not arguments.no_sensor,
        )
    except LocalError as error:
        sys.stderr.write(f"hopgate: {error} ({error.code})\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
