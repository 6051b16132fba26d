"""`hopgate replay`: what a proposed policy set would have decided otherwise, tried on the recorded decisions."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

import click

from hopgate.audit import replay
from hopgate.audit.errors import AuditError
from hopgate.audit.replay import Change, Replay
from hopgate.cli import output
from hopgate.cli.audit import MOMENT, data_option, fail, records_in, tell_unreadable
from hopgate.manifests import snapshots
from hopgate.manifests.snapshots import SnapshotError
from hopgate.policy.bundle import PolicyBundle

_HEADINGS = ("decisions", "who", "what", "was", "by", "would be", "by", "example")


@click.command(epilog="Example: hopgate replay --policies ./proposed --since 7d")
@click.option("--policies", type=click.Path(path_type=Path), required=True, help="The folder of proposed manifests: policies and all else.")
@click.option("--since", type=MOMENT, default=0, help="Decisions not before: `15m`, `2h`, `1d` ago, or ISO 8601 in UTC.")
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(policies: Path, since: int, data: Path, *, as_json: bool) -> None:
    """Judge the recorded decisions again by the policies in a folder, and list every verdict that would be another.

    The folder is a whole one, as `hopgate up --resources` takes it: agents' labels and servers are its own. Nothing is put in force.
    Exit code 0: no verdict would change; 1: at least one would; 2: wrong usage, mistakes in the folder, or nothing to read.
    """
    spool = records_in(data)
    bundle = load_policies(policies)
    try:
        with click.progressbar(length=1000, label="replaying", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
            found = replay.replay(spool, bundle, since, lambda done, whole: bar.update(done * 1000 // max(whole, 1) - bar.pos))
    except AuditError as error:
        fail(error)
    _print(found, as_json=as_json)
    sys.exit(1 if found.changed else 0)


def load_policies(folder: Path) -> PolicyBundle:
    """The policies of a folder of manifests. Ends the command with every mistake that the folder has."""
    try:
        return snapshots.load(folder, previous=None, now=int(time.time())).policies
    except SnapshotError as error:
        for mistake in error.mistakes:
            click.echo(mistake, err=True)
        click.echo(f"hopgate: expected valid manifests in `{folder}`, got {len(error.mistakes)} mistakes (InvalidPolicies)", err=True)
        sys.exit(2)


def _print(found: Replay, *, as_json: bool) -> None:
    changes = found.sorted_changes()
    if as_json:
        counts = {name: getattr(found, name) for name in ("judged", "changed", "untouched", "incomplete", "unreadable")}
        output.json_lines([{**counts, "changes": [dataclasses.asdict(change) for change in changes]}])
        return
    if changes:
        output.table(_HEADINGS, [_row(change) for change in changes], red=[change.after == "Deny" for change in changes])
    click.echo(f"{found.changed} of {found.judged} verdicts would change; {found.untouched} were not the policies' to give")
    if found.incomplete:
        click.echo(f"{found.incomplete} can't be judged again: their record does not have all that was judged", err=True)
    tell_unreadable(found.unreadable)


def _row(change: Change) -> list[str]:
    what = f"{change.action} {change.resource}"
    were, would = ", ".join(change.were) or "-", ", ".join(change.policies) or "-"
    return [str(change.count), change.caller, what, change.before, were, change.after, would, change.example[:8]]
