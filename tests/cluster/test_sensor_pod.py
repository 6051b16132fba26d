"""The sensor's pod as the chart makes it, on a real node: what it can with the rights that it is given, and which each is for.

Its command is replaced by one that waits, so that what it may do is tried from inside.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from deploy.images.build import Image
from tests.cluster import around_gate, governed_pods, model_callers
from tests.cluster.api_server import eventually
from tests.cluster.helm import Helm, of_kind
from tests.cluster.model_callers import MODEL, OTHER, WAYS, Callers
from tests.cluster.node import Node
from tests.cluster.values import nested

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]

_WAIT: Final = ["python", "-c", "import signal; signal.pause()"]
# What of it works; the argument is the UID of a pod of another user, with a provider's key.
_TRY: Final = """
import json, socket, sys
from sensor import cgroups, data, enforcement, open_connections, programs
from sensor.events import TCP
from sensor.kernel import KernelError
from sensor.processes import Processes
from hopgate import kernel

def attached():
    opened = programs.open()
    try:
        return all(hook.attached for hook in opened.hooks)
    finally:
        opened.close()

def listed():
    return kernel.within(f"/proc/{there[0].process}/ns/net", lambda: [*open_connections.list_sockets(), True])

def ended():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as made:
        [found] = [each for each in open_connections.list_sockets() if each.local_port == made.getsockname()[1]]
        return open_connections.destroy(found, TCP)

def named():
    folder = next(path for path in programs.root().rglob("pod*") if path.is_dir())
    with cgroups.Cgroups(programs.root()) as known:
        return known.path(folder.stat().st_ino) != ""

def pinned():
    with enforcement.Enforcement() as enforced:
        return enforced.gaps == ()

def works(part):
    try:
        return bool(part())
    except (KernelError, OSError):
        return False

there = [each for each in Processes(data.built_in()).running() if each.placement.pod == sys.argv[1] and each.uid != 0]
parts = {
    "programs in the kernel": attached,
    "connections of others": listed,
    "ends of connections": ended,
    "names of cgroups": named,
    "files of others": lambda: any(each.executable for each in there),
    "variables of others": lambda: any(each.variables == ("OPENAI_API_KEY",) for each in there),
    "quarantine": pinned,
}
print(json.dumps([name for name, part in parts.items() if not works(part)]))
"""
# Of docs/how-to/find-shadow-agents-on-kubernetes.md: what fails without each.
LOST: Final = {
    "SYS_ADMIN": ["programs in the kernel", "connections of others", "quarantine"],
    "SYS_PTRACE": ["connections of others", "files of others"],
    "DAC_READ_SEARCH": ["names of cgroups", "variables of others"],
    "NET_ADMIN": ["ends of connections"],
}


@pytest.fixture(scope="module")
def sensors(node: Node, helm: Helm, images: dict[str, Image]) -> str:
    """The namespace of the sensor's pod, `whole`, and of one without each of its rights."""
    del images
    [made] = of_kind(helm.manifests(nested({"sensor.enabled": True, "sensor.enforce": True})), "DaemonSet")
    namespace = node.namespace()
    whole = _pod(namespace, "whole", made["spec"]["template"]["spec"])
    assert whole["spec"]["containers"][0]["securityContext"]["capabilities"]["add"] == [*LOST]
    pods = [whole, *(_without(whole, right) for right in LOST)]
    node.apply(*pods)
    node.wait_ready(namespace, *(each["metadata"]["name"] for each in pods))
    return namespace


def _pod(namespace: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    [container] = spec["containers"]
    waits = {key: value for key, value in container.items() if not key.endswith("Probe") and key != "args"} | {"command": _WAIT}
    changed = {"serviceAccountName": "default", "containers": [waits], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": {**spec, **changed}}


def _without(whole: dict[str, Any], right: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(whole))
    made["metadata"]["name"] = f"without-{right.lower().replace('_', '-')}"
    made["spec"]["containers"][0]["securityContext"]["capabilities"]["add"].remove(right)
    return made


@pytest.fixture(scope="module")
def callers(node: Node) -> Callers:
    """`model` calls a model's API all the time, `other` something else."""
    made = model_callers.make(node)
    made.start("model", MODEL)
    made.start("other", OTHER)
    return made


@pytest.fixture(scope="module")
def keyed(node: Node) -> str:
    """The UID of a pod of another user that has a provider's key."""
    namespace = node.namespace()
    container = governed_pods.waiting(securityContext={"runAsUser": 10001}, env=[{"name": "OPENAI_API_KEY", "value": "none"}])
    node.apply(governed_pods.pod(namespace, "keyed", container))
    node.wait_ready(namespace, "keyed")
    return node.server.kubectl("get", "pod", "keyed", "-n", namespace, "-o", "jsonpath={.metadata.uid}")


def test_with_its_rights_everything_works(node: Node, sensors: str, keyed: str) -> None:
    assert json.loads(node.execute(sensors, "whole", "python", "-c", _TRY, keyed)) == []


@pytest.mark.parametrize("right", LOST)
def test_each_right_is_for_something(node: Node, sensors: str, keyed: str, right: str) -> None:
    pod = f"without-{right.lower().replace('_', '-')}"
    lost = json.loads(node.execute(sensors, pod, "python", "-c", _TRY, keyed))
    # Kernels differ in whether the last is SYS_PTRACE's too.
    assert [each for each in lost if (right, each) != ("SYS_PTRACE", "variables of others")] == LOST[right]


def seen(node: Node, sensors: str, pod: str) -> list[dict[str, Any]]:
    """What `hopgate discover` finds in a pod, by its UID."""
    command = ("sh", "-c", "hopgate discover --json --all --duration 2 2>/dev/null || test $? = 1")
    rows = [json.loads(line) for line in node.execute(sensors, "whole", *command).splitlines()]
    return [row for row in rows if row["pod"] == pod and row["reached"]]


@pytest.fixture
def released(node: Node, sensors: str) -> Iterator[None]:
    """Nothing is cut off afterwards."""
    yield
    node.execute(sensors, "without-net-admin", "hopgate", "quarantine", "--uninstall")


@pytest.mark.usefixtures("released")
def test_what_is_cut_off_from_the_pod_stays_so_when_the_pod_is_killed(node: Node, sensors: str, callers: Callers) -> None:
    """The last of this module: it ends the pod `whole`."""
    eventually(lambda: callers.ways("model", "ok") == WAYS, "both families work, over connections that stay and new ones")
    [found] = eventually(lambda: seen(node, sensors, callers.uid("model")), "the call is seen")
    cgroup = found["cgroup"]
    node.execute(sensors, "whole", "hopgate", "quarantine", cgroup)
    done = time.time()
    eventually(lambda: callers.ways("model", "PermissionError", done) == WAYS, "it is told that it may not")
    [status] = json.loads(node.server.kubectl("get", "pod", "whole", "-n", sensors, "-o", "json"))["status"]["containerStatuses"]
    node.server.kubectl("delete", "pod", "whole", "-n", sensors, "--force", "--grace-period=0")
    container = status["containerID"].rpartition("/")[2]
    eventually(lambda: around_gate.processes_of(container) == [], "nothing of the pod runs")
    killed = time.time()
    eventually(lambda: callers.ways("model", "PermissionError", killed) == WAYS, "it is still told that it may not")
    assert callers.ways("model", "ok", done) == set()
    assert {each.said for each in callers.outcomes("other", done)} == {"ok"}
    listed = node.execute(sensors, "without-net-admin", "hopgate", "quarantine", "--list", "--json").splitlines()
    [standing] = [each for line in listed if (each := json.loads(line))["by"] == "command"]
    node.execute(sensors, "without-net-admin", "hopgate", "release", str(standing["cgroupId"]))
    free = time.time()
    eventually(lambda: callers.ways("model", "ok", free) == WAYS, "it may again")
