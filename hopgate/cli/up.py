"""`hopgate up`: a gate that stays, for several agents."""

from __future__ import annotations

from pathlib import Path

import click

from hopgate.cli.data import default_data_folder


@click.command(
    "up",
    epilog="Example: hopgate up --resources ./resources    (then, elsewhere: hopgate run --agent demo/planner … -- python agent.py)",
)
@click.option(
    "--resources",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="The folder of manifests. Edits are picked up within a second.",
)
@click.option("--data", type=click.Path(path_type=Path), default=default_data_folder, show_default=True, help="The data folder: records.")
def command(resources: Path, data: Path) -> None:
    """Keep a gate running for several agents, until interrupted. Needs root.

    Agents that `hopgate run` starts with the same data folder use this gate and can reach one another.
    Exit code 0: ended by a signal; 1: it could not start.
    """
    from hopgate.local import up  # noqa: PLC0415 - the gate's imports are slow, and --help needs none of them

    up.run(resources.resolve(), data)
