"""An explanation goes through the rules as Cedar does, and its permit allows the request that it is for and no other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from authz.caller import VerificationKeys
from authz.decide import Hop, decide
from authz.verdict import Reason
from hopgate.audit import records, replay
from hopgate.audit.records import Decision
from hopgate.audit.replay import Recorded
from hopgate.cli.main import commands
from hopgate.manifests import snapshots
from hopgate.policy import explanation
from hopgate.policy.explanation import Explanation, Speaker
from hopgate.policy.question import Question
from hopgate.snapshot import Snapshot
from tests.authz import test_replay as recorded
from tests.authz.requests import http, outbound, tool_call
from tests.authz.test_decide import NOW, PLANNER, TICKETS, WEATHER
from tests.authz.test_replay import WORLD, proposed, spooled

snapshot = recorded.snapshot
decided = recorded.decided


def asked(decision: Decision) -> Question:
    found = replay.question(msgspec.json.decode(records.render(decision), type=Recorded))
    assert found is not None
    return found


def explained(snapshot: Snapshot, decision: Decision) -> Explanation:
    return explanation.explain(snapshot.policies, asked(decision))


def call(snapshot: Snapshot, limit: int) -> Decision:
    request = http(host=TICKETS, path="/mcp", body=tool_call("search", {"limit": limit}))
    return recorded.record(snapshot, outbound(snapshot, request, to="tickets.demo.svc"), 1)


def get(snapshot: Snapshot, path: str, method: str = "GET") -> Decision:
    return recorded.record(snapshot, outbound(snapshot, http(host=WEATHER, path=path, method=method, headers=())), 1)


def speaker(found: Explanation, rule: str) -> Speaker:
    return next(each for each in found.speakers if each.id == f"demo/planner/{rule}")


@pytest.mark.parametrize(("limit", "met"), [(100, True), (101, False)])
def test_each_condition_is_told_with_the_value_that_it_looked_at(snapshot: Snapshot, limit: int, met: bool) -> None:
    search = speaker(explained(snapshot, call(snapshot, limit)), "search")
    [finding] = search.findings
    assert (search.permits, search.matched, finding.met, finding.error) == (True, met, met, "")
    assert finding.facts == (("context.arguments.limit", limit),)
    assert "<= 100" in finding.text


def test_a_forbid_that_decides_is_told_and_no_permit_is_offered(snapshot: Snapshot) -> None:
    found = explained(snapshot, get(snapshot, "/secret"))
    forbid = speaker(found, "no-secret-weather")
    assert (forbid.permits, forbid.matched, found.permit) == (False, True, "")
    assert forbid.findings[0].facts == (("context.http.path", "/secret"),)
    found = explained(snapshot, get(snapshot, "/today"))
    assert (found.judgement.allowed, speaker(found, "no-secret-weather").matched, speaker(found, "read-weather").matched) == (
        True,
        False,
        True,
    )


def test_conditions_are_gone_through_as_cedar_does(tmp_path: Path, snapshot: Snapshot) -> None:
    condition = 'context.arguments has text && context.arguments.text == "a" && context.arguments.limit <= 100'
    resources = proposed(
        tmp_path / "other",
        lambda text: text.replace(
            "context.arguments.limit <= 100 }", f"{condition} }} unless {{ context has onBehalfOf || context.now < 0 }}"
        ),
    )
    policies = snapshots.load(resources, previous=None, now=NOW).policies
    findings = explanation.explain(policies, asked(call(snapshot, 10))).speakers[0].findings
    assert [(finding.wanted, finding.value) for finding in findings] == [
        (True, False),
        (True, None),
        (True, None),
        (False, None),
        (False, None),
    ]
    assert findings[0].facts == (("context.arguments.text", None),)
    request = http(host=TICKETS, path="/mcp", body=tool_call("search", {"limit": 10, "text": "a"}))
    decision = recorded.record(snapshot, outbound(snapshot, request, to="tickets.demo.svc"), 1)
    [search] = explanation.explain(policies, asked(decision)).speakers
    assert [(finding.wanted, finding.value) for finding in search.findings] == [(True, True)] * 3 + [(False, False)] * 2
    assert search.matched


def test_what_matched_is_what_determined(snapshot: Snapshot, decided: list[Decision]) -> None:
    judged = [decision for decision in decided if decision.reason in replay.REASONS and decision.action != "UseProtocol"]
    assert len(judged) > 8
    for decision in judged:
        matched = [each for each in explained(snapshot, decision).speakers if each.matched and not each.observed]
        forbids = [each.id for each in matched if not each.permits]
        assert tuple(forbids or [each.id for each in matched]) == decision.policies


def with_rule(folder: Path, permit: str) -> Snapshot:
    """The world with one more rule."""
    rule = "\n".join(f"    {line}" for line in ['@id("added")', *permit.splitlines()])
    resources = proposed(folder, lambda text: text.replace('    @id("search")', f'{rule}\n    @id("search")'))
    return snapshots.load(resources, previous=None, now=NOW)


def test_the_narrowest_permit_allows_its_request_and_no_other_denied_one(tmp_path: Path, snapshot: Snapshot) -> None:
    checks = recorded.checks(snapshot)
    reasons = [decide(Hop(check=check, workload=PLANNER), snapshot, VerificationKeys(), NOW).reason for check in checks]
    unpermitted = [at for at, reason in enumerate(reasons) if reason is Reason.NO_PERMIT]
    assert len(unpermitted) >= 4
    for at in unpermitted:
        permit = explained(snapshot, recorded.record(snapshot, checks[at], at)).permit
        wider = with_rule(tmp_path / str(at), permit)
        wider = replace(wider, upstreams=snapshot.upstreams)
        again = [decide(Hop(check=check, workload=PLANNER), wider, VerificationKeys(), NOW).reason for check in checks]
        assert again == [Reason.PERMITTED if number == at else reason for number, reason in enumerate(reasons)], permit


def test_values_that_would_end_a_string_stay_values(snapshot: Snapshot) -> None:
    hard = 'a"\\) || true; \n\u202e😀{}'
    question = replace(
        asked(call(snapshot, 101)), context={"arguments": {"limit": 101, hard: [hard, "b"], "deep": {"yes": True, "no": -1}}}
    )
    found = explanation.explain(snapshot.policies, question)
    assert found.permit
    assert found.permit.isascii() or "😀" in found.permit
    assert "\u202e" not in found.permit


def test_an_allowed_request_needs_no_permit(snapshot: Snapshot) -> None:
    found = explained(snapshot, call(snapshot, 100))
    assert (found.judgement.allowed, found.permit) == (True, "")


def command(data: Path, decision: str, *options: str) -> tuple[int, str, str]:
    ran = CliRunner().invoke(commands, ["explain", decision, "--policies", str(WORLD), "--data", str(data), *options])
    return ran.exit_code, ran.stdout, ran.stderr


def test_the_command_explains_a_denial(tmp_path: Path, snapshot: Snapshot) -> None:
    denied = replace(call(snapshot, 101), id="a" * 32)
    spooled(tmp_path, [denied, replace(denied, id="b" * 32, reason="HostMismatch"), replace(denied, id="c" * 32, truncated=True)])
    code, out, error = command(tmp_path, "aaaa")
    assert (code, error) == (0, "")
    assert "permit demo/planner/search: did not match" in out
    assert "context.arguments.limit is 101" in out
    assert 'context["arguments"]["limit"] == 101' in out
    assert "not the policies of then" not in out
    told = json.loads(command(tmp_path, "aaaa", "--json")[1])
    assert (told["samePolicies"], told["explanation"]["judgement"]["allowed"]) == (True, False)
    code, out, _ = command(tmp_path, "bbbb")
    assert (code, "no policy decided this" in out) == (0, True)
    assert command(tmp_path, "cccc")[0] == 1
    code, _, error = command(tmp_path, "dddd")
    assert (code, "begins 0" in error) == (1, True)


def test_the_command_names_what_let_a_protocols_housekeeping_pass(tmp_path: Path, decided: list[Decision]) -> None:
    ping = next(decision for decision in decided if decision.action == "UseProtocol" and decision.verdict == "Allow")
    spooled(tmp_path, [ping])
    code, out, _ = command(tmp_path, ping.id)
    assert (code, f"allowed by {', '.join(ping.policies)};" in out) == (0, True)


def test_other_policies_than_those_of_then_are_told(tmp_path: Path, snapshot: Snapshot) -> None:
    spooled(tmp_path, [replace(call(snapshot, 101), policy_digest="0" * 64)])
    code, out, _ = command(tmp_path, "0000")
    assert (code, "not the policies of then" in out) == (0, True)
