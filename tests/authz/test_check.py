"""Every way out of a check: one record, one CheckResponse, and nothing that fails ever lets a hop pass."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from authz.check import Checker, Sources
from authz.pb import ext_authz_pb2 as pb
from authz.request import CheckInput, SocketAddress
from authz.server import Call
from authz.state import State, Workload, credential_sha256
from authz.verdict import Reason
from authz.workloads import HeldCredentials, Workloads
from hopgate.audit import records
from hopgate.audit.errors import SpoolError
from hopgate.audit.records import Decision
from hopgate.identity import names
from hopgate.manifests import snapshots
from hopgate.resources.kinds import DialAddress
from hopgate.snapshot import ResolvedHost, Snapshot, Upstreams
from tests.authz import requests
from tests.authz.requests import chat, http, message, outbound, tool_call
from tokenmint.keys import KeyRing
from tokenmint.replay import ReplayCache
from tokenmint.validity import TOKEN_LIFE_SECONDS

NOW = 1_800_000_000
TICKETS, OPENAI, WEATHER, VAULT = "tickets.demo.svc:9000", "api.openai.com", "weather.example.com", "vault.example.com"
RESEARCHER = "researcher.demo.svc:8080"
CONTENT = ("content-type", "application/json")
# What must never be seen anywhere but in the one header that it is for.
MARKERS = ("sk-marker-secret", "weather-marker-secret", "workload-marker", "app-marker")
# Whatever an app sends of its own credentials, in every place that could be repeated by mistake.
MINE = (("authorization", "Bearer app-marker"), ("cookie", "session=app-marker"), ("x-hopgate-token", "app-marker"))


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    loaded = snapshots.load(Path(__file__).parent.parent / "world", previous=None, now=NOW)
    gates = {name: DialAddress(ip="127.0.0.1", port=4000) for name in loaded.registry.agents if name.name == "researcher"}
    return replace(loaded, upstreams=Upstreams(hosts={WEATHER: ResolvedHost(addresses=("203.0.113.9",), resolved_at=NOW)}, gates=gates))


def never_late() -> float | None:
    return 10.0


@dataclass(slots=True)
class Gate:
    """A checker with a clock that stands still, ids that count, and a sink that keeps records or fails."""

    snapshot: Snapshot
    ring: KeyRing = field(default_factory=lambda: KeyRing.create(NOW))
    now: int = NOW
    recorded: list[Decision] = field(default_factory=list)
    sink_error: Exception | None = None
    inside_error: Exception | None = None
    checker: Checker = field(init=False)

    def __post_init__(self) -> None:
        names = itertools.count(1)
        agents = ("demo/planner", "demo/researcher", "other/outsider")
        alive = State(sequence=1, workloads=tuple(Workload(credential_sha256=credential_sha256(held(name)), agent=name) for name in agents))

        def workloads() -> Workloads:
            if self.inside_error is not None:
                raise self.inside_error
            return HeldCredentials(alive)

        def record(decision: Decision) -> None:
            if self.sink_error is not None:
                raise self.sink_error
            self.recorded.append(decision)

        sources = Sources(
            snapshot=lambda: self.snapshot,
            workloads=workloads,
            wall_ns=lambda: self.now * 1_000_000_000,
            monotonic_ns=itertools.count(0, 1_000).__next__,
            new_id=lambda: f"{next(names):032x}",
        )
        self.checker = Checker(sources, self.ring, ReplayCache(), record)

    def ask(
        self,
        check: CheckInput | bytes,
        *,
        agent: str | None = "demo/planner",
        direction: str | None = "outbound",
        seconds_left: Callable[[], float | None] = never_late,
    ) -> pb.CheckResponse:
        request = check if isinstance(check, bytes) else encoded(check)
        authorization = None if agent is None else f"Bearer {held(agent)}"
        answer = self.checker.check(request, Call(authorization=authorization, direction=direction, seconds_left=seconds_left))
        return pb.CheckResponse.FromString(answer)


def held(agent: str) -> str:
    """The workload credential of an agent's gate."""
    return f"workload-marker-{agent}"


def encoded(check: CheckInput) -> bytes:
    """A check as Envoy sends it."""
    request = pb.CheckRequest()
    attributes = request.attributes
    for peer, address in ((attributes.source, check.source), (attributes.destination, check.destination)):
        peer.address.socket_address.address, peer.address.socket_address.port_value = address.ip, address.port
    if check.sni is not None:
        attributes.tls_session.sni = check.sni
    if check.http is not None:
        described = attributes.request.http
        described.id, described.method, described.path = check.request_id, check.http.method, check.http.path
        described.host, described.scheme = check.http.unverified_host, check.http.scheme
        described.raw_body, described.size = check.http.body, len(check.http.body)
        for name, value in check.http.headers:
            header = described.header_map.headers.add()
            header.key, header.raw_value = name, value.encode()
    return request.SerializeToString()


def search(snapshot: Snapshot, limit: int = 10, **changes: Any) -> CheckInput:
    described = {"host": TICKETS, "path": "/mcp?key=app-marker", "body": tool_call("search", {"limit": limit}), "headers": (CONTENT, *MINE)}
    return outbound(snapshot, http(**described | changes))


def model(snapshot: Snapshot) -> CheckInput:
    return outbound(snapshot, http(host=OPENAI, path="/v1/chat/completions", body=chat("gpt-4o-mini"), headers=(CONTENT, *MINE)))


def ask_researcher(snapshot: Snapshot) -> CheckInput:
    return outbound(snapshot, http(host=RESEARCHER, body=message()))


def arrived(sent: CheckInput, headers: dict[str, str]) -> CheckInput:
    """The same request at the receiving gate, with what the sending gate added."""
    assert sent.http is not None
    received = replace(sent.http, headers=(*sent.http.headers, *headers.items()))
    return replace(sent, destination=SocketAddress(ip="127.0.0.1", port=4000), http=received)


def set_headers(answer: pb.CheckResponse) -> dict[str, str]:
    return {option.header.key: option.header.value for option in answer.ok_response.headers}


def metadata(answer: pb.CheckResponse) -> dict[str, str]:
    return {name: value.string_value for name, value in answer.dynamic_metadata.fields.items()}


def test_an_allowed_tool_call_is_told_where_to_dial_and_what_to_take_off(snapshot: Snapshot) -> None:
    gate = Gate(snapshot)
    answer = gate.ask(search(snapshot))
    [record] = gate.recorded
    assert (answer.status.code, record.verdict, record.reason) == (0, "Allow", "Permitted")
    assert metadata(answer) == {"dial": "127.0.0.1:9100", "decision": record.id}
    assert list(answer.ok_response.headers_to_remove) == ["authorization", "cookie", "x-hopgate-token"]
    assert set_headers(answer) == {}
    assert (record.dial, record.path, record.credential, record.minted_token_id) == ("127.0.0.1:9100", "/mcp", "", "")
    assert (record.caller, record.policies) == ("demo/planner", ("demo/planner/search",))
    assert (record.time, record.latency_us) == (NOW * 1_000_000, 1)


def test_an_allowed_model_call_is_given_the_providers_key_in_place_of_its_own(snapshot: Snapshot) -> None:
    gate = Gate(snapshot)
    answer = gate.ask(model(snapshot))
    assert set_headers(answer) == {"authorization": "Bearer sk-marker-secret"}
    assert list(answer.ok_response.headers_to_remove) == ["cookie", "x-hopgate-token"]
    assert gate.recorded[0].credential == "demo/openai:apiKey"


def test_a_connection_that_is_not_http_is_answered_without_headers(snapshot: Snapshot) -> None:
    gate = Gate(snapshot)
    allowed = gate.ask(requests.connection(snapshot, to=VAULT, sni=VAULT))
    denied = gate.ask(requests.connection(snapshot, to=VAULT, sni="other.example"))
    assert metadata(allowed)["dial"] == "127.0.0.1:9443"
    assert (denied.status.code, denied.HasField("denied_response"), "dial" in metadata(denied)) == (7, False, False)
    assert [record.reason for record in gate.recorded] == ["Permitted", "SniMismatch"]


class TestHopToken:
    """A token that one gate mints is taken by the receiving gate, once."""

    def test_is_taken_exactly_once(self, snapshot: Snapshot) -> None:
        sender = Gate(snapshot)
        receiver = Gate(snapshot, ring=sender.ring)
        sent = ask_researcher(snapshot)
        added = set_headers(sender.ask(sent))
        assert list(added) == ["x-hopgate-token"]
        first, second = (receiver.ask(arrived(sent, added), agent="demo/researcher", direction="inbound") for _ in range(2))
        assert (first.status.code, second.status.code) == (0, 7)
        assert [record.reason for record in receiver.recorded] == ["Permitted", "HopTokenReplayed"]
        minted, received = sender.recorded[0], receiver.recorded[0]
        assert minted.minted_token_id == received.presented_token_id != ""
        assert minted.transaction == received.transaction != ""
        assert (received.direction, received.caller, received.destination) == ("Inbound", "demo/planner", "Agent:demo/researcher")
        assert list(first.ok_response.headers_to_remove) == ["x-hopgate-token"]
        assert receiver.checker.replay_counters() == {"replay.seen": 1, "replay.full": 0, "replay.expired": 0}

    def test_is_taken_through_the_life_of_its_key_and_not_after_its_own(self, snapshot: Snapshot) -> None:
        sender = Gate(snapshot)
        sent = ask_researcher(snapshot)
        for later, reason in ((TOKEN_LIFE_SECONDS, "Permitted"), (3 * TOKEN_LIFE_SECONDS, "HopTokenInvalid")):
            receiver = Gate(snapshot, ring=sender.ring, now=NOW + later)
            receiver.ask(arrived(sent, set_headers(sender.ask(sent))), agent="demo/researcher", direction="inbound")
            assert receiver.recorded[0].reason == reason

    def test_of_another_gates_keys_is_not_taken(self, snapshot: Snapshot) -> None:
        sent = ask_researcher(snapshot)
        receiver = Gate(snapshot)
        receiver.ask(arrived(sent, set_headers(Gate(snapshot).ask(sent))), agent="demo/researcher", direction="inbound")
        assert receiver.recorded[0].reason == "HopTokenInvalid"

    def test_is_not_used_up_by_a_request_that_is_denied(self, snapshot: Snapshot) -> None:
        sender = Gate(snapshot)
        receiver = Gate(snapshot, ring=sender.ring)
        sent = ask_researcher(snapshot)
        token = arrived(sent, set_headers(sender.ask(sent)))
        receiver.ask(replace(token, http=replace(token.http, path="/other")), agent="demo/researcher", direction="inbound")  # type: ignore[type-var]  # it is an HTTP request
        receiver.ask(token, agent="demo/researcher", direction="inbound")
        assert [record.reason for record in receiver.recorded] == ["HopTokenInvalid", "Permitted"]


# What stands in the way → (how the gate is asked, the reason). Each is the allowed search or model call but for one fact.
Case = Callable[[Gate, Snapshot], pb.CheckResponse]


def _without_secrets(gate: Gate, snapshot: Snapshot) -> pb.CheckResponse:
    gate.snapshot = replace(snapshot, secrets={})
    return gate.ask(model(snapshot))


def _inside(gate: Gate, snapshot: Snapshot) -> pb.CheckResponse:
    gate.inside_error = RuntimeError("something broke")
    return gate.ask(search(snapshot))


def _replayed(gate: Gate, snapshot: Snapshot) -> pb.CheckResponse:
    sent = ask_researcher(snapshot)
    arriving = arrived(sent, set_headers(gate.ask(sent)))
    gate.ask(arriving, agent="demo/researcher", direction="inbound")
    return gate.ask(arriving, agent="demo/researcher", direction="inbound")


EXITS: dict[str, tuple[Case, Reason]] = {
    "nothing": (lambda gate, snapshot: gate.ask(search(snapshot)), Reason.PERMITTED),
    "nothing, and nobody's deadline": (lambda gate, snapshot: gate.ask(search(snapshot), seconds_left=lambda: None), Reason.PERMITTED),
    "bytes that are no check": (lambda gate, snapshot: gate.ask(b"\xff\xff\xffapp-marker"), Reason.MALFORMED_REQUEST),
    "no bytes": (lambda gate, snapshot: gate.ask(b""), Reason.MALFORMED_REQUEST),
    "an unknown direction": (lambda gate, snapshot: gate.ask(search(snapshot), direction="sideways"), Reason.MALFORMED_REQUEST),
    "no direction": (lambda gate, snapshot: gate.ask(search(snapshot), direction=None), Reason.MALFORMED_REQUEST),
    "no workload credential": (lambda gate, snapshot: gate.ask(search(snapshot), agent=None), Reason.UNKNOWN_CALLER),
    "an unknown workload credential": (lambda gate, snapshot: gate.ask(search(snapshot), agent="demo/ghost"), Reason.UNKNOWN_CALLER),
    "no policy": (lambda gate, snapshot: gate.ask(search(snapshot, limit=101)), Reason.NO_PERMIT),
    "another agent's credential": (lambda gate, snapshot: gate.ask(search(snapshot), agent="other/outsider"), Reason.NO_PERMIT),
    "an outbound request as an inbound one": (
        lambda gate, snapshot: gate.ask(ask_researcher(snapshot), agent="demo/researcher", direction="inbound"),
        Reason.HOP_TOKEN_MISSING,
    ),
    "a hop token that was used": (_replayed, Reason.HOP_TOKEN_REPLAYED),
    "a secret that is not there": (_without_secrets, Reason.CREDENTIAL_UNAVAILABLE),
    "the caller's deadline": (lambda gate, snapshot: gate.ask(search(snapshot), seconds_left=lambda: 0.0), Reason.DEADLINE_EXCEEDED),
    "a deadline long past": (lambda gate, snapshot: gate.ask(model(snapshot), seconds_left=lambda: -1.0), Reason.DEADLINE_EXCEEDED),
    "an error inside": (_inside, Reason.INTERNAL_ERROR),
}


@pytest.mark.parametrize(("case", "reason"), EXITS.values(), ids=EXITS)
def test_every_exit_writes_one_record_and_answers(snapshot: Snapshot, case: Case, reason: Reason, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    gate = Gate(snapshot)
    answer = case(gate, snapshot)
    record, counters = gate.recorded[-1], gate.checker.counters
    assert record.reason == reason.value, record.message
    assert len(gate.recorded) == counters.checks == counters.allowed + counters.denied
    assert counters.allowed_on_failure == 0
    assert metadata(answer)["decision"] == record.id
    allowed = reason is Reason.PERMITTED
    assert (answer.status.code, record.verdict) == ((0, "Allow") if allowed else (7, "Deny"))
    assert ("dial" in metadata(answer), answer.HasField("ok_response")) == (allowed, allowed)
    if not allowed:
        assert (record.minted_token_id, record.credential) == ("", "")
        assert record.id in answer.denied_response.body or not answer.HasField("denied_response")
    seen = caplog.text + str(gate.recorded) + records.render(record).decode() + ("" if allowed else str(answer))
    assert [marker for marker in MARKERS if marker in seen] == []


@pytest.mark.parametrize("check", [search, model, ask_researcher], ids=["a tool call", "a model call", "a call of an agent"])
@pytest.mark.parametrize("error", [SpoolError("the disk is full"), RuntimeError("something else")], ids=["a full disk", "anything else"])
def test_what_can_t_be_recorded_does_not_pass(
    snapshot: Snapshot, check: Callable[[Snapshot], CheckInput], error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(snapshot, sink_error=error)
    answer = gate.ask(check(snapshot))
    assert (answer.status.code, answer.HasField("ok_response"), "dial" in metadata(answer)) == (7, False, False)
    assert "RecordFailed" in answer.denied_response.body
    assert metadata(answer)["decision"] in caplog.text
    assert gate.checker.counters.reasons == {"RecordFailed": 1}
    assert (gate.checker.counters.allowed, gate.checker.counters.allowed_on_failure) == (0, 0)
    assert [marker for marker in MARKERS if marker in str(answer) + caplog.text] == []
    gate.sink_error = None
    assert gate.ask(check(snapshot)).status.code == 0


def test_a_denial_that_can_t_be_recorded_is_a_denial_still(snapshot: Snapshot) -> None:
    gate = Gate(snapshot, sink_error=SpoolError("the disk is full"))
    assert gate.ask(b"\xff").status.code == gate.ask(search(snapshot, limit=101)).status.code == 7
    assert gate.checker.counters.denied == 2


def test_the_record_is_written_before_the_answer_leaves(snapshot: Snapshot) -> None:
    """An answer that allows while its record fails would be seen here: the sink fails on each second record."""
    gate = Gate(snapshot)
    outcomes = []
    for number in range(6):
        gate.sink_error = SpoolError("the disk is full") if number % 2 else None
        outcomes.append((gate.ask(search(snapshot)).status.code, len(gate.recorded)))
    assert outcomes == [(0, 1), (7, 1), (0, 2), (7, 2), (0, 3), (7, 3)]


def test_a_denial_repeats_nothing_of_the_request_but_its_id(snapshot: Snapshot) -> None:
    gate = Gate(snapshot)
    answer = gate.ask(search(snapshot, body=tool_call("search", {"limit": 101, "text": "app-marker"}, identifier="my-id")))
    body = json.loads(answer.denied_response.body)
    assert (body["id"], body["error"]["data"]["reason"]) == ("my-id", "NoPermit")
    assert "app-marker" not in answer.denied_response.body
    assert answer.denied_response.status.code == 403


def test_who_was_decided_for_is_kept_for_a_while(snapshot: Snapshot) -> None:
    gate = Gate(snapshot)
    gate.ask(search(snapshot), agent=None)
    assert gate.checker.counters.last_seen == {}
    gate.ask(search(snapshot))
    gate.now += 60
    gate.ask(search(snapshot), agent="demo/researcher")
    planner, researcher = names.parse("demo/planner"), names.parse("demo/researcher")
    began, later = NOW * 1_000_000_000, (NOW + 60) * 1_000_000_000
    assert gate.checker.counters.seen_since(began) == {planner: began, researcher: later}
    assert gate.checker.counters.seen_since(began + 1) == {researcher: later}
    assert gate.checker.counters.last_seen == {researcher: later}
