"""A real cluster of one node, with both IP families: API server, controllers, scheduler, kubelet, containerd, runc, kube-proxy, CoreDNS.

All of it runs in a network namespace without a way out and in a mount namespace where /run, /var/lib and /var/log are folders of its own,
so that the usual paths are used and nothing of them is left on the machine. Containers come from image archives, never from a registry.
Needs root and the Debian packages containerd, runc, containernetworking-plugins, iproute2, util-linux. Flags as Kubernetes 1.37 has them.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kubernetes.client import CoreV1Api, V1Node, V1NodeCondition, V1Pod, V1PodCondition, V1PodStatus

from tests.cluster import api_server, node_configuration
from tests.cluster.api_server import SERVICE_ADDRESSES, ApiServer, ClusterError, Place, eventually
from tests.cluster.cgroups import Cgroup
from tests.cluster.relay import Relay

# Debian's, for a node and for images that it can run.
PACKAGES = ("containerd", "runc", "containernetworking-plugins", "buildah", "debootstrap")
NAME = "node1"
ADDRESSES = ("10.245.0.1", "fd00:10:245::1")
SERVICE_RANGES = (SERVICE_ADDRESSES, "fd00:10:96::/112")
# The first address of the first range is the API server's own Service.
_API_SERVICE = "10.96.0.1"
_CTR = ("ctr", "--address", node_configuration.CONTAINERD_SOCKET, "--namespace", "k8s.io")
_COMMAND_SECONDS = 120.0
_ENDED_PHASES = ("Failed", "Succeeded")

# The default routes lead into an interface that nobody reads: kubelet and kube-proxy want one, and there is no way out.
_PREPARE = """
mount --make-rshared /
for part in run lib log; do mkdir -p "$1/$part"; done
mount --bind "$1/run" /run
mount --bind "$1/lib" /var/lib
mount --bind "$1/log" /var/log
mkdir -p /run/lock
# As systemd does: what is pinned there outlives whoever pinned it, but not this node.
mount -t bpf bpf /sys/fs/bpf
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
ip link set lo up
ip link add node0 type veth peer name nowhere
ip link set nowhere up
ip link set node0 up
ip address add "$2/24" dev node0
ip address add "$3/64" dev node0 nodad
ip route add default dev node0
ip -6 route add default dev node0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An OCI archive, and the name of the image in it."""

    name: str
    archive: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The folders of what `build.sh` builds: kube-apiserver, etcd and kubectl; the other Kubernetes programs; CoreDNS."""

    server: Path
    node: Path
    dns: Path


def find_programs() -> Programs | None:
    """What `build.sh api node dns` made, where Debian's packages are installed too; None: something is missing."""
    server, node = api_server.find_binaries(), api_server.find_built("kubernetes-node")
    dns = api_server.find_built("coredns", "github.com/coredns/coredns", "dns/go.mod")
    installed = all(shutil.which(program) for program in ("containerd", "ctr", "runc", "ip", "unshare", "nsenter"))
    if server is None or node is None or dns is None or not installed or not Path(node_configuration.CNI_PROGRAMS, "bridge").exists():
        return None
    return Programs(server=server, node=node, dns=dns)


class Node:
    """Ready after `start`; `stop` leaves no process, mount, namespace, cgroup or file. `server` is its API server, for clients, kubectl."""

    def __init__(self, programs: Programs, folder: Path, *, image: Image, flags: Sequence[str] = ()) -> None:
        """`folder` must not exist yet. `image` is there from the start; its command holds each pod's namespaces and only has to wait.

        `flags` come after the API server's own.
        """
        self._folder = folder
        self._image = image
        self._programs = programs
        self.cgroup = Cgroup()
        self.cgroup.make()
        # PR_SET_PDEATHSIG goes by the thread that forked.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="node")
        folder.mkdir(mode=0o700, parents=True)
        self._holder = self._starter.submit(self._hold_namespaces).result()
        self.server = ApiServer(programs.server, folder / "control", place=self._place(), flags=flags)
        self._relay = Relay(self.server.port, self._holder.pid)

    @property
    def pid(self) -> int:
        """A process inside the node's namespaces, for `nsenter --target PID --mount --net`."""
        return self._holder.pid

    def start(self) -> None:
        """Start everything and wait until the node is Ready. Raises ClusterError or TimeoutError."""
        self.run("sh", "-euc", _PREPARE, "sh", str(self._folder), *ADDRESSES)
        self._relay.start()
        self._start_containerd()
        self.server.start()
        self._core = CoreV1Api(self.server.client())
        self._start_controllers()
        self._start_proxy()
        self._start_dns()
        self.start_kubelet()
        eventually(self._is_ready, "the node is Ready")

    def start_kubelet(self) -> None:
        """Start the kubelet, for the first time or after `server.kill("kubelet")`."""
        user = self.server.user(f"system:node:{NAME}", "system:nodes")
        certificate, key = self.server.serving_certificate("kubelet", NAME, (NAME, *ADDRESSES))
        configuration = node_configuration.kubelet(cgroup_root=self.cgroup.name, ca=self.server.ca_file, certificate=certificate, key=key)
        self._spawn(
            "kubelet",
            f"--config={self._write('kubelet.json', configuration)}",
            f"--kubeconfig={user.kubeconfig}",
            "--root-dir=/var/lib/kubelet",
            "--cert-dir=/var/lib/kubelet/pki",
            f"--hostname-override={NAME}",
            f"--node-ip={','.join(ADDRESSES)}",
        )

    def stop(self) -> None:
        """End everything, wait until it is gone, remove the folder."""
        self._relay.stop()
        self.cgroup.remove()
        self.server.stop()
        self._holder.wait()
        self._starter.shutdown()
        shutil.rmtree(self._folder)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def run(self, *command: str) -> str:
        """What a command writes that runs on the node, outside of every pod. Raises ClusterError with its error."""
        entered = ("nsenter", f"--target={self.pid}", "--mount", "--net", "--", *command)
        done = subprocess.run(entered, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
        if done.returncode != 0:
            raise ClusterError(f"{command[0]}: {done.stderr.strip()}")
        return done.stdout

    def load_image(self, archive: Path) -> None:
        """Import the images of an OCI archive under the names that it gives them; pods use them with `imagePullPolicy: Never`."""
        self.run(*_CTR, "images", "import", str(archive))

    def images(self) -> set[str]:
        """The names of the images that pods can use."""
        return set(self.run(*_CTR, "images", "list", "--quiet").split())

    def namespace(self, labels: dict[str, str] | None = None) -> str:
        """Make a namespace that no other test has, in which pods can be made, and give its name."""
        name = self.server.namespace(labels)
        eventually(functools.partial(self._has_account, name), f"namespace {name} has its default ServiceAccount")
        return name

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Apply manifests as the admin. Raises ClusterError."""
        self.server.kubectl("apply", "--filename", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))

    def wait_ready(self, namespace: str, *names: str) -> None:
        """Wait until pods are Ready. Raises ClusterError when one ended, TimeoutError when it takes too long, with what happened to it."""
        for name in names:
            try:
                eventually(functools.partial(self._pod_is_ready, namespace, name), f"pod {namespace}/{name} is Ready")
            except TimeoutError as error:
                raise TimeoutError(f"{error}:\n{self.story(namespace, name)}") from error

    def wait_ended(self, namespace: str, name: str) -> str:
        """The pod's phase, Succeeded or Failed, when its containers have ended, well or not. Raises TimeoutError."""
        try:
            return eventually(functools.partial(self._ended, namespace, name), f"pod {namespace}/{name} has ended")
        except TimeoutError as error:
            raise TimeoutError(f"{error}:\n{self.story(namespace, name)}") from error

    def execute(self, namespace: str, pod: str, *command: str, container: str | None = None) -> str:
        """What a command writes in a container. Raises ClusterError with its error."""
        chosen = ("--container", container) if container else ()
        return self.server.kubectl("exec", "--namespace", namespace, pod, *chosen, "--", *command)

    def logs(self, namespace: str, pod: str, container: str | None = None) -> str:
        """What a container wrote."""
        chosen = ("--container", container) if container else ()
        return self.server.kubectl("logs", "--namespace", namespace, pod, *chosen)

    def story(self, namespace: str, pod: str) -> str:
        """What happened to a pod, for an error."""
        events = self.server.kubectl("get", "events", "--namespace", namespace, "--field-selector", f"involvedObject.name={pod}")
        return f"{events}\n{self._status(namespace, pod)}"

    def _place(self) -> Place:
        flags = (
            "--bind-address=0.0.0.0",
            f"--advertise-address={ADDRESSES[0]}",
            f"--service-cluster-ip-range={','.join(SERVICE_RANGES)}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--kubelet-preferred-address-types=InternalIP",
        )
        enter = (*self.cgroup.join(), "nsenter", f"--target={self.pid}", "--mount", "--net", "--")
        return Place(enter=enter, names=(_API_SERVICE, *ADDRESSES, "kubernetes.default.svc"), flags=flags)

    def _hold_namespaces(self) -> subprocess.Popen[bytes]:
        command = ("setpriv", "--pdeathsig", "KILL", *self.cgroup.join())
        holder = subprocess.Popen(
            (*command, "unshare", "--mount", "--net", "--propagation", "private", "sleep", "infinity"),
            stdin=subprocess.DEVNULL,
            process_group=0,
        )
        eventually(lambda: Path(f"/proc/{holder.pid}/comm").read_text().strip() == "sleep", "the node's namespaces are there")
        return holder

    def _spawn(self, program: str, *arguments: str) -> None:
        self.server.spawn(program, (str(self._programs.node / program), *arguments))

    def _write(self, name: str, content: Mapping[str, Any]) -> Path:
        file = self._folder / name
        file.write_text(json.dumps(content))
        return file

    def _start_containerd(self) -> None:
        network = self._folder / "cni"
        network.mkdir()
        self._write("cni/pods.conflist", node_configuration.network())
        configuration = self._folder / "containerd.toml"
        configuration.write_text(node_configuration.containerd(pause=self._image.name, network=network))
        self.server.spawn("containerd", ("containerd", "--config", str(configuration)))
        eventually((self._folder / "run/containerd/containerd.sock").exists, "containerd listens")
        self.load_image(self._image.archive)

    def _start_controllers(self) -> None:
        folder = self.server.folder
        manager = self.server.user("system:kube-controller-manager")
        self._spawn(
            "kube-controller-manager",
            f"--kubeconfig={manager.kubeconfig}",
            f"--service-account-private-key-file={folder / 'service-account.key'}",
            f"--root-ca-file={self.server.ca_file}",
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            # How soon it sees that the node is Ready, and takes away the taint that keeps pods off it.
            "--node-monitor-period=500ms",
            f"--cert-dir={folder / 'controller-manager'}",
        )
        scheduler = self.server.user("system:kube-scheduler")
        kubeconfig = f"--kubeconfig={scheduler.kubeconfig}"
        self._spawn("kube-scheduler", kubeconfig, "--leader-elect=false", f"--cert-dir={folder / 'scheduler'}")

    def _start_proxy(self) -> None:
        user = self.server.user("system:kube-proxy")
        self.server.kubectl("create", "clusterrolebinding", "kube-proxy", "--clusterrole=system:node-proxier", f"--user={user.name}")
        configuration = node_configuration.proxy(kubeconfig=user.kubeconfig, node=NAME)
        self._spawn("kube-proxy", f"--config={self._write('kube-proxy.json', configuration)}")

    def _start_dns(self) -> None:
        user = self.server.user("system:coredns")
        configuration = self._folder / "Corefile"
        configuration.write_text(node_configuration.corefile(kubeconfig=user.kubeconfig, addresses=ADDRESSES))
        self.apply(*node_configuration.dns(user=user.name, addresses=ADDRESSES))
        self.server.spawn("coredns", (str(self._programs.dns / "coredns"), "-conf", str(configuration)))

    def _is_ready(self) -> bool:
        self.server.check()
        nodes: list[V1Node] = self._core.list_node().items
        return any(_takes_pods(node) for node in nodes)

    def _has_account(self, namespace: str) -> bool:
        return bool(self._core.list_namespaced_service_account(namespace, field_selector="metadata.name=default").items)

    def _pod_is_ready(self, namespace: str, name: str) -> bool:
        self.server.check()
        if self._ended(namespace, name):
            raise ClusterError(f"pod {namespace}/{name} ended instead of being ready:\n{self.story(namespace, name)}")
        return _is_true("Ready", self._status(namespace, name).conditions)

    def _ended(self, namespace: str, name: str) -> str:
        """The phase, or nothing while it runs."""
        phase = self._status(namespace, name).phase or ""
        return phase if phase in _ENDED_PHASES else ""

    def _status(self, namespace: str, name: str) -> V1PodStatus:
        pod: V1Pod = self._core.read_namespaced_pod(name, namespace)
        return pod.status or V1PodStatus()


def _takes_pods(node: V1Node) -> bool:
    """Ready, and the controller-manager knows it: it has taken the taint away that keeps pods off a node."""
    ready = node.status is not None and _is_true("Ready", node.status.conditions)
    return ready and node.spec is not None and not node.spec.taints


def _is_true(kind: str, conditions: Sequence[V1NodeCondition | V1PodCondition] | None) -> bool:
    return any(condition.type == kind and condition.status == "True" for condition in conditions or ())
