"""What the gate decided, judged again: unchanged policies change nothing, and a rule that is gone changes what it had determined."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from authz import recording
from authz.caller import VerificationKeys
from authz.decide import Hop, decide
from authz.request import CheckInput
from authz.verdict import Reason
from hopgate.audit import replay
from hopgate.audit.records import MAX_TEXT, Decision
from hopgate.audit.replay import Replay
from hopgate.cli.main import commands
from hopgate.identity.names import ObjectName
from hopgate.manifests import snapshots
from hopgate.resources.kinds import DialAddress
from hopgate.snapshot import ResolvedHost, Snapshot, Upstreams
from tests.authz import test_decide as table
from tests.authz.requests import connection, http, outbound, tool_call
from tests.authz.test_decide import NOW, PLANNER, RESEARCHER, TICKETS, VAULT, WEATHER
from tests.hopgate.audit import samples

WORLD = Path(__file__).parent.parent / "world"
RULES = ("search", "ask-researcher", "small-model", "read-weather", "no-secret-weather", "vault")


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    loaded = snapshots.load(WORLD, previous=None, now=NOW)
    hosts = {host: ResolvedHost(addresses=("203.0.113.9",), resolved_at=NOW - 10) for host in (WEATHER, VAULT)}
    return replace(loaded, upstreams=Upstreams(hosts=hosts, gates={RESEARCHER: DialAddress(ip="127.0.0.1", port=4000)}))


def checks(snapshot: Snapshot) -> list[CheckInput]:
    """Every request of the decision's own table, and connections that are not HTTP."""
    described = [http(**request) for request in (*table.ALLOWED.values(), *(request for request, _ in table.DENIED.values()))]
    to = {"/mcp": "tickets.demo.svc"}
    hops = [outbound(snapshot, each, to=to.get(each.path, each.unverified_host.lower().partition(":")[0])) for each in described]
    return [*hops, connection(snapshot, to=VAULT, sni=VAULT), connection(snapshot, to=VAULT, sni=WEATHER)]


def record(snapshot: Snapshot, check: CheckInput, number: int, agent: ObjectName = PLANNER) -> Decision:
    verdict = decide(Hop(check=check, workload=agent), snapshot, VerificationKeys(), NOW)
    told: dict[str, Any] = {"latency_ns": 1, "minted_token_id": None, "check": check, "verdict": verdict, "snapshot": snapshot}
    return recording.decision(decision_id=f"{number:032x}", wall_ns=(NOW + number) * 1_000_000_000, **told)


@pytest.fixture(scope="module")
def decided(snapshot: Snapshot) -> list[Decision]:
    return [record(snapshot, check, number) for number, check in enumerate(checks(snapshot))]


def spooled(folder: Path, decisions: list[Decision]) -> Path:
    folder.mkdir(exist_ok=True)
    spool = samples.spool(folder / "spool")
    for decision in decisions:
        spool.append(decision)
    spool.close()
    return folder / "spool"


def proposed(folder: Path, change: Callable[[str], str]) -> Path:
    """The world with its manifests changed."""
    folder.mkdir()
    text = (WORLD / "resources.yaml").read_text(encoding="utf-8")
    changed = change(text)
    assert changed != text
    (folder / "resources.yaml").write_text(changed, encoding="utf-8")
    return folder


def again(folder: Path, resources: Path, since: int = 0) -> Replay:
    return replay.replay(folder / "spool", snapshots.load(resources, previous=None, now=NOW).policies, since)


def test_the_reasons_are_those_of_the_gate() -> None:
    assert {Reason(reason) for reason in replay.REASONS} == {Reason.PERMITTED, Reason.NO_PERMIT, Reason.FORBIDDEN, Reason.POLICY_ERROR}


def test_unchanged_policies_change_no_verdict(tmp_path: Path, decided: list[Decision]) -> None:
    spooled(tmp_path, decided)
    found = again(tmp_path, WORLD)
    assert (found.changes, found.incomplete, found.unreadable) == ({}, 0, 0)
    assert found.judged == sum(decision.reason in replay.REASONS for decision in decided)
    assert found.judged > 10
    assert found.untouched == len(decided) - found.judged > 10


@pytest.mark.parametrize("rule", RULES)
def test_without_a_rule_exactly_what_it_determined_is_another(tmp_path: Path, decided: list[Decision], rule: str) -> None:
    resources = proposed(tmp_path / "proposed", lambda text: _without(text, rule))
    for number, decision in enumerate(decided):
        folder = tmp_path / str(number)
        spooled(folder, [decision])
        determined = decision.policies == (f"demo/planner/{rule}",)
        changes = again(folder, resources).sorted_changes()
        assert [change.example for change in changes] == [decision.id] * determined, decision
        for change in changes:
            allowed = decision.verdict == "Allow"
            assert (change.before, change.after) == (("Allow", "Deny") if allowed else ("Deny", "Allow"))
            assert change.were == decision.policies
    assert any(decision.policies == (f"demo/planner/{rule}",) for decision in decided)


def _without(text: str, rule: str) -> str:
    before, found, after = text.partition(f'    @id("{rule}")\n')
    assert found
    return before + after[after.index(";\n") + 2 :]


def test_a_wider_permit_allows_what_was_denied(tmp_path: Path, decided: list[Decision]) -> None:
    spooled(tmp_path, decided)
    found = again(tmp_path, proposed(tmp_path / "proposed", lambda text: text.replace("limit <= 100", "limit <= 101")))
    [change] = found.sorted_changes()
    assert (change.before, change.after, change.count, change.policies) == ("Deny", "Allow", 1, ("demo/planner/search",))


def test_what_the_record_does_not_have_is_counted_and_not_guessed(tmp_path: Path, snapshot: Snapshot) -> None:
    def call(text: str) -> CheckInput:
        body = tool_call("search", {"limit": 10, "text": text})
        return outbound(snapshot, http(host=TICKETS, path="/mcp", body=body), to="tickets.demo.svc")

    def counted(folder: Path, decision: Decision) -> tuple[int, int]:
        spooled(folder, [decision])
        found = again(folder, WORLD)
        return found.judged, found.incomplete

    whole = record(snapshot, call("x" * MAX_TEXT), 1)
    assert whole.reason == "Permitted"
    assert counted(tmp_path / "whole", whole) == (1, 0)
    assert counted(tmp_path / "shortened", record(snapshot, call("x" * (MAX_TEXT + 1)), 1)) == (0, 1)
    assert counted(tmp_path / "truncated", replace(whole, truncated=True)) == (0, 1)


def test_since_leaves_the_earlier_ones_out(tmp_path: Path, decided: list[Decision]) -> None:
    spooled(tmp_path, decided)
    last = decided[-1]
    counts = [again(tmp_path, WORLD, since) for since in (0, last.time, last.time + 1)]
    assert [found.judged + found.untouched for found in counts] == [len(decided), 1, 0]


def test_half_a_line_is_none_yet_and_a_line_that_is_no_record_is_counted(tmp_path: Path, decided: list[Decision]) -> None:
    [path] = (spooled(tmp_path, decided) / "decisions").iterdir()
    path.write_bytes(path.read_bytes() + b'{"nothing":1}\n{"half')
    found = again(tmp_path, WORLD)
    assert (found.judged + found.untouched, found.unreadable) == (len(decided), 1)


def command(data: Path, resources: Path, *options: str) -> tuple[int, str, str]:
    ran = CliRunner().invoke(commands, ["replay", "--policies", str(resources), "--data", str(data), *options])
    return ran.exit_code, ran.stdout, ran.stderr


def test_the_command_tells_each_change_with_an_example_and_a_code(tmp_path: Path, decided: list[Decision]) -> None:
    spooled(tmp_path, [*decided, replace(decided[0], id="f" * 32, time=decided[-1].time + 1)])
    resources = proposed(tmp_path / "proposed", lambda text: _without(text, "search"))
    code, out, _ = command(tmp_path, resources, "--json")
    told = json.loads(out)
    calls = next(change for change in told["changes"] if change["action"] == "CallTool")
    assert (code, calls["before"], calls["after"], calls["example"]) == (1, "Allow", "Deny", "f" * 32)
    assert (
        calls["count"] == sum(decision.policies == ("demo/planner/search",) and decision.action == "CallTool" for decision in decided) + 1
    )
    assert told["changed"] == sum(change["count"] for change in told["changes"])
    code, out, _ = command(tmp_path, resources)
    assert code == 1
    assert "demo/planner/search" in out
    assert f"{told['changed']} of {told['judged']} verdicts would change" in out


def test_the_command_ends_well_when_nothing_would_change(tmp_path: Path, decided: list[Decision]) -> None:
    spooled(tmp_path, decided)
    code, out, error = command(tmp_path, WORLD)
    assert (code, out.splitlines()[0].startswith("0 of "), error) == (0, True, "")


def test_mistakes_in_the_folder_are_told_and_nothing_is_judged(tmp_path: Path, decided: list[Decision]) -> None:
    spooled(tmp_path, decided)
    code, out, error = command(tmp_path, proposed(tmp_path / "proposed", lambda text: text.replace("limit <= 100", "limit <= ")))
    assert (code, out) == (2, "")
    assert "resources.yaml" in error
    assert "InvalidPolicies" in error


def test_without_records_the_command_says_so(tmp_path: Path) -> None:
    code, out, error = command(tmp_path / "nothing", WORLD)
    assert (code, out) == (2, "")
    assert "--data" in error
