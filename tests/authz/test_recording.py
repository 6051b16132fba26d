"""A record says what a verdict says, and of the request only what is not secret, cut at its bound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from authz import recording
from authz.caller import VerificationKeys
from authz.decide import Hop, decide
from authz.request import CheckInput, Direction, SocketAddress
from authz.verdict import Reason, Verdict
from hopgate.audit import records
from hopgate.audit.records import Decision
from hopgate.identity.names import ObjectName, User
from hopgate.manifests import snapshots
from hopgate.policy.question import EvaluationError, Observation
from hopgate.snapshot import Snapshot
from tests.authz.requests import http, outbound, tool_call

NOW = 1_800_000_000
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
TICKETS = "tickets.demo.svc:9000"


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return snapshots.load(Path(__file__).parent.parent / "world", previous=None, now=NOW)


def recorded(snapshot: Snapshot, check: CheckInput | None, verdict: Verdict | None = None, **changes: Any) -> Decision:
    if verdict is None:
        assert check is not None
        verdict = decide(Hop(check=check, workload=ObjectName("demo", "planner")), snapshot, VerificationKeys(), NOW)
    told = {"decision_id": "d1", "wall_ns": 1_234_567_891, "latency_ns": 1_999, "minted_token_id": None}
    return recording.decision(**{**told, **changes}, check=check, verdict=verdict, snapshot=snapshot)


def search(snapshot: Snapshot, **changes: Any) -> CheckInput:
    described = {"host": TICKETS, "path": "/mcp?key=secret", "body": tool_call("search", {"limit": 10})}
    return outbound(snapshot, http(**described | changes))


def test_a_decision_is_recorded_with_what_it_was_made_of(snapshot: Snapshot) -> None:
    check = search(snapshot)
    record = recorded(snapshot, check)
    assert check.http is not None
    found = {name: getattr(record, name) for name in ("id", "time", "latency_us", "verdict", "reason", "caller", "destination", "protocol")}
    assert found == {
        "id": "d1",
        "time": 1_234_567,
        "latency_us": 1,
        "verdict": "Allow",
        "reason": "Permitted",
        "caller": "demo/planner",
        "destination": "ToolServer:demo/tickets",
        "protocol": "MCP",
    }
    assert (record.action, record.resource) == ("CallTool", 'Tool::"demo/tickets/search"')
    assert (record.policies, record.policy_digest, record.snapshot_digest) == (
        ("demo/planner/search",),
        snapshot.policies.digest,
        snapshot.digest,
    )
    assert (record.method, record.host, record.path, record.body_bytes) == ("POST", TICKETS, "/mcp", len(check.http.body))
    assert (record.source, record.dial, record.request_id) == ("192.0.2.2:40000", "127.0.0.1:9100", "r1")
    assert record.context["arguments"] == {"limit": 10}


def test_a_check_that_can_t_be_read_is_recorded_all_the_same(snapshot: Snapshot) -> None:
    verdict = Verdict(direction=Direction.INBOUND, reason=Reason.MALFORMED_REQUEST, message="expected a CheckRequest")
    record = recorded(snapshot, None, verdict)
    assert (record.verdict, record.direction, record.message, record.caller, record.path) == (
        "Deny",
        "Inbound",
        "expected a CheckRequest",
        "",
        "",
    )


def test_who_it_is_for_is_recorded(snapshot: Snapshot) -> None:
    user = User(issuer="https://issuer.example", subject="ada", groups=("a", "b"))
    chain = (ObjectName("demo", "planner"), ObjectName("demo", "first"))
    verdict = Verdict(direction=Direction.INBOUND, reason=Reason.NO_PERMIT, message="", user=user, chain=chain, hop_token_id="j1")
    record = recorded(snapshot, None, verdict)
    assert (record.user, record.user_issuer, record.user_groups) == ("ada", "https://issuer.example", ("a", "b"))
    assert (record.chain, record.presented_token_id) == (("demo/planner", "demo/first"), "j1")


def test_policies_that_failed_are_recorded(snapshot: Snapshot) -> None:
    verdict = Verdict(
        direction=Direction.OUTBOUND, reason=Reason.POLICY_ERROR, message="", errors=(EvaluationError(policy="p", message="no such field"),)
    )
    assert recorded(snapshot, None, verdict).errors == ("p: no such field",)


def test_what_observe_policies_would_have_said_is_recorded_with_their_errors(snapshot: Snapshot) -> None:
    observed = Observation(
        allowed=False, policies=("demo/watch/0",), errors=(EvaluationError(policy="demo/watch/1", message="no such field"),)
    )
    record = recorded(snapshot, None, Verdict(direction=Direction.OUTBOUND, reason=Reason.PERMITTED, message="", observed=observed))
    assert (record.observed_verdict, record.observed_policies) == ("Deny", ("demo/watch/0",))
    assert (record.observed_errors, record.errors) == (("demo/watch/1: no such field",), ())


def test_a_credential_is_named_where_it_was_given_and_only_there(snapshot: Snapshot) -> None:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
    check = outbound(snapshot, http(host="api.openai.com", path="/v1/chat/completions", body=body))
    verdict = decide(Hop(check=check, workload=ObjectName("demo", "planner")), snapshot, VerificationKeys(), NOW)
    assert recorded(snapshot, check, verdict).credential == "demo/openai:apiKey"
    assert recorded(snapshot, check, replace(verdict, reason=Reason.DEADLINE_EXCEEDED)).credential == ""


DENIED = Verdict(direction=Direction.OUTBOUND, reason=Reason.HOST_MISMATCH, message="another host")


@pytest.mark.parametrize("part", ["path", "host", "method", "sni", "request_id"])
def test_what_a_program_chose_is_cut(snapshot: Snapshot, part: str) -> None:
    check = search(snapshot)
    assert check.http is not None
    long = "x" * 5000
    http_part = replace(check.http, method=long, unverified_host=long, path=long)
    record = recorded(snapshot, replace(check, http=http_part, sni=long, request_id=long), DENIED)
    assert len(getattr(record, part)) == 1024
    assert len(records.render(record)) < records.MAX_RECORD_BYTES


def test_long_arguments_are_kept_as_their_digest(snapshot: Snapshot) -> None:
    record = recorded(snapshot, search(snapshot, body=tool_call("search", {"limit": 10, "text": "x" * 5000})))
    assert record.context["arguments"]["text"]["length"] == 5000


@pytest.mark.parametrize(
    ("values", "trace"),
    [
        ((f"00-{TRACE}-{SPAN}-01",), TRACE),
        ((f"00-{TRACE}-{SPAN}-01",) * 2, ""),
        ((f"00-{TRACE.upper()}-{SPAN}-01",), ""),
        ((f"00-{TRACE}-{SPAN}-01\n",), ""),
        (("x",), ""),
        ((), ""),
    ],
    ids=["one", "two", "upper case", "a line's end", "something else", "none"],
)
def test_a_trace_is_recorded_where_there_is_one(snapshot: Snapshot, values: tuple[str, ...], trace: str) -> None:
    headers = (("content-type", "application/json"), *(("traceparent", value) for value in values))
    record = recorded(snapshot, search(snapshot, headers=headers))
    assert (record.trace_id, record.span_id) == (trace, SPAN if trace else "")


def test_an_ipv6_source_is_written_with_brackets(snapshot: Snapshot) -> None:
    check = replace(search(snapshot), source=SocketAddress(ip="2001:db8::1", port=7))
    assert recorded(snapshot, check).source == "[2001:db8::1]:7"


def test_a_question_is_recorded_with_who_asked() -> None:
    name = recording.name_question(ObjectName("demo", "planner"), "api.example", "AAAA", "NoData", "TCP", 5_000)
    assert (name.agent, name.name, name.type, name.answer, name.transport, name.time) == (
        "demo/planner",
        "api.example",
        "AAAA",
        "NoData",
        "TCP",
        5,
    )
    assert records.table_of(name) == "names"
