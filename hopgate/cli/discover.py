"""`hopgate discover`: the agents of this machine that nobody told of."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from hopgate.cli.data import default_data_folder

DEFAULT_SECONDS: Final = 10.0


@click.command("discover", epilog="Example: hopgate discover --watch    (as root; elsewhere, an agent calls a model)")
@click.option("--watch", is_flag=True, help="Go on until interrupted, and tell of each program as soon as it is seen.")
@click.option(
    "--duration",
    type=click.FloatRange(min=0, max=31_536_000),
    metavar="SECONDS",
    help=f"Watch for so long.  [default: {DEFAULT_SECONDS:.0f}; with --watch: until interrupted]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line; with --watch one whenever there is something new.")
@click.option("--providers", type=click.Path(path_type=Path), metavar="FILE", help="Model APIs, packages and variables of your own (YAML).")
@click.option("--all", "everything", is_flag=True, help="Also show what hardly speaks for an agent.")
@click.option("--data", type=click.Path(path_type=Path), default=default_data_folder, show_default=True, help="The gate's data folder.")
def command(*, watch: bool, duration: float | None, as_json: bool, providers: Path | None, everything: bool, data: Path) -> None:
    """Find the agents of this machine: who calls models and tools, and why it is thought an agent. Needs root to see calls.

    Looks at what runs, then watches handshakes, DNS answers and requests in clear as the kernel sees them. No value of a variable or of
    an option is read into anything that is shown. Works without a gate; where one runs, its agents are told as registered.

    Exit code 0: no agent but registered ones; 1: at least one; 2: wrong usage; 3: calls could not be watched, and the list is of running
    programs only.
    """
    # What comes next takes a while to load; that something happens is said before.
    click.echo("looking at what runs" + ("" if as_json else ", then at what is called"), err=True)
    from hopgate.cli.discover_run import Options, run  # noqa: PLC0415

    seconds = duration if duration is not None else (float("inf") if watch else DEFAULT_SECONDS)
    sys.exit(run(Options(watch=watch, seconds=seconds, as_json=as_json, providers=providers, everything=everything, data=data)))
