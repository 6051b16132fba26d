"""`hopgate explain`: why one decision came out as it did, from its record and the policies."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import click
import msgspec

from hopgate.audit import replay
from hopgate.audit.replay import Recorded
from hopgate.cli import output
from hopgate.cli.audit import data_option, find_one
from hopgate.cli.replay import load_policies
from hopgate.policy import explanation
from hopgate.policy.explanation import Explanation, Finding, Speaker


@click.command(epilog="Example: hopgate explain 5f1c… --policies ./resources")
@click.argument("identifier", metavar="DECISION")
@click.option("--policies", type=click.Path(path_type=Path), required=True, help="The folder of manifests: policies and all else.")
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(identifier: str, policies: Path, data: Path, *, as_json: bool) -> None:
    """Say why a decision was allowed or denied: the request as it was judged, each policy that could speak of it, and which of its
    conditions were met, with the values. For what no policy permitted, the narrowest permit that would have.

    DECISION is its id, or the beginning of it. Exit code 0: explained; 1: there is no such decision, or more than one begins so, or its
    record does not have all that was judged; 2: wrong usage, mistakes in the folder, or nothing to read.
    """
    row = find_one(data, identifier)
    bundle = load_policies(policies)
    recorded = msgspec.convert(row, Recorded)
    if recorded.reason not in replay.REASONS:
        _print(row, None, same=True, as_json=as_json)
        return
    asked = replay.question(recorded)
    if asked is None:
        click.echo("the record does not have all that was judged (a text too long to keep): nothing can be said of the policies", err=True)
        sys.exit(1)
    _print(row, explanation.explain(bundle, asked), same=bundle.digest == row["policy_digest"], as_json=as_json)


def _print(row: dict[str, object], found: Explanation | None, *, same: bool, as_json: bool) -> None:
    if as_json:
        explained = None if found is None else dataclasses.asdict(found)
        output.json_lines([{"decision": row, "samePolicies": same, "explanation": explained}])
        return
    for name in ("id", "verdict", "reason", "message", "caller", "user", "destination", "action", "resource", "context"):
        value = row[name] if isinstance(row[name], str) else json.dumps(row[name], ensure_ascii=False)
        output.line(f"{name:12} {value or '-'}")
    if found is None:
        click.echo("\nno policy decided this: the reason above was found before they were asked, or after they had allowed it")
        return
    if not same:
        click.echo("\nthese are not the policies of then: what follows is what they say of it now")
    determined = f" by {', '.join(found.judgement.policies)}" if found.judgement.policies else ""
    output.line("")
    output.line(f"{'allowed' if found.judgement.allowed else 'denied'}{determined}; policies that could speak of it: {len(found.speakers)}")
    for speaker in found.speakers:
        _print_speaker(speaker)
    if found.permit:
        click.echo("\nthe narrowest permit that would allow it:\n")
        for line in found.permit.splitlines():
            output.line(line)


def _print_speaker(speaker: Speaker) -> None:
    kind = ("permit" if speaker.permits else "forbid") + (" (Observe)" if speaker.observed else "")
    output.line(f"  {kind} {speaker.id}: {'matched' if speaker.matched else 'did not match'}")
    for finding in speaker.findings:
        output.line(f"    {_state(finding):11} {'' if finding.wanted else 'unless '}{finding.text}")
        for path, value in finding.facts:
            output.line(f"                {path} is {'absent' if value is None else json.dumps(value, ensure_ascii=False)}")


def _state(finding: Finding) -> str:
    if finding.error:
        return "failed"
    return "not reached" if finding.value is None else "met" if finding.met else "not met"
