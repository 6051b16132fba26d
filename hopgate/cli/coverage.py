"""`hopgate coverage`: what is seen and what is stopped on this node, each from a probe made now."""

from __future__ import annotations

import platform
import sys
from typing import Any, Final

import click

from hopgate.cli import output
from hopgate.local import seccomp
from sensor import coverage, coverage_probes
from sensor.coverage import Answer, Row
from sensor.coverage_probes import Found

NOT_PROBED: Final = 3
_HEADINGS: Final = ("WAY", "SEEN", "QUARANTINE", "GATE", "HOW", "WHY NOT, OR NOT ALL")
_GATE: Final = {Answer.YES: "stops", Answer.PART: "holds"}
_QUARANTINE: Final = {Answer.YES: "stops", Answer.NO: "lets pass"}


@click.command("coverage", epilog="Example: hopgate coverage    (as root)")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line: ways, then facts of the node.")
def command(*, as_json: bool) -> None:
    """Tell what the sensor sees on this node, what is stopped, and what can't be seen.

    Each line is tried now: the programs are loaded, and each way of talking is used once, on loopback, in a network namespace made
    for it. Nothing else is dialled, and a sensor or a quarantine that is in force is left alone. Takes about two seconds, and needs root.

    Quarantine: whether a program in quarantine is stopped. Gate: `stops`: refused to a program of `hopgate run`; `holds`: it can be
    used, in a namespace that leads to the gate alone.

    Exit code 0: all that the sensor is made to see is seen; 1: some of it is not; 2: wrong usage; 3: nothing could be tried.
    """
    found = coverage_probes.probe(_filter())
    table = coverage.rows(found.probed)
    if as_json:
        output.json_lines([*map(_way, table), *_facts(found)])
    else:
        output.table(_HEADINGS, [_cells(row) for row in table], red=[row.fault for row in table])
        click.echo()
        for fact in found.facts:
            output.line(f"{fact.name}: {'' if fact.there else 'no: '}{fact.says}")
        click.echo(coverage.summary(table))
    _explain(found)
    if found.probed.free is None:
        sys.exit(NOT_PROBED)
    sys.exit(1 if found.hooks_missing or any(row.fault for row in table) else 0)


def _filter() -> bytes:
    """That of governed programs; nothing for a machine that has none."""
    try:
        return seccomp.program(platform.machine())
    except seccomp.SeccompError:
        return b""


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.way,
        row.seen.value,
        _QUARANTINE.get(row.quarantine, row.quarantine.value),
        _GATE.get(row.gate, row.gate.value),
        row.how,
        row.why,
    )


def _way(row: Row) -> dict[str, Any]:
    return {
        "way": row.key,
        "title": row.way,
        "seen": row.seen.name.lower(),
        "how": row.how,
        "quarantine": row.quarantine.name.lower(),
        "gate": row.gate.name.lower(),
        "why": row.why,
        "fault": row.fault,
    }


def _facts(found: Found) -> list[dict[str, Any]]:
    return [{"fact": fact.name, "there": fact.there, "says": fact.says} for fact in found.facts]


def _explain(found: Found) -> None:
    """What was not tried, and what to do about it, on standard error."""
    for missing in found.hooks_missing:
        click.echo(f"not in force: {missing}", err=True)
    if found.kernel_error is not None:
        error = found.kernel_error
        click.echo(f"hopgate: nothing could be tried: {error} ({error.code})", err=True)
        if error.remedy:
            click.echo(f"  to mend it: {error.remedy}", err=True)
        click.echo("  what still works: what this node has, above; `hopgate discover` lists programs that run now", err=True)
        return
    for what, why in (("quarantine", found.probed.not_quarantined), ("governed programs", found.probed.not_governed)):
        if why:
            click.echo(f"not tried: {what}: {why}", err=True)
