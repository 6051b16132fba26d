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
@click.option(
    "--mesh-trust-domain",
    "trust_domains",
    multiple=True,
    callback=lambda _context, _option, given: tuple(_trust_domain(each) for each in given),
    help="Also decide for the Envoys of a mesh, on peers of this SPIFFE trust domain; can be given again. See `hopgate envoy config`.",
)
@click.option("--sensor/--no-sensor", default=True, show_default=True, help="Watch the agents' connections in the kernel.")
def command(resources: Path, data: Path, trust_domains: tuple[str, ...], *, sensor: bool) -> None:
    """Keep a gate running for several agents, until interrupted. Needs root.

    Agents that `hopgate run` starts with the same data folder use this gate and can reach one another.
    Exit code 0: ended by a signal; 1: it could not start.
    """
    from hopgate.local import up  # noqa: PLC0415 - the gate's imports are slow, and --help needs none of them

    up.run(resources.resolve(), data, trust_domains, sensor=sensor)


def _trust_domain(text: str) -> str:
    from authz.mesh import parse_trust_domain  # noqa: PLC0415 - --help needs none of it

    try:
        return parse_trust_domain(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
