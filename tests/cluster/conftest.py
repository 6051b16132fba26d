"""One API server for the tests of this folder, with hopgate's resource definitions in it, and one of its own for a test that breaks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import api_server as api_servers
from tests.cluster.api_server import ApiServer

DEFINITIONS = Path(__file__).resolve().parents[2] / "deploy" / "charts" / "hopgate" / "crds"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder that stands on an API server is marked `cluster`."""
    for item in items:
        if isinstance(item, pytest.Function) and "cluster_binaries" in item.fixturenames:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def cluster_binaries() -> Path:
    """The folder of kube-apiserver, etcd and kubectl."""
    folder = api_servers.find_binaries()
    if folder is None:
        pytest.skip("needs kube-apiserver and etcd: run `make cluster-binaries` (needs Go), or name their folder in KUBEBUILDER_ASSETS")
    return folder


@pytest.fixture(scope="session")
def api_server(cluster_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The API server that all tests share: each works in a namespace of its own (`ApiServer.namespace`) and leaves the server running."""
    with ApiServer(cluster_binaries, tmp_path_factory.mktemp("cluster") / "shared") as server:
        yield server


@pytest.fixture
def own_api_server(cluster_binaries: Path, tmp_path: Path) -> Iterator[ApiServer]:
    """An API server for one test, empty, to do anything to."""
    with ApiServer(cluster_binaries, tmp_path / "cluster") as server:
        yield server


@pytest.fixture(scope="session")
def hopgate_definitions(api_server: ApiServer) -> ApiServer:
    """The shared API server, which knows hopgate's kinds."""
    api_server.install(DEFINITIONS)
    return api_server
