"""What the parts of a node are told: kubelet, containerd, the pods' network. Kubernetes 1.37, containerd 1.6 (configuration version 2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

POD_RANGES = ("10.244.0.0/24", "fd00:10:244::/64")
# Where the cluster's DNS is found: of each range of Services the tenth address, as everywhere.
DNS_ADDRESSES = ("10.96.0.10", "fd00:10:96::a")
CLUSTER_DOMAIN = "cluster.local"
# Where Debian's package containernetworking-plugins has them.
CNI_PROGRAMS = "/usr/lib/cni"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"

_CONTAINERD = """
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
# Without this, and without CAP_SYS_RESOURCE, no pod's sandbox starts: "can't get final child's PID from pipe: EOF".
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{programs}"
conf_dir = "{network}"
"""


def containerd(*, pause: str, network: Path) -> str:
    """containerd's TOML. `pause` is the name of the image of the pods' sandboxes, `network` the folder of CNI configurations."""
    return _CONTAINERD.format(socket=CONTAINERD_SOCKET, pause=pause, programs=CNI_PROGRAMS, network=network)


def network() -> dict[str, Any]:
    """CNI's list of plugins: one bridge, an address of each family for a pod, host ports."""
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": subnet}] for subnet in POD_RANGES],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": addresses}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]}


def kubelet(*, cgroup_root: str, ca: Path, certificate: Path, key: Path) -> dict[str, Any]:
    """kubelet's configuration. Nothing is evicted and no image collected: a test machine's disk may be full."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        # kubelet removes what it doesn't know below its root: without one of its own, the pods of another cluster.
        "cgroupRoot": f"/{cgroup_root}",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}, "x509": {"clientCAFile": str(ca)}},
        "authorization": {"mode": "Webhook"},
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "podLogsDir": "/var/log/pods",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi"},
        "resolvConf": "",
        "clusterDNS": list(DNS_ADDRESSES),
        "clusterDomain": CLUSTER_DOMAIN,
        "serializeImagePulls": False,
    }


def proxy(*, kubeconfig: Path, node: str) -> dict[str, Any]:
    """kube-proxy's configuration."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": ",".join(POD_RANGES),
        # Its default would change a setting that only the machine's own network namespace has.
        "conntrack": {"maxPerCore": 0},
        "hostnameOverride": node,
    }


_COREFILE = """
. {{
    bind {addresses}
    errors
    health 127.0.0.1:8081
    kubernetes {domain} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        ttl 5
    }}
}}
"""


def corefile(*, kubeconfig: Path, addresses: Sequence[str]) -> str:
    """CoreDNS's configuration. Names that are not the cluster's have no answer: there is nothing outside."""
    return _COREFILE.format(addresses=" ".join(addresses), domain=CLUSTER_DOMAIN, kubeconfig=kubeconfig)


def dns(*, user: str, addresses: Sequence[str]) -> list[dict[str, Any]]:
    """The Service of the cluster's DNS, which leads to `addresses` of the node, and what CoreDNS may read there as `user`."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user}
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    ports = [{"name": name, "protocol": protocol, "port": 53} for name, protocol in (("dns", "UDP"), ("dns-tcp", "TCP"))]
    access = "rbac.authorization.k8s.io/v1"
    service = {"clusterIP": DNS_ADDRESSES[0], "clusterIPs": list(DNS_ADDRESSES), "ipFamilyPolicy": "RequireDualStack", "ports": ports}
    slices: list[dict[str, Any]] = [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": _in_system(f"kube-dns-{family.lower()}", "kubernetes.io/service-name", "kube-dns"),
            "addressType": family,
            "endpoints": [{"addresses": [address]}],
            "ports": ports,
        }
        for family, address in zip(("IPv4", "IPv6"), addresses, strict=True)
    ]
    return [
        {"apiVersion": access, "kind": "ClusterRole", "metadata": {"name": user}, "rules": rules},
        {
            "apiVersion": access,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": user},
            "roleRef": role,
            "subjects": [{"kind": "User", "name": user}],
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": _in_system("kube-dns", "k8s-app", "kube-dns"), "spec": service},
        *slices,
    ]


def _in_system(name: str, label: str, value: str) -> dict[str, Any]:
    return {"name": name, "namespace": "kube-system", "labels": {label: value}}
