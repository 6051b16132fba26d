"""The bootstrap of a pod: the same template, taken by envoy-data-plane and by Envoy in every variant."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hopgate.kubernetes.sidecar import Plan, PlannedProbe, ProbeKind
from hopgate.local import envoy_process
from hopgate.proxy import bootstrap, pod_bootstrap
from hopgate.proxy.bootstrap import BootstrapError
from hopgate.proxy.pod_bootstrap import PodFiles, PodNetwork
from hopgate.resources.private_authorities import PrivateAuthority

PLAN = Plan(
    agent="demo/planner",
    proxy_uid=1337,
    authz_addresses=("10.96.0.20", "fd00::20"),
    authz_name="hopgate-authz.hopgate-system.svc",
    authz_port=9443,
    resolver_port=5353,
    max_heap_bytes=100 << 20,
)
HTTP = PlannedProbe(
    name="app/readinessProbe",
    kind=ProbeKind.HTTP,
    port=8080,
    action={"path": "healthz?full=1", "port": "http", "httpHeaders": [{"name": "X-Odd", "value": "%FILE_CONTENT(/etc/passwd)% 100%"}]},
    period_seconds=10,
    timeout_seconds=1,
)
HTTPS = replace(
    HTTP,
    name="app/livenessProbe",
    action={"path": "/", "scheme": "HTTPS", "httpHeaders": [{"name": "Host", "value": "app.example.com"}]},
)
TCP = PlannedProbe(name="app/startupProbe", kind=ProbeKind.TCP, port=5432, action={"port": 5432}, period_seconds=1, timeout_seconds=1)
GRPC = PlannedProbe(
    name="other/readinessProbe",
    kind=ProbeKind.GRPC,
    port=9000,
    action={"port": 9000, "service": "ready"},
    period_seconds=5,
    timeout_seconds=2,
)
DUAL = PodNetwork(addresses=("10.244.0.7", "fd00:244::7"), ipv6=True)
VARIANTS = {
    "IPv4 alone": (PLAN, PodNetwork(addresses=("10.244.0.7",), ipv6=False)),
    "dual stack": (PLAN, DUAL),
    "IPv6 alone": (PLAN, PodNetwork(addresses=("fd00:244::7",), ipv6=True)),
    "with probes of each kind": (replace(PLAN, probes=(HTTP, HTTPS, TCP, GRPC)), DUAL),
}


@pytest.fixture
def files(tmp_path: Path) -> PodFiles:
    """A pod's files, as the capture program leaves them and as the kubelet mounts them."""
    made = PodFiles(
        configuration=tmp_path,
        admin_socket=tmp_path / "admin.sock",
        token=tmp_path / "tokens" / "token",
        authorities=tmp_path / "authorities",
    )
    made.token.parent.mkdir()
    made.token.write_text("token")
    made.authorities.mkdir()
    (made.authorities / "authz.pem").write_bytes(made.system_roots.read_bytes())
    made.token_secret.write_bytes(pod_bootstrap.token_secret(made))
    made.authorities_secret.write_bytes(pod_bootstrap.authorities_secret(made))
    return made


def built(files: PodFiles, plan: Plan = PLAN, network: PodNetwork = DUAL) -> Any:
    return json.loads(pod_bootstrap.build(plan, network, files))


def every(tree: Any, key: str) -> list[Any]:
    """Every value under `key`, wherever it is."""
    if isinstance(tree, dict):
        return [value for name, value in tree.items() if name == key] + [found for value in tree.values() for found in every(value, key)]
    return [found for item in tree for found in every(item, key)] if isinstance(tree, list) else []


@pytest.mark.envoy
@pytest.mark.parametrize(("plan", "network"), VARIANTS.values(), ids=VARIANTS)
def test_envoy_takes_every_variant_without_a_warning(plan: Plan, network: PodNetwork, files: PodFiles) -> None:
    files.bootstrap.write_bytes(pod_bootstrap.build(plan, network, files))
    command = (
        envoy_process.find(),
        "--mode",
        "validate",
        "--disable-hot-restart",
        "--log-level",
        "warning",
        "--config-path",
        files.bootstrap,
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # The one other way to name the cluster of a UDP proxy is deprecated.
    warnings = [line for line in done.stderr.splitlines() if "[warning]" in line and "'envoy.extensions.filters.udp.udp_proxy" not in line]
    assert (done.returncode, warnings) == (0, []), done.stderr


@pytest.mark.parametrize(("plan", "network"), VARIANTS.values(), ids=VARIANTS)
def test_envoy_data_plane_knows_every_field(plan: Plan, network: PodNetwork, files: PodFiles) -> None:
    bootstrap.check(pod_bootstrap.build(plan, network, files))


def test_the_token_is_not_in_it_and_nothing_else_is_said_of_who_asks(files: PodFiles) -> None:
    tree = built(files)
    assert {key["key"] for keys in every(tree, "initial_metadata") for key in keys} == {"x-hopgate-direction"}
    assert "token" not in every(tree, "inline_string")
    assert [cluster["name"] for cluster in tree["static_resources"]["clusters"] if every(cluster, "header_value_prefix")] == [
        "authz",
        "certificates",
    ]


def test_only_the_inbound_gate_and_the_probes_are_open_to_others(files: PodFiles) -> None:
    open_to_others = {
        listener["name"]
        for listener in built(files)["static_resources"]["listeners"]
        if listener["address"]["socket_address"]["address"] not in ("127.0.0.1", "::1")
    }
    assert open_to_others == {"inbound", "health"}


def test_a_check_that_fails_is_never_an_allow(files: PodFiles) -> None:
    checks = [part for part in every(built(files), "typed_config") if part["@type"].endswith(".ext_authz.v3.ExtAuthz")]
    assert {part["failure_mode_allow"] for part in checks} == {False}
    assert len(checks) == 9


def test_a_probe_is_asked_as_the_kubelet_asks(files: PodFiles) -> None:
    tree = built(files, replace(PLAN, probes=(HTTP, HTTPS, TCP, GRPC)))
    asked = {cluster["name"]: cluster["health_checks"][0] for cluster in tree["static_resources"]["clusters"] if "health_checks" in cluster}
    assert asked["probe/app/readinessProbe"]["http_health_check"] == {
        "host": "10.244.0.7:8080",
        "path": "/healthz?full=1",
        "request_headers_to_add": [
            {
                "header": {"key": "X-Odd", "value": "%%FILE_CONTENT(/etc/passwd)%% 100%%"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
        "expected_statuses": [{"start": 200, "end": 400}],
    }
    assert asked["probe/app/livenessProbe"]["http_health_check"]["host"] == "app.example.com"
    assert asked["probe/app/startupProbe"]["tcp_health_check"] == {}
    assert asked["probe/other/readinessProbe"]["grpc_health_check"] == {"service_name": "ready"}


@pytest.mark.parametrize(
    ("own", "reachable"),
    [(("10.244.0.7",), ["10.96.0.20"]), (("fd00:244::7",), ["fd00::20"]), (("10.244.0.7", "fd00:244::7"), ["10.96.0.20", "fd00::20"])],
    ids=["IPv4", "IPv6", "both"],
)
def test_authz_is_asked_in_a_family_that_the_pod_has(files: PodFiles, own: tuple[str, ...], reachable: list[str]) -> None:
    tree = built(files, network=PodNetwork(addresses=own, ipv6=True))
    (authz,) = [cluster for cluster in tree["static_resources"]["clusters"] if cluster["name"] == "authz"]
    assert [address["address"] for address in every(authz, "socket_address")] == reachable


def test_private_authorities_are_those_of_one_machine(files: PodFiles) -> None:
    private = PrivateAuthority(addresses=("198.18.0.8",), pem="-----BEGIN CERTIFICATE-----")
    chains = [chain["name"] for chain in _outbound(pod_bootstrap.build(PLAN, DUAL, files, (private,)))]
    assert {name for name in chains if name.startswith("private")} == {"private_0_tls", "private_0_http"}
    assert not any(chain["name"].startswith("private") for chain in _outbound(pod_bootstrap.build(PLAN, DUAL, files)))


def _outbound(text: bytes) -> list[dict[str, Any]]:
    [listener] = [found for found in json.loads(text)["static_resources"]["listeners"] if found["name"] == "outbound"]
    chains: list[dict[str, Any]] = listener["filter_chains"]
    return chains


def test_without_an_address_of_authz_there_is_no_bootstrap(files: PodFiles) -> None:
    with pytest.raises(BootstrapError, match="an address of authz of the pod's family") as caught:
        built(files, replace(PLAN, authz_addresses=("fd00::20",)), PodNetwork(addresses=("10.244.0.7",), ipv6=True))
    assert caught.value.remedy
    built(files, replace(PLAN, authz_addresses=("10.96.0.20",)), PodNetwork(addresses=("10.244.0.7",), ipv6=True))
