"""`hopgate policy check`: every manifest of a folder, with file, line and field of each mistake."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click

from hopgate.cli import output
from hopgate.manifests import snapshots
from hopgate.manifests.snapshots import SnapshotError


@click.group(epilog="Example: hopgate policy check ./resources")
def group() -> None:
    """Policies and the resources around them."""


@group.command(epilog="Example: hopgate policy check ./resources")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(folder: Path, *, as_json: bool) -> None:
    """Check every manifest in FOLDER: form, names, references, and each policy against the schema and its own tests.

    Prints each mistake with file, line and field. Exit code 0: none; 1: at least one.
    """
    try:
        snapshot = snapshots.load(folder, previous=None, now=int(time.time()))
    except SnapshotError as error:
        if as_json:
            click.echo(json.dumps({"valid": False, "mistakes": list(error.mistakes)}))
        else:
            for mistake in error.mistakes:
                output.line(mistake)
            click.echo(f"{len(error.mistakes)} to mend", err=True)
        sys.exit(1)
    counts = {"destinations": len(snapshot.registry.destinations), "agents": len(snapshot.registry.agents), "rules": snapshot.policies.size}
    if as_json:
        click.echo(json.dumps({"valid": True, "digest": snapshot.digest, **counts}))
        return
    click.echo(f"valid: {counts['agents']} agents, {counts['destinations']} destinations, {counts['rules']} policy rules")
