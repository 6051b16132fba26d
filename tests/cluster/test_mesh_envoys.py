"""An Envoy of a mesh before a destination asks a cluster's authz: who may ask, about whom, and about which destinations.

A plain Envoy with what `hopgate envoy config --address` prints, authz as its own process, resources from a real API server.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from authz import server as authz_server
from authz.pb import ext_authz_pb2 as pb
from tests.authz.certificates import HOST as AUTHZ_NAME
from tests.authz.test_check import encoded
from tests.authz.test_mesh import call as check_of
from tests.cluster import mesh_pages
from tests.cluster.api_server import eventually, free_ports
from tests.cluster.installation import DEADLINE_SECONDS, Authz, Installation
from tests.cluster.test_identity_process import is_allowed, reason
from tests.end_to_end import mesh_envoy
from tests.end_to_end.mesh_authority import Authority
from tests.end_to_end.mesh_envoy import OwnEnvoy
from tests.end_to_end.upstreams import Upstream

pytestmark = pytest.mark.envoy

KEY_OF_THE_UPSTREAM = "made-up-key-of-the-upstream"


def identity(namespace: str, account: str, domain: str = "example.org") -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(f"spiffe://{domain}/ns/{namespace}/sa/{account}")


def tenant_resources(namespace: str, host: str) -> list[dict[str, Any]]:
    """An agent, a tool server with a key, and who may use it."""
    cedar = f'''
    @id("search")
    permit (principal == Hopgate::Agent::"{namespace}/planner", action == Hopgate::Action::"CallTool",
            resource == Hopgate::Tool::"{namespace}/tickets/search");
    '''
    server = {
        "protocol": "MCP",
        "hosts": [host],
        "tls": "Disabled",
        "address": "127.0.0.1:1",
        "credential": {"secretRef": {"name": "tickets", "key": "apiKey"}, "header": "x-api-key"},
    }

    def made(version: str, kind: str, name: str, **content: Any) -> dict[str, Any]:
        return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, **content}

    ours = "hopgate.dev/v1alpha1"
    return [
        made("v1", "ServiceAccount", "planner"),
        made("v1", "Secret", "tickets", stringData={"apiKey": KEY_OF_THE_UPSTREAM}),
        made(ours, "Agent", "planner", spec={}),
        made(ours, "ToolServer", "tickets", spec=server),
        made(ours, "Policy", "planner", spec={"cedar": cedar}),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A mesh whose CA authz believes, a namespace with a tool server, and an authz that one Envoy of that namespace may ask."""

    namespace: str
    host: str
    authz: Authz
    authz_port: int
    authz_authority: bytes
    folder: Path
    authority: Authority
    bundle: Path
    upstream: Upstream
    people: dict[str, tuple[str, str]]
    stack: ExitStack

    def printed(self, pair: tuple[str, str], *more: str) -> dict[str, Any]:
        """What `hopgate envoy config` prints for an Envoy that has this certificate and key; `more` are options."""
        options = {
            "address": f"127.0.0.1:{self.authz_port}",
            "server-name": AUTHZ_NAME,
            "authorities": str(self.folder / "authz.pem"),
            "certificate": pair[0],
            "key": pair[1],
        }
        return mesh_envoy.print_config(*(f"--{name}={value}" for name, value in options.items()), *more)

    def run(self, printed: dict[str, Any]) -> OwnEnvoy:
        """An Envoy before the tool server."""
        return mesh_envoy.run(self.folder, self.upstream.port, printed, self.people, self.stack)

    def envoy(self, *names: x509.GeneralName, authority: Authority | None = None) -> OwnEnvoy:
        """An Envoy whose own certificate has these names."""
        pair = (authority or self.authority).issue(f"asking-{len(list(self.folder.glob('asking-*.pem')))}", *names)
        return self.run(self.printed(pair))

    def last(self) -> tuple[str, str, str, str]:
        """Direction, caller, reason and message of the last decision."""
        record = max(self.authz.decisions(), key=lambda record: int(record["time"]))
        return record["direction"], record["caller"], record["reason"], record["message"]


@pytest.fixture(scope="module")
def world(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("mesh")
    authority = Authority(folder)
    authority.issue("envoy", x509.DNSName("tickets.example"))
    bundle = folder / "bundle.pem"
    bundle.write_bytes(authority.bundle.read_bytes())
    (folder / "authz.pem").write_bytes(installation.mounted.authority.certificate_pem)
    namespace, elsewhere = installation.server.namespace(), installation.server.namespace()
    host = f"{namespace}.example.com"
    manifests = {"apiVersion": "v1", "kind": "List", "items": tenant_resources(namespace, host)}
    installation.server.kubectl("apply", "-f", "-", stdin=json.dumps(manifests))
    [port] = free_ports(1)
    settings = {
        "mesh-listen": f"127.0.0.1:{port}",
        "mesh-authorities": bundle,
        "mesh-trust-domain": "example.org",
    }
    envoys = [f"--mesh-envoy={identity(namespace, 'tickets').value}", f"--mesh-envoy={identity(elsewhere, 'gateway').value}"]
    envoys.append(f"--mesh-envoy={identity(elsewhere, 'wide').value}={namespace},{elsewhere}")
    more = [*(f"--{name}={value}" for name, value in settings.items()), *envoys]
    people = {
        "planner": authority.issue("planner", identity(namespace, "planner")),
        "stranger": authority.issue("stranger", identity(namespace, "stranger")),
        "elsewhere": authority.issue("elsewhere", identity(namespace, "planner", "example.net")),
        "nameless": authority.issue("nameless", x509.DNSName("planner.demo.svc")),
    }
    with ExitStack() as stack:
        upstream = Upstream()
        stack.callback(upstream.close)
        authz = Authz(installation.server, folder, installation.mounted, "authz-mesh", more)
        stack.callback(authz.close)
        authz.start()
        yield World(
            namespace=namespace,
            host=host,
            authz=authz,
            authz_port=port,
            authz_authority=installation.mounted.authority.certificate_pem,
            folder=folder,
            authority=authority,
            bundle=bundle,
            upstream=upstream,
            people=people,
            stack=stack,
        )
        assert authz.process is not None
        authz.process.terminate()
        assert authz.process.wait(DEADLINE_SECONDS) == 0


@pytest.fixture(scope="module")
def tickets(world: World) -> OwnEnvoy:
    """The Envoy that stands before the tool server, named by its identity."""
    return world.envoy(identity(world.namespace, "tickets"))


def test_a_permitted_call_of_a_peer_reaches_the_upstream_with_its_key(world: World, tickets: OwnEnvoy) -> None:
    status, answer = tickets.call("planner", host=world.host, authorization="Bearer mine", x_hopgate_token="forged", x_api_key="mine")
    assert (status, answer["result"]) == (200, {"upstream": True})
    received = world.upstream.received[-1]
    assert received.values("x-api-key") == [KEY_OF_THE_UPSTREAM]
    assert received.values("authorization") == received.values("x-hopgate-token") == []
    assert world.last()[:3] == ("Mesh", f"{world.namespace}/planner", "Permitted")


@pytest.mark.parametrize(
    ("who", "how", "reason", "code"),
    [
        ("stranger", {}, "UnknownCaller", "AgentUnknown"),
        ("elsewhere", {}, "UnknownCaller", "TrustDomainUnknown"),
        ("nameless", {}, "UnknownCaller", "PeerUnknown"),
        ("planner", {"tool": "delete"}, "NoPermit", ""),
        ("planner", {"path": "/admin"}, "PathMismatch", ""),
    ],
    ids=["an account of no agent", "another trust domain", "no SPIFFE ID", "a tool not permitted", "another path"],
)
def test_what_differs_in_one_fact_is_denied_and_never_arrives(
    world: World, tickets: OwnEnvoy, who: str, how: dict[str, str], reason: str, code: str
) -> None:
    arrived = len(world.upstream.received)
    principal = identity(world.namespace, "planner").value
    forged = {"x_forwarded_client_cert": f"URI={principal}", "x_hopgate_direction": "outbound", "authorization": "Bearer x"}
    assert tickets.call(who, host=world.host, **how, **forged)[0] == 403
    assert world.last()[2] == reason
    assert code in world.last()[3]
    assert len(world.upstream.received) == arrived
    assert tickets.call("planner", host=world.host, **forged)[0] == 200


STRANGERS = {
    "a workload of the mesh that is not named": ("account", "UnknownCaller", "MeshEnvoyUnknown"),
    "the agent's own certificate": ("agent", "UnknownCaller", "MeshEnvoyUnknown"),
    "the named one of another trust domain": ("domain", "UnknownCaller", "MeshEnvoyUnknown"),
    "two identities": ("two", "UnknownCaller", "MeshEnvoyNameless"),
    "no identity": ("none", "UnknownCaller", "MeshEnvoyNameless"),
    "named, of another namespace": ("elsewhere", "DestinationOutOfReach", "stands before no destination"),
}


@pytest.mark.parametrize(("which", "reason", "said"), STRANGERS.values(), ids=STRANGERS)
def test_an_envoy_that_does_not_stand_before_the_destination_gets_no_key(
    world: World, tickets: OwnEnvoy, which: str, reason: str, said: str
) -> None:
    own, others = identity(world.namespace, "tickets"), [name for name in _named(world) if world.namespace not in name]
    names: dict[str, tuple[x509.GeneralName, ...]] = {
        "account": (identity(world.namespace, "others"),),
        "agent": (identity(world.namespace, "planner"),),
        "domain": (identity(world.namespace, "tickets", "example.net"),),
        "two": (own, identity(world.namespace, "others")),
        "none": (x509.DNSName("tickets.example"),),
        "elsewhere": (x509.UniformResourceIdentifier(others[0]),),
    }
    arrived = len(world.upstream.received)
    envoy = world.envoy(*names[which])
    assert envoy.call("planner", host=world.host)[0] == 403
    assert world.last()[2] == reason
    assert said in world.last()[3]
    assert len(world.upstream.received) == arrived
    assert tickets.call("planner", host=world.host)[0] == 200


def _named(world: World) -> list[str]:
    """The identities that this authz was told without namespaces."""
    return [
        argument.partition("=")[2]
        for argument in world.authz.arguments
        if argument.startswith("--mesh-envoy=") and argument.count("=") == 1
    ]


def test_an_envoy_that_is_named_for_several_namespaces_stands_before_them(world: World) -> None:
    [other] = [name for name in _named(world) if world.namespace not in name]
    wide = world.envoy(x509.UniformResourceIdentifier(other.replace("gateway", "wide")))
    assert wide.call("planner", host=world.host)[0] == 200
    assert world.last()[2] == "Permitted"


def test_an_envoy_without_a_certificate_is_not_heard(world: World, tickets: OwnEnvoy) -> None:
    printed = copy.deepcopy(world.printed(world.people["planner"]))
    del printed["clusters"][0]["transport_socket"]["typed_config"]["common_tls_context"]["tls_certificates"]
    decided = len(world.authz.decisions())
    assert world.run(printed).call("planner", host=world.host)[0] == 503
    assert len(world.authz.decisions()) == decided
    assert tickets.call("planner", host=world.host)[0] == 200


def test_what_an_envoy_writes_beside_a_check_counts_nothing(world: World) -> None:
    """Neither Istio nor Envoy Gateway can write there what our configuration does; whoever can gains nothing by it."""
    pair = world.authority.issue("forging", identity(world.namespace, "tickets"))
    forged = copy.deepcopy(world.printed(pair))
    metadata = [{"key": "x-hopgate-direction", "value": "outbound"}, {"key": "authorization", "value": "Bearer forged"}]
    forged["http_filters"][-1]["typed_config"]["grpc_service"]["initial_metadata"] = metadata
    none = copy.deepcopy(forged)
    none["http_filters"][-1]["typed_config"]["grpc_service"]["initial_metadata"] = []
    for printed in (forged, none):
        envoy = world.run(printed)
        assert envoy.call("planner", host=world.host)[0] == 200
        assert world.last()[:3] == ("Mesh", f"{world.namespace}/planner", "Permitted")
        assert envoy.call("stranger", host=world.host)[0] == 403
        assert "AgentUnknown" in world.last()[3]


def test_the_listener_of_sidecars_answers_no_mesh(world: World) -> None:
    check = check_of(world.host)
    request = pb.CheckRequest.FromString(encoded(check))
    request.attributes.source.principal = identity(world.namespace, "planner").value
    refused = world.authz.ask(request.SerializeToString(), "any", direction="mesh")
    assert not is_allowed(refused)
    assert "MeshCredentialUnknown" in reason(refused)
    certificate, key = world.authority.issue("direct", identity(world.namespace, "tickets"))
    credentials = grpc.ssl_channel_credentials(world.authz_authority, Path(key).read_bytes(), Path(certificate).read_bytes())
    options = (("grpc.ssl_target_name_override", AUTHZ_NAME),)
    with grpc.secure_channel(f"127.0.0.1:{world.authz_port}", credentials, options=options) as channel:
        answer = channel.unary_unary(authz_server.METHOD)(request.SerializeToString(), timeout=30)
    assert is_allowed(pb.CheckResponse.FromString(answer))


def test_the_authorities_of_the_mesh_change_while_it_runs(world: World, tickets: OwnEnvoy) -> None:
    before = world.bundle.read_bytes()
    successor = Authority(world.folder / "successor")
    new = world.envoy(identity(world.namespace, "tickets"), authority=successor)
    assert new.call("planner", host=world.host)[0] == 503
    try:
        world.bundle.write_bytes(before + successor.bundle.read_bytes())
        eventually(lambda: new.call("planner", host=world.host)[0] == 200, "the successor is believed")
        assert tickets.call("planner", host=world.host)[0] == 200
        world.bundle.write_bytes(successor.bundle.read_bytes())
        eventually(lambda: tickets.call("planner", host=world.host)[0] == 503, "the one before is believed no longer")
        assert new.call("planner", host=world.host)[0] == 200
    finally:
        world.bundle.write_bytes(before)
    eventually(lambda: tickets.call("planner", host=world.host)[0] == 200, "it is believed again")


def of_world(world: World, part: Any) -> Any:
    """A part of a page in which the tool server and authz are those of this test."""
    text = json.dumps(part).replace("ToolServer:demo/", f"ToolServer:{world.namespace}/")
    address = f'"address": "127.0.0.1", "port_value": {world.authz_port}'
    text = text.replace('"address": "hopgate-authz.hopgate.svc.cluster.local", "port_value": 8444', address)
    return json.loads(text.replace("hopgate-authz.hopgate.svc", AUTHZ_NAME))


def by_files(world: World, transport: dict[str, Any], pair: tuple[str, str]) -> None:
    """Give Envoy the secrets that Istio's agent would, by the same names, from files."""
    kind = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    common = transport["typed_config"]["common_tls_context"]
    [own] = common["tls_certificate_sds_secret_configs"]
    authorities = common["combined_validation_context"]["validation_context_sds_secret_config"]
    certificate = {"certificate_chain": {"filename": pair[0]}, "private_key": {"filename": pair[1]}}
    contents = (
        (own, {"tls_certificate": certificate}),
        (authorities, {"validation_context": {"trusted_ca": {"filename": str(world.folder / "authz.pem")}}}),
    )
    for number, (asked, content) in enumerate(contents):
        assert asked["sds_config"]["api_config_source"]["grpc_services"] == [{"envoy_grpc": {"cluster_name": "sds-grpc"}}]
        file = world.folder / f"secret-{Path(pair[0]).stem}-{number}.json"
        file.write_text(json.dumps({"resources": [{"@type": kind, "name": asked["name"], **content}]}))
        asked["sds_config"] = {"resource_api_version": "V3", "path_config_source": {"path": str(file)}}


def test_the_page_on_istio_says_what_the_command_prints(world: World) -> None:
    parts = of_world(world, mesh_pages.sidecar_parts())
    printed = world.printed(world.people["planner"], "--destination", f"ToolServer:{world.namespace}/tickets")
    own = parts["clusters"][0]["transport_socket"]["typed_config"]["common_tls_context"]
    ours = printed["clusters"][0]["transport_socket"]["typed_config"]["common_tls_context"]
    own.pop("tls_certificate_sds_secret_configs")
    ours.pop("tls_certificates")
    names = ours.pop("validation_context")["match_typed_subject_alt_names"]
    assert own.pop("combined_validation_context")["default_validation_context"] == {"match_typed_subject_alt_names": names}
    del printed["network_filters"]
    assert parts == printed


def guard(policy: dict[str, Any]) -> dict[str, Any]:
    """What Istio 1.31 makes of the page's AuthorizationPolicy, in its own filter behind what is inserted first.

    Istio still writes `metadata`, the older name of the same.
    """
    assert policy["spec"]["action"] == "DENY"
    [rule] = policy["spec"]["rules"]
    [condition] = rule["when"]
    assert condition["notValues"] == ["*"]
    name, key = condition["key"].removeprefix("experimental.").rstrip("]").split("[")
    decided = {"filter": name, "path": [{"key": key}], "value": {"string_match": {"safe_regex": {"regex": ".+"}}}}
    permission = {"and_rules": {"rules": [{"not_rule": {"sourced_metadata": {"metadata_matcher": decided}}}]}}
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {"action": "DENY", "policies": {"asked": {"permissions": [permission], "principals": [{"any": True}]}}},
        },
    }


def test_a_sidecar_as_the_page_on_istio_has_it(world: World) -> None:
    parts = of_world(world, mesh_pages.sidecar_parts())
    pair = world.authority.issue("sidecar", identity(world.namespace, "tickets"))
    by_files(world, parts["clusters"][0]["transport_socket"], pair)
    parts["http_filters"].append(guard(mesh_pages.manifest("istio.md", "AuthorizationPolicy")))
    sidecar = world.run(parts)
    assert sidecar.call("planner", host=world.host)[0] == 200
    assert world.last()[:3] == ("Mesh", f"{world.namespace}/planner", "Permitted")
    assert sidecar.call("stranger", host=world.host)[0] == 403
    assert sidecar.call("planner", host="others.example.com")[0] == 403
    assert world.last()[2] == "HostMismatch"

    arrived = len(world.upstream.received)
    unasked = copy.deepcopy(parts)
    unasked["http_filters"] = [each for each in parts["http_filters"] if each["name"] != "envoy.filters.http.ext_authz"]
    unasked["route"] = {}
    decided = len(world.authz.decisions())
    assert world.run(unasked).call("planner", host=world.host)[0] == 403
    assert (len(world.authz.decisions()), len(world.upstream.received)) == (decided, arrived)


def gateway_parts(world: World, patches: list[dict[str, Any]]) -> dict[str, Any]:
    """What Envoy Gateway 1.9 makes of the page's SecurityPolicy, and of these patches; its TLS to authz names no protocol."""
    asked = mesh_pages.manifest("envoy-gateway.md", "SecurityPolicy")["spec"]["extAuth"]
    [extension] = asked["contextExtensions"]
    pair = world.authority.issue(f"gateway-{len(patches)}", identity(world.namespace, "tickets"))
    printed = world.printed(pair, "--destination", of_world(world, extension["value"]))
    checks = printed["route"]["typed_per_filter_config"]["envoy.filters.http.ext_authz"]["check_settings"]
    assert checks["context_extensions"] == {extension["name"]: of_world(world, extension["value"])}
    del printed["clusters"][0]["transport_socket"]["typed_config"]["common_tls_context"]["alpn_protocols"]
    settings = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "hopgate_authz"}, "timeout": asked["timeout"]},
        "status_on_error": {"code": asked["statusOnError"]},
        "with_request_body": {"max_request_bytes": asked["bodyToExtAuth"]["maxRequestBytes"]},
    }
    settings |= {patch["operation"]["path"]: patch["operation"]["value"] for patch in patches}
    return {**printed, "http_filters": [{"name": "envoy.filters.http.ext_authz", "typed_config": settings}]}


def test_a_gateway_as_the_page_on_envoy_gateway_has_it(world: World) -> None:
    patches = mesh_pages.manifest("envoy-gateway.md", "EnvoyPatchPolicy")["spec"]["jsonPatches"]
    assert {patch["operation"]["op"] for patch in patches} == {"add"}
    gateway = world.run(gateway_parts(world, patches))
    assert gateway.call("planner", host=world.host)[0] == 200
    assert gateway.call("stranger", host=world.host)[0] == 403
    needed = [patch for patch in patches if patch["operation"]["path"] in {"encode_raw_headers", "with_request_body"}]
    for patch in needed:
        arrived = len(world.upstream.received)
        lacking = world.run(gateway_parts(world, [each for each in patches if each is not patch]))
        assert lacking.call("planner", host=world.host)[0] == 403
        assert world.last()[2] == "MalformedRequest"
        assert len(world.upstream.received) == arrived
