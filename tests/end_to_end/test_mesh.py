"""A plain Envoy with what `hopgate envoy config` prints: the caller is the peer that Envoy verified, and nothing that the caller wrote."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.end_to_end import mesh_envoy
from tests.end_to_end.gates import HOPGATE, Gate, environment, wait
from tests.end_to_end.mesh_authority import Authority
from tests.end_to_end.mesh_envoy import OwnEnvoy
from tests.end_to_end.upstreams import Upstream

pytestmark = [pytest.mark.root, pytest.mark.envoy]

HOST = "tools.example.org"
KEY_OF_THE_UPSTREAM = "made-up-key-of-the-upstream"
PLANNER = "spiffe://example.org/ns/demo/sa/planner"
MANIFESTS = """
apiVersion: hopgate.dev/v1alpha1
kind: Agent
metadata: {name: planner, namespace: demo}
---
apiVersion: hopgate.dev/v1alpha1
kind: ToolServer
metadata: {name: tools, namespace: demo}
spec:
  protocol: MCP
  hosts: [tools.example.org]
  tls: Disabled
  address: 127.0.0.1:1
  credential: {secretRef: {name: tools, key: apiKey}, header: x-api-key}
---
apiVersion: hopgate.dev/v1alpha1
kind: ToolServer
metadata: {name: others, namespace: demo}
spec:
  protocol: MCP
  hosts: [others.example.org]
  tls: Disabled
  address: 127.0.0.1:2
---
apiVersion: v1
kind: Secret
metadata: {name: tools, namespace: demo}
stringData: {apiKey: made-up-key-of-the-upstream}
---
apiVersion: hopgate.dev/v1alpha1
kind: Policy
metadata: {name: planner, namespace: demo}
spec:
  cedar: |
    @id("search")
    permit (principal == Hopgate::Agent::"demo/planner", action == Hopgate::Action::"CallTool", resource)
    when { resource == Hopgate::Tool::"demo/tools/search" || resource == Hopgate::Tool::"demo/others/search" };
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """A gate, an Envoy that asks it, and an upstream behind that Envoy."""

    gate: Gate
    envoy: OwnEnvoy
    upstream: Upstream

    def call(self, who: str, tool: str = "search", *, host: str = HOST, path: str = "/mcp", **headers: str) -> tuple[int, dict[str, Any]]:
        """The status and the JSON that `who` gets for one tool call."""
        return self.envoy.call(who, tool, host=host, path=path, **headers)

    def reason(self) -> tuple[str, str, str]:
        """Direction, caller and reason of the last decision."""
        record = max(self.gate.records(), key=lambda record: record["time"])
        return record["direction"], record["caller"], record["reason"]


def start(folder: Path, stack: ExitStack, *options: str) -> Mesh:
    authority = Authority(folder)
    authority.issue("envoy", x509.DNSName(HOST))
    names: dict[str, x509.GeneralName] = {
        "planner": x509.UniformResourceIdentifier(PLANNER),
        "stranger": x509.UniformResourceIdentifier(PLANNER.replace("planner", "stranger")),
        "elsewhere": x509.UniformResourceIdentifier(PLANNER.replace("example.org", "example.net")),
        "nameless": x509.DNSName("planner.demo.svc"),
    }
    people = {who: authority.issue(who, name) for who, name in names.items()}
    upstream = Upstream()
    stack.callback(upstream.close)
    gate = Gate(folder, {"all.yaml": MANIFESTS}, "--mesh-trust-domain", "example.org")
    stack.callback(gate.stop)
    gate.start()
    printed = mesh_envoy.print_config("--data", str(gate.data), *options)
    return Mesh(gate=gate, envoy=mesh_envoy.run(folder, upstream.port, printed, people, stack), upstream=upstream)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """An Envoy whose requests say by their Host where they lead."""
    with ExitStack() as stack:
        yield start(tmp_path_factory.mktemp("mesh"), stack)


def test_a_permitted_call_of_a_peer_reaches_the_upstream_with_its_key_and_without_the_callers(mesh: Mesh) -> None:
    status, answer = mesh.call("planner", authorization="Bearer mine", x_hopgate_token="forged", x_api_key="mine")
    assert (status, answer["result"]) == (200, {"upstream": True})
    received = mesh.upstream.received[-1]
    assert received.values("x-api-key") == [KEY_OF_THE_UPSTREAM]
    assert received.values("authorization") == received.values("x-hopgate-token") == []
    assert mesh.reason() == ("Mesh", "demo/planner", "Permitted")


@pytest.mark.parametrize(
    ("who", "how", "reason"),
    [
        ("stranger", {}, "UnknownCaller"),
        ("elsewhere", {}, "UnknownCaller"),
        ("nameless", {}, "UnknownCaller"),
        ("planner", {"tool": "delete"}, "NoPermit"),
        ("planner", {"path": "/admin"}, "PathMismatch"),
        ("planner", {"host": "evil.example.org"}, "UnknownDestination"),
    ],
    ids=["an account of no agent", "another trust domain", "no SPIFFE ID", "a tool not permitted", "another path", "another host"],
)
def test_what_differs_in_one_fact_is_denied_and_never_arrives(mesh: Mesh, who: str, how: dict[str, str], reason: str) -> None:
    arrived = len(mesh.upstream.received)
    forged = {"x_forwarded_client_cert": f"URI={PLANNER}", "x_hopgate_direction": "outbound", "authorization": "Bearer x"}
    assert mesh.call(who, **how, **forged)[0] == 403
    assert mesh.reason()[2] == reason
    assert len(mesh.upstream.received) == arrived
    assert mesh.call("planner")[0] == 200


def test_an_envoy_before_one_destination_takes_no_other(tmp_path: Path) -> None:
    with ExitStack() as stack:
        pinned = start(tmp_path / "pinned", stack, "--destination", "ToolServer:demo/tools")
        assert pinned.call("planner")[0] == 200
        assert pinned.call("planner", host="others.example.org")[0] == 403
        assert pinned.reason() == ("Mesh", "demo/planner", "HostMismatch")


def test_a_quarantined_peer_is_refused_until_it_is_released(tmp_path: Path) -> None:
    with ExitStack() as stack:
        mesh = start(tmp_path / "mesh", stack)
        path = mesh.gate.resources / "all.yaml"
        assert mesh.call("planner")[0] == 200
        path.write_text(
            MANIFESTS.replace("name: planner, namespace: demo}\n", "name: planner, namespace: demo}\nspec: {quarantine: true}\n", 1)
        )
        wait(lambda: mesh.call("planner")[0] == 403, "it is refused")
        assert mesh.reason() == ("Mesh", "demo/planner", "Quarantined")
        arrived = len(mesh.upstream.received)
        assert mesh.call("planner")[0] == 403
        assert len(mesh.upstream.received) == arrived
        path.write_text(MANIFESTS)
        wait(lambda: mesh.call("planner")[0] == 200, "it is free again")


def test_without_a_gate_nothing_passes_and_with_another_credential_nobody(tmp_path: Path) -> None:
    with ExitStack() as stack:
        mesh = start(tmp_path / "mesh", stack)
        assert mesh.call("planner")[0] == 200
        mesh.gate.stop()
        assert mesh.call("planner")[0] == 503
        (mesh.gate.data / "mesh-credential").write_text("another-credential-of-more-than-32-characters")
        mesh.gate.start()
        assert mesh.call("planner")[0] == 403
        assert mesh.reason()[2] == "UnknownCaller"
        assert len(mesh.upstream.received) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--mesh-trust-domain", "Example.org/x"), "trust domain"), (("--mesh-trust-domain",), "requires an argument")],
    ids=["another form", "none"],
)
def test_a_trust_domain_that_is_none_is_refused(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    command = (HOPGATE, "up", "--resources", str(tmp_path), "--data", str(tmp_path / "data"), *options)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 2
    assert said in done.stderr
