"""A mesh's Envoy as gate: its peer is the caller, from a trusted domain and with the mesh's credential only."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from authz import mesh as meshes
from authz.check import Checker, Sources
from authz.mesh import Mesh
from authz.pb import ext_authz_pb2 as pb
from authz.request import CheckInput, Direction, SocketAddress
from authz.server import Call
from authz.state import State, credential_sha256
from authz.workloads import HeldCredentials, Refusal
from hopgate.audit.records import Decision
from hopgate.identity.names import ObjectName
from hopgate.manifests import snapshots
from hopgate.snapshot import Snapshot
from tests.authz.requests import AGENT_SOCKET, chat, http, tool_call
from tests.authz.test_check import encoded
from tokenmint.keys import KeyRing
from tokenmint.replay import ReplayCache

NOW: Final = 1_800_000_000
CREDENTIAL: Final = "mesh-credential-of-32-characters"
PLANNER: Final = "spiffe://example.org/ns/demo/sa/planner"
MESH: Final = Mesh(credential_sha256=credential_sha256(CREDENTIAL), trust_domains=frozenset({"example.org", "second.example"}))
AGENTS: Final = {
    ("demo", "planner"): ObjectName("demo", "planner"),
    ("demo", "authors"): ObjectName("demo", "writer"),
    ("other", "planner"): ObjectName("other", "planner"),
}


@pytest.mark.parametrize(
    ("principal", "agent"),
    [
        (PLANNER, ObjectName("demo", "planner")),
        ("spiffe://second.example/ns/demo/sa/planner", ObjectName("demo", "planner")),
        ("spiffe://example.org/ns/other/sa/planner", ObjectName("other", "planner")),
        ("spiffe://example.org/ns/demo/sa/authors", ObjectName("demo", "writer")),
    ],
)
def test_a_peer_is_the_agent_of_its_service_account(principal: str, agent: ObjectName) -> None:
    assert meshes.identify(MESH, CREDENTIAL, principal, AGENTS) == agent


REFUSED: Final = {
    "no credential": (MESH, None, PLANNER, "MeshCredentialUnknown"),
    "another credential": (MESH, CREDENTIAL + "x", PLANNER, "MeshCredentialUnknown"),
    "a credential that is no text": (MESH, "\udcff", PLANNER, "MeshCredentialUnknown"),
    "no mesh is trusted": (Mesh(), CREDENTIAL, PLANNER, "MeshCredentialUnknown"),
    "no mesh, and an empty credential": (Mesh(trust_domains=frozenset({"example.org"})), "", PLANNER, "MeshCredentialUnknown"),
    "no client certificate": (MESH, CREDENTIAL, "", "PeerUnknown"),
    "a name that is no SPIFFE ID": (MESH, CREDENTIAL, "planner.demo.svc", "PeerUnknown"),
    "a subject": (MESH, CREDENTIAL, "CN=planner", "PeerUnknown"),
    "a SPIFFE ID of another form": (MESH, CREDENTIAL, "spiffe://example.org/demo/planner", "PeerUnknown"),
    "more behind it": (MESH, CREDENTIAL, PLANNER + "/x", "PeerUnknown"),
    "two names": (MESH, CREDENTIAL, f"{PLANNER},{PLANNER}", "PeerUnknown"),
    "a line end behind it": (MESH, CREDENTIAL, PLANNER + "\n", "AgentUnknown"),
    "another trust domain": (MESH, CREDENTIAL, PLANNER.replace("example.org", "example.net"), "TrustDomainUnknown"),
    "a trust domain in capitals": (MESH, CREDENTIAL, PLANNER.replace("example", "EXAMPLE"), "PeerUnknown"),
    "a trust domain that ends as ours": (MESH, CREDENTIAL, PLANNER.replace("example.org", "evil-example.org"), "TrustDomainUnknown"),
    "an account of no agent": (MESH, CREDENTIAL, PLANNER.replace("planner", "stranger"), "AgentUnknown"),
    "an account of another namespace's agent": (MESH, CREDENTIAL, "spiffe://example.org/ns/other/sa/authors", "AgentUnknown"),
    "an agent's name that is not its account": (MESH, CREDENTIAL, PLANNER.replace("planner", "writer"), "AgentUnknown"),
}


@pytest.mark.parametrize(("mesh", "credential", "principal", "code"), REFUSED.values(), ids=REFUSED)
def test_any_other_is_nobody(mesh: Mesh, credential: str | None, principal: str, code: str) -> None:
    found = meshes.identify(mesh, credential, principal, AGENTS)
    assert isinstance(found, Refusal)
    assert found.code == code
    assert meshes.identify(MESH, CREDENTIAL, PLANNER, AGENTS) == ObjectName("demo", "planner")


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return snapshots.load(Path(__file__).parent.parent / "world", previous=None, now=NOW)


class Gate:
    """A checker that believes a mesh; what it answered is in `records`."""

    def __init__(self, snapshot: Snapshot, mesh: Mesh = MESH) -> None:
        names = itertools.count(1)
        self.records: list[Decision] = []
        sources = Sources(
            snapshot=lambda: snapshot,
            workloads=lambda: HeldCredentials(State(sequence=1)),
            wall_ns=lambda: NOW * 1_000_000_000,
            monotonic_ns=itertools.count().__next__,
            new_id=lambda: f"{next(names):032x}",
            mesh=lambda: mesh,
        )
        self._checker = Checker(sources, KeyRing.create(NOW), ReplayCache(), self.records.append)

    def ask(self, check: CheckInput, *, credential: str = CREDENTIAL, direction: str = "mesh") -> pb.CheckResponse:
        request = pb.CheckRequest.FromString(encoded(check))
        request.attributes.source.principal = check.principal
        if check.destination_name:
            request.attributes.context_extensions["hopgate-destination"] = check.destination_name
        call = Call(authorization=f"Bearer {credential}", direction=direction, seconds_left=lambda: None)
        return pb.CheckResponse.FromString(self._checker.check(request.SerializeToString(), call))

    def judge(self, check: CheckInput, **how: str) -> tuple[int, str]:
        """The answer's code and the record's reason."""
        answer = self.ask(check, **how)
        return answer.status.code, self.records[-1].reason


def call(host: str = "tickets.demo.svc", **changes: Any) -> CheckInput:
    described = {"host": host, "path": "/mcp", "body": tool_call("search", {"limit": 1})} | changes
    headers = (("content-type", "application/json"), ("authorization", "Bearer mine"), ("x-hopgate-token", "forged"))
    return CheckInput(
        request_id="r1",
        direction=Direction.MESH,
        source=AGENT_SOCKET,
        destination=SocketAddress(ip="192.0.2.9", port=8443),
        sni="anything.example",
        http=http(**described, headers=headers),
        principal=PLANNER,
    )


def test_a_permitted_call_of_a_peer_passes_without_an_address_and_without_what_the_caller_presented(snapshot: Snapshot) -> None:
    gate = Gate(snapshot)
    answer = gate.ask(call())
    [record] = gate.records
    assert (answer.status.code, record.direction, record.caller, record.reason) == (0, "Mesh", "demo/planner", "Permitted")
    assert (record.destination, record.resource) == ("ToolServer:demo/tickets", 'Tool::"demo/tickets/search"')
    assert "dial" not in answer.dynamic_metadata.fields
    assert sorted(answer.ok_response.headers_to_remove) == ["authorization", "x-hopgate-token"]
    assert not answer.ok_response.headers


def test_a_model_call_of_a_peer_is_given_the_providers_key(snapshot: Snapshot) -> None:
    gate = Gate(snapshot)
    answer = gate.ask(call("api.openai.com", path="/v1/chat/completions", body=chat("gpt-4o-mini")))
    assert [option.header.key for option in answer.ok_response.headers] == ["authorization"]
    assert gate.records[0].credential == "demo/openai:apiKey"


Change = Callable[[CheckInput], CheckInput]


def _http(**changes: Any) -> Change:
    return lambda check: replace(check, http=None if check.http is None else replace(check.http, **changes))


DENIED: Final[dict[str, tuple[Change, str]]] = {
    "no client certificate": (lambda check: replace(check, principal=""), "UnknownCaller"),
    "another trust domain": (lambda check: replace(check, principal=PLANNER.replace(".org", ".net")), "UnknownCaller"),
    "an account of no agent": (lambda check: replace(check, principal=PLANNER + "s"), "UnknownCaller"),
    "a host that is not registered": (_http(unverified_host="evil.example"), "UnknownDestination"),
    "a port that is not the host's": (_http(unverified_host="tickets.demo.svc:1"), "HostMismatch"),
    "two hosts": (_http(unverified_host="tickets.demo.svc,evil.example"), "UnknownDestination"),
    "a tool that no policy permits": (_http(body=b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete"}}'), "NoPermit"),
    "another path": (_http(path="/admin"), "PathMismatch"),
    "another destination than the Envoy stands before": (
        lambda check: replace(check, destination_name="ToolServer:demo/weather"),
        "HostMismatch",
    ),
    "a destination that is not registered": (lambda check: replace(check, destination_name="ToolServer:demo/none"), "UnknownDestination"),
    "bytes that are no HTTP": (lambda check: replace(check, http=None, sni="tickets.demo.svc"), "ProtocolMismatch"),
}


@pytest.mark.parametrize(("change", "reason"), DENIED.values(), ids=DENIED)
def test_a_call_that_differs_in_one_fact_is_denied(snapshot: Snapshot, change: Change, reason: str) -> None:
    gate = Gate(snapshot)
    assert gate.judge(change(call())) == (7, reason)
    assert gate.judge(call()) == (0, "Permitted")
    assert gate.judge(replace(call(), destination_name="ToolServer:demo/tickets")) == (0, "Permitted")
    assert len(gate.records) == 3


def test_a_direction_can_not_be_borrowed(snapshot: Snapshot) -> None:
    gate = Gate(snapshot)
    assert gate.judge(call(), direction="outbound") == (7, "UnknownCaller")
    assert gate.judge(call(), credential="another") == (7, "UnknownCaller")
    assert Gate(snapshot, Mesh()).judge(call()) == (7, "UnknownCaller")


def test_a_sealed_destination_is_found_by_its_name(snapshot: Snapshot) -> None:
    gate = Gate(snapshot)
    vault = next(host for host, endpoint in snapshot.registry.by_host.items() if endpoint.destination.tls.value == "Sealed")
    sealed = replace(call(), http=None, sni=vault)
    assert gate.judge(sealed) == (0, "Permitted")
    assert gate.judge(replace(sealed, sni="other.example")) == (7, "UnknownDestination")
    assert gate.judge(replace(sealed, sni="other.example", destination_name=gate.records[0].destination)) == (7, "SniMismatch")
