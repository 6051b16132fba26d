"""What the tests that run pods take for granted of their node: the pods' parts that injection uses, services, and that nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.cluster import cluster
from tests.cluster import node as nodes
from tests.cluster.api_server import ClusterError, eventually
from tests.cluster.cgroups import Cgroup
from tests.cluster.node import Node

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]

AUDIENCE = "authz.example.com"
_SERVE = """
import http.server, socket
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(self.client_address[0].encode())
Server(("::", 8080), Handler).serve_forever()
"""
_GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
# Without NET_ADMIN the first line fails.
_ADDRESS = """
import ctypes, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
with socket.socket() as any_socket:
    request = struct.pack("16sH14s", b"lo:1", socket.AF_INET, b"\\0\\0" + socket.inet_aton("127.9.9.9") + bytes(8))
    import fcntl
    fcntl.ioctl(any_socket, 0x8916, request)
"""
_READ_STATUS = "import pathlib; print(pathlib.Path('/proc/self/status').read_text())"


def _container(image: nodes.Image, name: str, *command: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": image.name, "imagePullPolicy": "Never", "command": ["python3", "-c", *command], **more}


def _pod(namespace: str, name: str, containers: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": {"app": name}}
    specification = {"containers": containers, "terminationGracePeriodSeconds": 0, **more}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": specification}


def _served(image: nodes.Image) -> dict[str, Any]:
    probe = {"httpGet": {"port": 8080}, "periodSeconds": 1}
    return _container(image, "app", _SERVE, readinessProbe=probe)


def _service(namespace: str, name: str) -> dict[str, Any]:
    specification = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}], "ipFamilyPolicy": "RequireDualStack"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": specification}


def _read(node: Node, namespace: str, name: str, path: str) -> list[str]:
    return node.server.kubectl("get", "--namespace", namespace, name, "--output", f"jsonpath={path}").split()


def _status(text: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_a_pod_as_injection_makes_it(node: Node, base_image: nodes.Image) -> None:
    """An init container that may change the pod's network, then a sidecar without any right and with a token that the app doesn't have."""
    namespace = node.namespace()
    init = _container(base_image, "capture", _ADDRESS, securityContext={"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}})
    security = {
        "runAsUser": 1337,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    mount = {"name": "token", "mountPath": "/var/run/hopgate", "readOnly": True}
    sidecar = _container(base_image, "gate", _SERVE, restartPolicy="Always", securityContext=security, volumeMounts=[mount])
    sidecar["startupProbe"] = {"httpGet": {"port": 8080}, "periodSeconds": 1}
    token = {"serviceAccountToken": {"path": "token", "audience": AUDIENCE, "expirationSeconds": 600}}
    volumes = [{"name": "token", "projected": {"sources": [token]}}]
    app = _container(base_image, "app", "print('started', flush=True); import signal; signal.pause()")
    node.apply(_pod(namespace, "planner", [app], initContainers=[init, sidecar], volumes=volumes, automountServiceAccountToken=False))
    node.wait_ready(namespace, "planner")

    assert "127.9.9.9" in node.execute(namespace, "planner", "cat", "/proc/net/fib_trie", container="app")
    status = _status(node.execute(namespace, "planner", "python3", "-c", _READ_STATUS, container="gate"))
    assert (status["Uid"].split()[0], int(status["CapEff"], 16), int(status["CapBnd"], 16), status["Seccomp"].strip()) == (
        "1337",
        0,
        0,
        "2",
    )
    with pytest.raises(ClusterError, match="Read-only file system"):
        node.execute(namespace, "planner", "touch", "/tmp/new", container="gate")
    assert node.execute(namespace, "planner", "touch", "/tmp/new", container="app") == ""
    given = node.execute(namespace, "planner", "cat", "/var/run/hopgate/token", container="gate")
    claims = jwt.decode(given, options={"verify_signature": False})
    assert (claims["aud"], claims["kubernetes.io"]["pod"]["name"], claims["kubernetes.io"]["node"]["name"]) == (
        [AUDIENCE],
        "planner",
        nodes.NAME,
    )
    with pytest.raises(ClusterError, match="No such file"):
        node.execute(namespace, "planner", "cat", "/var/run/hopgate/token", container="app")
    assert node.logs(namespace, "planner", "app") == "started\n"


def test_an_init_container_without_the_right_changes_nothing(node: Node, base_image: nodes.Image) -> None:
    namespace = node.namespace()
    init = _container(base_image, "capture", _ADDRESS, securityContext={"capabilities": {"drop": ["ALL"]}})
    node.apply(_pod(namespace, "planner", [_container(base_image, "app", "")], initContainers=[init], restartPolicy="Never"))
    assert node.wait_ended(namespace, "planner") == "Failed"
    assert "Operation not permitted" in node.logs(namespace, "planner", "capture")


def test_pods_reach_each_other_in_both_families_by_service_and_nothing_outside(node: Node, base_image: nodes.Image) -> None:
    namespace = node.namespace()
    client = _container(base_image, "app", "import signal; signal.pause()")
    node.apply(_pod(namespace, "tickets", [_served(base_image)]), _pod(namespace, "planner", [client]), _service(namespace, "tickets"))
    node.wait_ready(namespace, "tickets", "planner")
    addresses = _read(node, namespace, "service/tickets", "{.spec.clusterIPs[*]}")
    own = _read(node, namespace, "pod/planner", "{.status.podIPs[*].ip}")
    assert len(addresses) == len(own) == 2
    for address in addresses:
        url = f"http://[{address}]" if ":" in address else f"http://{address}"

        def answers(url: str = url) -> str:
            try:
                return node.execute(namespace, "planner", "python3", "-c", _GET, url).strip()
            except ClusterError:  # kube-proxy learns of the pod's readiness a moment later than the test
                return ""

        assert eventually(answers, f"{url} answers").removeprefix("::ffff:") in own
    with pytest.raises(ClusterError, match="timed out"):
        node.execute(namespace, "planner", "python3", "-c", _GET.replace("timeout=10", "timeout=1"), "http://192.0.2.1")


def test_pods_outlive_their_kubelet(node: Node, base_image: nodes.Image) -> None:
    namespace = node.namespace()
    node.apply(_pod(namespace, "tickets", [_served(base_image)]))
    node.wait_ready(namespace, "tickets")
    before = node.execute(namespace, "tickets", "cat", "/proc/1/stat").split()[21]
    node.server.kill("kubelet")
    node.start_kubelet()
    node.apply(_pod(namespace, "second", [_served(base_image)]))
    node.wait_ready(namespace, "tickets", "second")
    assert node.execute(namespace, "tickets", "cat", "/proc/1/stat").split()[21] == before


def test_a_deleted_pod_and_namespace_go(node: Node, base_image: nodes.Image) -> None:
    namespace = node.namespace()
    node.apply(_pod(namespace, "tickets", [_served(base_image)]))
    node.wait_ready(namespace, "tickets")
    node.server.kubectl("delete", "namespace", namespace)
    with pytest.raises(ClusterError, match="NotFound"):
        node.server.kubectl("get", "namespace", namespace)


def test_nothing_stays(node_programs: nodes.Programs, base_image: nodes.Image, tmp_path: Path) -> None:
    folder = tmp_path / "node"
    before = _usual_places()
    with Node(node_programs, folder, image=base_image) as node:
        namespace = node.namespace()
        node.apply(_pod(namespace, "tickets", [_served(base_image)]))
        node.wait_ready(namespace, "tickets")
        traces = _traces(node.cgroup.name)
        assert _remain(traces)
    assert not folder.exists()
    assert not any(group.exists() for group in traces.groups)
    eventually(lambda: not _remain(traces), "the node's namespaces are gone")
    assert _usual_places() == before


def test_a_kept_cluster_whose_keeper_was_killed_is_removed(node_programs: nodes.Programs, base_image: nodes.Image, tmp_path: Path) -> None:
    """Its containers outlive it."""
    before = _usual_places()
    keeping = cluster.Keeping(tmp_path / "kept")
    cluster.up(keeping, images=False)
    keeper = keeping.keeper()
    cluster.up(keeping, images=False)
    assert keeping.keeper() == keeper
    kubectl = (str(node_programs.server / "kubectl"), f"--kubeconfig={keeping.kubeconfig}")
    subprocess.run((*kubectl, "run", "waits", f"--image={base_image.name}", "--image-pull-policy=Never"), check=True, capture_output=True)
    subprocess.run((*kubectl, "wait", "--for=condition=Ready", "--timeout=60s", "pod/waits"), check=True, capture_output=True)
    traces = _traces(f"hopgate-cluster-{keeper}-1")
    os.kill(keeper, signal.SIGKILL)
    eventually(lambda: not keeping.is_kept(), "the keeper is gone")
    assert _remain(traces)
    cluster.down(keeping)
    eventually(lambda: not _remain(traces), "everything is gone")
    assert not keeping.folder.exists()
    assert _usual_places() == before


def test_a_kept_cluster_goes_when_it_is_told_to(node_programs: nodes.Programs, tmp_path: Path) -> None:
    keeping = cluster.Keeping(tmp_path / "kept")
    cluster.up(keeping, images=False)
    traces = _traces(f"hopgate-cluster-{keeping.keeper()}-1")
    cluster.down(keeping)
    eventually(lambda: not _remain(traces), "everything is gone")
    assert not keeping.folder.exists()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Traces:
    """By what a node is known that runs: its cgroups, and the namespaces of the processes in them that are not this process's."""

    groups: frozenset[Path]
    namespaces: frozenset[Path]


def _traces(cgroup: str) -> _Traces:
    namespaces = {link for process in Cgroup(cgroup).processes() for link in _namespaces(process)} - _namespaces(os.getpid())
    return _Traces(groups=frozenset(Path("/sys/fs/cgroup").glob(f"*/{cgroup}")), namespaces=frozenset(namespaces))


def _remain(traces: _Traces) -> bool:
    """A process in one of the namespaces keeps it, with its mounts and interfaces."""
    processes = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    return any(group.exists() for group in traces.groups) or any(_namespaces(process) & traces.namespaces for process in processes)


def _namespaces(process: int) -> set[Path]:
    with contextlib.suppress(OSError):  # ended meanwhile
        return {Path(f"/proc/{process}/ns/{kind}").readlink() for kind in ("net", "mnt")}
    return set()


def _usual_places() -> set[Path]:
    """What is where a node of this machine would keep its state, and the network interfaces."""
    places = ("/run/netns", "/run/containerd", "/var/lib/cni", "/var/lib/kubelet", "/var/log/pods", "/var/log/containers", "/sys/class/net")
    return {entry for place in places for entry in (Path(place), *Path(place).glob("*")) if entry.exists()}
