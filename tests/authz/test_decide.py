"""Every exit of the decision: one reason each, and beside each denial a request that differs in one fact and is allowed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from authz.caller import VerificationKeys
from authz.decide import Hop, decide
from authz.request import CheckInput, Direction
from authz.verdict import Reason, Verdict
from authz.workloads import Refusal
from hopgate.identity.names import DestinationKind, DestinationName, ObjectName, User
from hopgate.manifests import snapshots
from hopgate.resources.kinds import DialAddress
from hopgate.snapshot import ResolvedHost, Snapshot, Upstreams
from tests.authz import requests
from tests.authz.requests import chat, http, message, outbound, tool_call
from tokenmint import hop_token
from tokenmint.hop_token import RequestBinding
from tokenmint.keys import KeyRing

NOW = 1_800_000_000
PLANNER = ObjectName("demo", "planner")
RESEARCHER = ObjectName("demo", "researcher")
TICKETS, OPENAI, WEATHER, VAULT = "tickets.demo.svc:9000", "api.openai.com", "weather.example.com", "vault.example.com"
RESEARCHER_HOST = "researcher.demo.svc:8080"
SEARCH = tool_call("search", {"limit": 10})


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    loaded = snapshots.load(Path(__file__).parent.parent / "world", previous=None, now=NOW)
    return replace(
        loaded,
        upstreams=Upstreams(
            hosts={WEATHER: ResolvedHost(addresses=("203.0.113.9",), resolved_at=NOW - 10)},
            gates={RESEARCHER: DialAddress(ip="127.0.0.1", port=4000)},
        ),
    )


def judge(snapshot: Snapshot, check: CheckInput, agent: ObjectName | Refusal = PLANNER, keys: VerificationKeys | None = None) -> Verdict:
    return decide(Hop(check=check, workload=agent), snapshot, keys or VerificationKeys(), NOW)


def tickets(**changes: Any) -> dict[str, Any]:
    return {"host": TICKETS, "path": "/mcp", "body": SEARCH} | changes


ALLOWED = {
    "a tool call within its limit": tickets(),
    "a message to an agent": {"host": RESEARCHER_HOST, "body": message()},
    "the listed model": {"host": OPENAI, "path": "/v1/chat/completions", "body": chat("gpt-4o-mini")},
    "a plain GET": {"host": WEATHER, "path": "/today", "method": "GET", "headers": ()},
    "the housekeeping of a server at which something is permitted": tickets(body={"jsonrpc": "2.0", "id": 1, "method": "ping"}),
    "the other name of a service": tickets(host="tickets.demo.svc.cluster.local:9000"),
    "a host in capitals": tickets(host="TICKETS.demo.svc:9000"),
}


@pytest.mark.parametrize("request_", ALLOWED.values(), ids=ALLOWED)
def test_allows(snapshot: Snapshot, request_: dict[str, Any]) -> None:
    described = http(**request_)
    verdict = judge(snapshot, outbound(snapshot, described, to=described.unverified_host.lower().partition(":")[0]))
    assert verdict.reason is Reason.PERMITTED, verdict.message
    assert verdict.policies


CONTENT = ("content-type", "application/json")
DENIED: dict[str, tuple[dict[str, Any], Reason]] = {
    "arguments beyond the limit": (tickets(body=tool_call("search", {"limit": 101})), Reason.NO_PERMIT),
    "a tool that nobody permitted": (tickets(body=tool_call("delete", {})), Reason.NO_PERMIT),
    "a tool that is not declared": (tickets(body=tool_call("drop", {})), Reason.UNKNOWN_TOOL),
    "arguments of the wrong type": (tickets(body=tool_call("search", {"limit": "10"})), Reason.INVALID_ARGUMENTS),
    "a missing required argument": (tickets(body=tool_call("search", {})), Reason.INVALID_ARGUMENTS),
    "a batch": (tickets(body=[SEARCH]), Reason.BATCH_REFUSED),
    "an unknown method": (tickets(body={**SEARCH, "method": "tools/destroy"}), Reason.UNKNOWN_OPERATION),
    "a body that is no JSON": (tickets(body=b"{"), Reason.BODY_MALFORMED),
    "a repeated key": (tickets(body=b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}'), Reason.BODY_MALFORMED),
    "a body that was cut": (tickets(body_complete=False), Reason.BODY_INCOMPLETE),
    "a compressed body": (tickets(headers=(CONTENT, ("content-encoding", "gzip"))), Reason.BODY_ENCODED),
    "a repeated header that decides": (tickets(headers=(CONTENT, CONTENT)), Reason.REPEATED_HEADER),
    "a header that says another tool": (
        tickets(headers=(CONTENT, ("mcp-method", "tools/call"), ("mcp-name", "delete"))),
        Reason.HEADER_BODY_MISMATCH,
    ),
    "another host": (tickets(host="api.openai.com"), Reason.HOST_MISMATCH),
    "two hosts": (tickets(host="tickets.demo.svc,api.openai.com"), Reason.HOST_MISMATCH),
    "user information before the host": (tickets(host="tickets.demo.svc@evil.example"), Reason.HOST_MISMATCH),
    "another port in the host": (tickets(host="tickets.demo.svc:9001"), Reason.HOST_MISMATCH),
    "a model that is listed but not permitted": (
        {"host": OPENAI, "path": "/v1/chat/completions", "body": chat("gpt-4o")},
        Reason.NO_PERMIT,
    ),
    "a model that is not listed": ({"host": OPENAI, "path": "/v1/chat/completions", "body": chat("gpt-5")}, Reason.UNKNOWN_MODEL),
    "a forbidden path": ({"host": WEATHER, "path": "/secret", "method": "GET", "headers": ()}, Reason.FORBIDDEN),
    "a forbidden path behind a query": ({"host": WEATHER, "path": "/secret?a=/today", "method": "GET", "headers": ()}, Reason.FORBIDDEN),
    "a method that is not permitted": ({"host": WEATHER, "path": "/today", "method": "DELETE", "headers": ()}, Reason.NO_PERMIT),
}


@pytest.mark.parametrize(("request_", "reason"), DENIED.values(), ids=DENIED)
def test_denies(snapshot: Snapshot, request_: dict[str, Any], reason: Reason) -> None:
    described = http(**request_)
    to = {"/mcp": "tickets.demo.svc"}.get(described.path, described.unverified_host.partition(":")[0])
    verdict = judge(snapshot, outbound(snapshot, described, to=to))
    assert (verdict.reason, verdict.allowed) == (reason, False), verdict.message


@pytest.mark.parametrize(("quarantined", "reason"), [(True, Reason.QUARANTINED), (False, Reason.PERMITTED)], ids=["cut off", "free"])
def test_denies_what_a_quarantined_agent_asks(snapshot: Snapshot, quarantined: bool, reason: Reason) -> None:
    agents = {**snapshot.registry.agents, PLANNER: replace(snapshot.registry.agents[PLANNER], quarantine=quarantined)}
    changed = replace(snapshot, registry=replace(snapshot.registry, agents=agents))
    verdict = judge(changed, outbound(changed, http(**tickets())))
    assert (verdict.reason, verdict.caller) == (reason, PLANNER), verdict.message


def test_denies_a_caller_without_a_valid_credential(snapshot: Snapshot) -> None:
    verdict = judge(snapshot, outbound(snapshot, http(**tickets())), agent=Refusal(code="TokenExpired", message="the token is over"))
    assert (verdict.reason, verdict.message) == (Reason.UNKNOWN_CALLER, "the token is over (TokenExpired)")


def test_denies_a_caller_that_is_not_registered(snapshot: Snapshot) -> None:
    assert judge(snapshot, outbound(snapshot, http(**tickets())), agent=ObjectName("demo", "ghost")).reason is Reason.UNKNOWN_CALLER


def test_denies_a_caller_of_another_namespace(snapshot: Snapshot) -> None:
    assert judge(snapshot, outbound(snapshot, http(**tickets())), agent=ObjectName("other", "outsider")).reason is Reason.NO_PERMIT


@pytest.mark.parametrize("ip", ["203.0.113.7", "2001:db8::7", "169.254.169.254", "127.0.0.1", "198.18.99.99"])
def test_denies_an_address_without_a_record(snapshot: Snapshot, ip: str) -> None:
    check = outbound(snapshot, http(**tickets()))
    assert judge(snapshot, replace(check, destination=replace(check.destination, ip=ip))).reason is Reason.UNKNOWN_DESTINATION


def test_denies_another_port_of_a_registered_address(snapshot: Snapshot) -> None:
    assert judge(snapshot, outbound(snapshot, http(**tickets()), port=22)).reason is Reason.PORT_MISMATCH


@pytest.mark.parametrize("sni", ["evil.example", "", "tickets.demo.svc"])
def test_denies_tls_for_another_name(snapshot: Snapshot, sni: str) -> None:
    request = http(host=OPENAI, path="/v1/chat/completions", body=chat("gpt-4o-mini"))
    assert judge(snapshot, outbound(snapshot, request, sni=sni)).reason is Reason.SNI_MISMATCH
    assert judge(snapshot, outbound(snapshot, request, sni=OPENAI)).allowed


def test_a_sealed_destination_takes_tls_with_its_name_only(snapshot: Snapshot) -> None:
    assert judge(snapshot, requests.connection(snapshot, to=VAULT, sni=VAULT)).allowed
    assert judge(snapshot, requests.connection(snapshot, to=VAULT, sni="other.example")).reason is Reason.SNI_MISMATCH
    assert judge(snapshot, requests.connection(snapshot, to=VAULT, sni="")).reason is Reason.SNI_MISMATCH
    assert judge(snapshot, requests.connection(snapshot, to=VAULT, sni=None)).reason is Reason.PROTOCOL_MISMATCH
    assert judge(snapshot, outbound(snapshot, http(host=VAULT, method="GET"))).reason is Reason.PROTOCOL_MISMATCH


def test_a_destination_that_speaks_http_takes_no_other_connection(snapshot: Snapshot) -> None:
    assert judge(snapshot, requests.connection(snapshot, to="tickets.demo.svc", sni=None)).reason is Reason.PROTOCOL_MISMATCH


def test_a_name_that_is_not_resolved_or_too_long_ago_is_not_dialled(snapshot: Snapshot) -> None:
    check = outbound(snapshot, http(host=WEATHER, path="/today", method="GET", headers=()))
    assert judge(snapshot, check).dial == DialAddress(ip="203.0.113.9", port=443)
    for hosts in ({}, {WEATHER: ResolvedHost(addresses=("203.0.113.9",), resolved_at=NOW - 301)}):
        assert judge(replace(snapshot, upstreams=Upstreams(hosts=hosts)), check).reason is Reason.DESTINATION_UNRESOLVED


def test_an_agent_that_does_not_run_is_not_dialled(snapshot: Snapshot) -> None:
    check = outbound(snapshot, http(host=RESEARCHER_HOST, body=message()))
    assert judge(snapshot, check).dial == DialAddress(ip="127.0.0.1", port=4000)
    assert judge(replace(snapshot, upstreams=Upstreams()), check).reason is Reason.DESTINATION_NOT_RUNNING


def test_an_observe_policy_is_recorded_and_changes_nothing(snapshot: Snapshot) -> None:
    verdict = judge(snapshot, outbound(snapshot, http(host=RESEARCHER_HOST, body=message())))
    assert verdict.allowed
    assert verdict.observed is not None
    assert (verdict.observed.allowed, verdict.observed.policies) == (False, ("demo/observed/no-messages",))


def test_the_callers_own_credentials_and_reserved_headers_are_taken_off(snapshot: Snapshot) -> None:
    mine = (("authorization", "Bearer mine"), ("cookie", "a=b"), ("x-api-key", "k"), ("x-hopgate-token", "t"), ("x-envoy-force-trace", "1"))
    verdict = judge(snapshot, outbound(snapshot, http(**tickets(headers=(CONTENT, *mine)))))
    assert set(verdict.remove_headers) == {name for name, _ in mine}
    model = http(host=OPENAI, path="/v1/chat/completions", body=chat("gpt-4o-mini"), headers=(CONTENT, *mine))
    written = {"authorization"}  # by the gate itself, which overwrites it
    assert set(judge(snapshot, outbound(snapshot, model)).remove_headers) == {name for name, _ in mine} - written


class TestInbound:
    """The receiving side believes the hop token, and only for this receiver and this request."""

    request = http(host=RESEARCHER_HOST, body=message())
    ring = KeyRing.create(NOW)
    keys = VerificationKeys(hop=ring.public_keys(NOW))

    def token(self, *, audience: ObjectName = RESEARCHER, caller: ObjectName = PLANNER, user: User | None = None, now: int = NOW) -> str:
        claims = hop_token.next_claims(
            issuer="hopgate",
            caller=caller,
            chain=(),
            user=user,
            audience=DestinationName(DestinationKind.AGENT, audience),
            token_id="j1",
            transaction="t1",
            now=now,
            binding=RequestBinding.of("POST", RESEARCHER_HOST, "/", self.request.body),
        )
        return hop_token.mint(self.ring.signing_key(NOW), claims).reveal()

    def check(self, snapshot: Snapshot, *tokens: str, **changes: Any) -> CheckInput:
        headers = (CONTENT, *(("x-hopgate-token", token) for token in tokens))
        check = outbound(snapshot, replace(self.request, headers=headers, **changes))
        return replace(check, direction=Direction.INBOUND, destination=replace(check.destination, ip="127.0.0.1", port=4000))

    def judge(self, snapshot: Snapshot, check: CheckInput, agent: ObjectName = RESEARCHER) -> Verdict:
        return judge(snapshot, check, agent=agent, keys=self.keys)

    def test_accepts_a_token_for_itself_and_takes_it_off(self, snapshot: Snapshot) -> None:
        user = User(issuer="https://issuer.example", subject="ada", groups=("support",))
        verdict = self.judge(snapshot, self.check(snapshot, self.token(user=user)))
        assert verdict.reason is Reason.PERMITTED, verdict.message
        assert (verdict.caller, verdict.user, verdict.transaction) == (PLANNER, user, "t1")
        assert verdict.remove_headers == ("x-hopgate-token",)

    @pytest.mark.parametrize(
        ("who", "reason"),
        [(RESEARCHER, Reason.QUARANTINED), (PLANNER, Reason.QUARANTINED), (ObjectName("other", "outsider"), Reason.PERMITTED)],
        ids=["the one asked", "the one that asks", "somebody else"],
    )
    def test_denies_what_is_asked_of_or_by_a_quarantined_agent(self, snapshot: Snapshot, who: ObjectName, reason: Reason) -> None:
        agents = {**snapshot.registry.agents, who: replace(snapshot.registry.agents[who], quarantine=True)}
        changed = replace(snapshot, registry=replace(snapshot.registry, agents=agents))
        verdict = self.judge(changed, self.check(changed, self.token()))
        assert verdict.reason is reason, verdict.message

    def test_denies_without_a_token(self, snapshot: Snapshot) -> None:
        assert self.judge(snapshot, self.check(snapshot)).reason is Reason.HOP_TOKEN_MISSING

    def test_denies_two_tokens(self, snapshot: Snapshot) -> None:
        assert self.judge(snapshot, self.check(snapshot, self.token(), self.token())).reason is Reason.REPEATED_HEADER

    def test_denies_a_token_for_another_receiver(self, snapshot: Snapshot) -> None:
        assert self.judge(snapshot, self.check(snapshot, self.token(audience=PLANNER))).reason is Reason.HOP_TOKEN_INVALID

    def test_denies_a_token_of_another_request(self, snapshot: Snapshot) -> None:
        for changes in ({"path": "/other"}, {"method": "PUT"}, {"body": self.request.body + b" "}):
            assert self.judge(snapshot, self.check(snapshot, self.token(), **changes)).reason is Reason.HOP_TOKEN_INVALID

    def test_denies_an_expired_token(self, snapshot: Snapshot) -> None:
        assert self.judge(snapshot, self.check(snapshot, self.token(now=NOW - 1000))).reason is Reason.HOP_TOKEN_INVALID

    def test_denies_a_token_of_an_unknown_key(self, snapshot: Snapshot) -> None:
        verdict = judge(snapshot, self.check(snapshot, self.token()), agent=RESEARCHER, keys=VerificationKeys())
        assert verdict.reason is Reason.HOP_TOKEN_INVALID

    def test_denies_a_cut_body_since_the_token_is_bound_to_all_of_it(self, snapshot: Snapshot) -> None:
        assert self.judge(snapshot, self.check(snapshot, self.token(), body_complete=False)).reason is Reason.BODY_INCOMPLETE

    def test_denies_a_caller_whom_no_policy_permits(self, snapshot: Snapshot) -> None:
        verdict = self.judge(snapshot, self.check(snapshot, self.token(caller=ObjectName("other", "outsider"))))
        assert (verdict.reason, verdict.caller) == (Reason.NO_PERMIT, ObjectName("other", "outsider"))

    def test_denies_at_an_agent_that_has_no_service(self, snapshot: Snapshot) -> None:
        assert self.judge(snapshot, self.check(snapshot, self.token()), agent=PLANNER).reason is Reason.UNKNOWN_DESTINATION
