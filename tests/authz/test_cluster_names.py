"""Services are dialled at what the cluster's DNS says of them, while that is fresh; nothing that a manifest may not name is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from authz import cluster_names, upstream_names
from hopgate.identity.names import ObjectName
from hopgate.manifests import snapshots
from hopgate.resources.kinds import DialAddress
from hopgate.resources.registry import Registry
from hopgate.snapshot import ResolvedHost, Upstreams

MANIFESTS = """
apiVersion: hopgate.dev/v1alpha1
kind: Agent
metadata: {name: researcher, namespace: demo}
spec: {service: {name: researcher, port: 8080}}
---
apiVersion: hopgate.dev/v1alpha1
kind: ToolServer
metadata: {name: tickets, namespace: demo}
spec: {protocol: MCP, service: {name: tickets, port: 9000}}
---
apiVersion: hopgate.dev/v1alpha1
kind: ToolServer
metadata: {name: fixed, namespace: demo}
spec: {protocol: MCP, service: {name: fixed, port: 9000}, address: 10.0.0.9}
---
apiVersion: hopgate.dev/v1alpha1
kind: ToolServer
metadata: {name: weather, namespace: demo}
spec: {protocol: HTTP, hosts: [weather.example.com]}
"""
NOW = 1_800_000_000
RESEARCHER, TICKETS = "researcher.demo.svc.cluster.local", "tickets.demo.svc.cluster.local"
RESOLVED = ResolvedHost(addresses=("10.96.0.7", "10.96.0.8"), resolved_at=NOW - 300)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "all.yaml").write_text(MANIFESTS)
    return snapshots.load(tmp_path, previous=None, now=int(time.time())).registry


def test_services_without_a_fixed_address_are_looked_up_inside_and_hosts_outside(registry: Registry) -> None:
    assert cluster_names.services(registry) == {RESEARCHER, TICKETS}
    assert upstream_names.outside_hosts(registry) == {"weather.example.com"}


def test_a_service_is_asked_for_in_the_clusters_own_domain() -> None:
    assert cluster_names.asked(TICKETS, "cluster.local") == "tickets.demo.svc.cluster.local."
    assert cluster_names.asked(TICKETS, "example.net") == "tickets.demo.svc.example.net."


def test_an_agent_is_dialled_at_its_service_and_a_tool_server_under_both_names(registry: Registry) -> None:
    outside = {"weather.example.com": ResolvedHost(addresses=("1.1.1.1",), resolved_at=NOW)}
    assert cluster_names.upstreams(registry, outside, {RESEARCHER: RESOLVED, TICKETS: RESOLVED}, NOW) == Upstreams(
        hosts={**outside, "tickets.demo.svc": RESOLVED, TICKETS: RESOLVED},
        gates={ObjectName("demo", "researcher"): DialAddress(ip="10.96.0.7", port=8080)},
    )


def test_an_agent_whose_service_was_not_resolved_for_long_is_not_dialled(registry: Registry) -> None:
    assert cluster_names.upstreams(registry, {}, {RESEARCHER: RESOLVED}, NOW).gates
    assert not cluster_names.upstreams(registry, {}, {RESEARCHER: RESOLVED}, NOW + 1).gates
    assert not cluster_names.upstreams(registry, {}, {}, NOW).gates


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "198.18.0.5", "::ffff:10.0.0.1", "fd00:ec2::254", "none"],  # noqa: S104
)
def test_a_service_that_points_where_no_manifest_may_is_not_dialled(address: str) -> None:
    assert upstream_names.inside([address, "10.96.0.7", "fd00::7", "10.96.0.7"]) == ("10.96.0.7", "fd00::7")
