"""A mesh's Envoy as gate: its peer is the caller, from a trusted domain and from an Envoy that is known itself."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from authz import mesh as meshes
from authz.check import Checker, Sources
from authz.mesh import EVERYWHERE, Mesh, Reach
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
ENVOY: Final = "spiffe://example.org/ns/demo/sa/tickets"
CLUSTER: Final = Mesh(trust_domains=frozenset({"example.org"}), envoys={ENVOY: Reach(namespaces=frozenset({"demo"}))})
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
    assert meshes.identify(MESH, principal, AGENTS) == agent


NOBODY: Final = {
    "no client certificate": ("", "PeerUnknown"),
    "a name that is no SPIFFE ID": ("planner.demo.svc", "PeerUnknown"),
    "a subject": ("CN=planner", "PeerUnknown"),
    "a SPIFFE ID of another form": ("spiffe://example.org/demo/planner", "PeerUnknown"),
    "more behind it": (PLANNER + "/x", "PeerUnknown"),
    "two names": (f"{PLANNER},{PLANNER}", "PeerUnknown"),
    "a line end behind it": (PLANNER + "\n", "AgentUnknown"),
    "another trust domain": (PLANNER.replace("example.org", "example.net"), "TrustDomainUnknown"),
    "a trust domain in capitals": (PLANNER.replace("example", "EXAMPLE"), "PeerUnknown"),
    "a trust domain that ends as ours": (PLANNER.replace("example.org", "evil-example.org"), "TrustDomainUnknown"),
    "an account of no agent": (PLANNER.replace("planner", "stranger"), "AgentUnknown"),
    "an account of another namespace's agent": ("spiffe://example.org/ns/other/sa/authors", "AgentUnknown"),
    "an agent's name that is not its account": (PLANNER.replace("planner", "writer"), "AgentUnknown"),
}


@pytest.mark.parametrize(("principal", "code"), NOBODY.values(), ids=NOBODY)
def test_any_other_peer_is_nobody(principal: str, code: str) -> None:
    found = meshes.identify(MESH, principal, AGENTS)
    assert isinstance(found, Refusal)
    assert found.code == code
    assert meshes.identify(MESH, PLANNER, AGENTS) == ObjectName("demo", "planner")


STRANGERS: Final = {
    "no credential": (MESH, None, None, "MeshCredentialUnknown"),
    "another credential": (MESH, CREDENTIAL + "x", None, "MeshCredentialUnknown"),
    "a credential that is no text": (MESH, "\udcff", None, "MeshCredentialUnknown"),
    "no mesh is trusted": (Mesh(), CREDENTIAL, None, "MeshCredentialUnknown"),
    "no mesh, and an empty credential": (Mesh(trust_domains=frozenset({"example.org"})), "", None, "MeshCredentialUnknown"),
    "a credential where certificates count": (MESH, CREDENTIAL, "", "MeshEnvoyNameless"),
    "a credential and a certificate of a stranger": (MESH, CREDENTIAL, PLANNER, "MeshEnvoyUnknown"),
    "a certificate that names nobody": (CLUSTER, None, "", "MeshEnvoyNameless"),
    "another service account": (CLUSTER, None, ENVOY + "s", "MeshEnvoyUnknown"),
    "another trust domain": (CLUSTER, None, ENVOY.replace("example.org", "example.net"), "MeshEnvoyUnknown"),
    "more behind it": (CLUSTER, None, ENVOY + "/x", "MeshEnvoyUnknown"),
    "no certificate where certificates count": (CLUSTER, None, None, "MeshCredentialUnknown"),
}


@pytest.mark.parametrize(("mesh", "credential", "envoy", "code"), STRANGERS.values(), ids=STRANGERS)
def test_an_envoy_that_is_not_known_is_not_admitted(mesh: Mesh, credential: str | None, envoy: str | None, code: str) -> None:
    found = meshes.admit(mesh, credential, envoy)
    assert isinstance(found, Refusal)
    assert found.code == code
    assert meshes.admit(MESH, CREDENTIAL, None) == EVERYWHERE
    assert meshes.admit(CLUSTER, None, ENVOY) == Reach(namespaces=frozenset({"demo"}))


@pytest.mark.parametrize(
    ("text", "identity", "namespaces"),
    [
        (ENVOY, ENVOY, {"demo"}),
        (f"{ENVOY}=other", ENVOY, {"other"}),
        (f"{ENVOY}=demo,other", ENVOY, {"demo", "other"}),
        (f"{ENVOY}=*", ENVOY, None),
        ("spiffe://example.org/gateway=demo", "spiffe://example.org/gateway", {"demo"}),
    ],
)
def test_an_envoy_is_named_with_what_it_stands_before(text: str, identity: str, namespaces: set[str] | None) -> None:
    expected = None if namespaces is None else frozenset(namespaces)
    assert meshes.parse_envoy(text) == (identity, Reach(namespaces=expected))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "demo/tickets",
        "spiffe://example.org",
        "spiffe://example.org/",
        "spiffe://Example.org/ns/demo/sa/tickets",
        "spiffe://example.org/gateway",
        f"{ENVOY}/=demo",
        f"{ENVOY}=",
        f"{ENVOY}=demo,",
        f"{ENVOY}=demo,*",
        f"{ENVOY}=Demo",
        f"{ENVOY}=demo other",
        f"{ENVOY}=demo=other",
        f"{ENVOY}\n",
        f"{ENVOY}*",
    ],
)
def test_an_envoy_that_is_not_named_rightly_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        meshes.parse_envoy(text)


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

    def ask(
        self, check: CheckInput, *, credential: str = CREDENTIAL, direction: str = "mesh", envoy: str | None = None
    ) -> pb.CheckResponse:
        request = pb.CheckRequest.FromString(encoded(check))
        request.attributes.source.principal = check.principal
        if check.destination_name:
            request.attributes.context_extensions["hopgate-destination"] = check.destination_name
        call = Call(authorization=f"Bearer {credential}", direction=direction, seconds_left=lambda: None, envoy=envoy)
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
    "a WebSocket": (_http(headers=(("connection", "upgrade"), ("upgrade", "websocket"))), "ProtocolMismatch"),
    "a tunnel": (_http(method="CONNECT"), "ProtocolMismatch"),
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


def test_an_envoy_is_answered_about_its_own_namespaces_alone(snapshot: Snapshot) -> None:
    def gate(*namespaces: str) -> Gate:
        return Gate(snapshot, replace(CLUSTER, envoys={ENVOY: Reach(namespaces=frozenset(namespaces))}))

    assert gate("demo").judge(call(), envoy=ENVOY) == (0, "Permitted")
    assert gate("other", "demo").judge(call(), envoy=ENVOY) == (0, "Permitted")
    elsewhere = gate("other")
    assert elsewhere.judge(call(), envoy=ENVOY) == (7, "DestinationOutOfReach")
    assert elsewhere.judge(replace(call(), destination_name="ToolServer:demo/tickets"), envoy=ENVOY) == (7, "DestinationOutOfReach")
    assert elsewhere.records[-1].destination == "ToolServer:demo/tickets"
    assert gate().judge(call(), envoy=ENVOY) == (7, "DestinationOutOfReach")


def test_an_envoy_that_is_not_named_gets_no_credential(snapshot: Snapshot) -> None:
    gate = Gate(snapshot, CLUSTER)
    model = call("api.openai.com", path="/v1/chat/completions", body=chat("gpt-4o-mini"))
    for stranger in (ENVOY + "s", "", PLANNER):
        answer = gate.ask(model, envoy=stranger)
        assert (answer.status.code, gate.records[-1].reason) == (7, "UnknownCaller")
        assert not answer.ok_response.headers
    assert [option.header.key for option in gate.ask(model, envoy=ENVOY).ok_response.headers] == ["authorization"]
