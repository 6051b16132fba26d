"""What the tests of this folder share: one API server with hopgate's resource definitions in it, one of its own for a test that breaks it,
and one node on which pods run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deploy.images import build
from tests.cluster import api_server as api_servers
from tests.cluster import cgroups
from tests.cluster import helm as helms
from tests.cluster import installed as installations
from tests.cluster import node as nodes
from tests.cluster.api_server import ApiServer
from tests.cluster.helm import Helm
from tests.cluster.installed import Installed
from tests.cluster.node import Node
from tests.cluster.verdicts import Verdicts

if TYPE_CHECKING:
    from tests.cluster.installation import Installation

_NODE = {"node", "node_programs", "base_image", "images"}
DEFINITIONS = Path(__file__).resolve().parents[2] / "deploy" / "charts" / "hopgate" / "crds"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder that stands on an API server is marked `cluster`, and every one that needs a node `node`."""
    for item in items:
        if isinstance(item, pytest.Function) and _NODE & set(item.fixturenames):
            item.add_marker(pytest.mark.node)
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
def helm(cluster_binaries: Path) -> Helm:
    """Real Helm; the chart is used with nothing else."""
    return helms.of_this_machine()


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


@pytest.fixture(scope="session")
def installation(cluster_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """hopgate's webhooks and authz, running on an API server of their own: each test works as a tenant of its own namespace."""
    from tests.cluster.installation import installed  # noqa: PLC0415 - it reads this module's DEFINITIONS

    folder = tmp_path_factory.mktemp("installation")
    with ApiServer(cluster_binaries, folder / "server") as server, installed(server, folder) as running:
        yield running


@pytest.fixture(scope="session")
def verdicts(hopgate_definitions: ApiServer) -> Verdicts:
    """What the server and the reader of a folder say of a manifest."""
    return Verdicts(hopgate_definitions)


@pytest.fixture(scope="session")
def node_programs(cluster_binaries: Path) -> nodes.Programs:
    """What a node is made of."""
    programs = nodes.find_programs()
    if programs is None:
        pytest.skip(f"needs {', '.join(nodes.PACKAGES)} and Kubernetes' programs: run `make node-tools` (needs root and Go)")
    return programs


@pytest.fixture(scope="session")
def base_image() -> nodes.Image:
    """The base of the images: Debian with Python. Without a command of the pod's own it waits."""
    base = build.base()
    return nodes.Image(name=base.name, archive=base.archive)


@pytest.fixture(scope="session")
def node(node_programs: nodes.Programs, base_image: nodes.Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The cluster of one node that all tests share: each works in a namespace of its own (`Node.namespace`) and leaves the node running."""
    cgroups.remove_abandoned()  # of test runs that were killed
    with Node(node_programs, tmp_path_factory.mktemp("node") / "shared", image=base_image) as running:
        yield running


@pytest.fixture(scope="session")
def images(node: Node) -> dict[str, build.Image]:
    """hopgate's images by their targets, imported into the shared node. Minutes, where they have to be built first."""
    built = build.images()
    for image in built.values():
        node.load_image(image.archive)
    return built


@pytest.fixture(scope="session")
def installed(node: Node, helm: Helm, images: dict[str, build.Image]) -> Installed:
    """hopgate, installed by Helm on the shared node."""
    return installations.install(node, helm, images)
