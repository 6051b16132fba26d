"""Every manifest of the pages on Istio and Envoy Gateway is accepted by a real API server that knows their kinds, and fits the chart."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import foreign_definitions, mesh_pages
from tests.cluster.api_server import ApiServer, ClusterError
from tests.cluster.conftest import DEFINITIONS
from tests.cluster.helm import Helm, as_list

NAMESPACES = ("demo", "gateways", "hopgate")


@pytest.fixture(scope="module")
def server(cluster_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(cluster_binaries, tmp_path_factory.mktemp("cluster") / "pages") as running:
        for folder in (DEFINITIONS, foreign_definitions.find()):
            running.install(folder)
        for name in NAMESPACES:
            running.kubectl("create", "namespace", name)
        yield running


def accept(server: ApiServer, manifest: dict[str, Any]) -> None:
    """Raises ClusterError."""
    server.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(manifest))


@pytest.mark.parametrize("page", mesh_pages.PAGES)
def test_the_server_accepts_every_manifest_and_no_field_that_is_not_there(server: ApiServer, page: str) -> None:
    manifests = mesh_pages.manifests(page)
    assert len(manifests) >= 8
    for manifest in manifests:
        accept(server, manifest)
        if "spec" in manifest:
            mistaken = copy.deepcopy(manifest)
            mistaken["spec"]["misspelt"] = True
            with pytest.raises(ClusterError, match="misspelt"):
                accept(server, mistaken)


@pytest.mark.parametrize("page", mesh_pages.PAGES)
def test_the_chart_with_the_pages_values_has_what_the_manifests_name(server: ApiServer, helm: Helm, page: str) -> None:
    made = helm.manifests(mesh_pages.values(page), namespace="hopgate")
    server.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", stdin=as_list(made))
    [service] = [each for each in made if each["kind"] == "Service" and each["metadata"]["name"] == "hopgate-authz"]
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    text = json.dumps(mesh_pages.manifests(page))
    assert "hopgate-authz.hopgate.svc" in text
    assert ports["mesh"] == 8444
    if page == "envoy-gateway.md":
        assert mesh_pages.manifest(page, "BackendTLSPolicy")["spec"]["targetRefs"][0]["sectionName"] == "mesh"
        [backend] = mesh_pages.manifest(page, "SecurityPolicy")["spec"]["extAuth"]["grpc"]["backendRefs"]
        assert (backend["name"], backend["namespace"], backend["port"]) == ("hopgate-authz", "hopgate", ports["mesh"])
