"""A pod's network without a cluster: one namespace for the pod, one for everything else, joined by a link with both families."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hopgate.kubernetes import sidecar
from hopgate.kubernetes.sidecar import Plan, PlannedProbe
from hopgate.local import envoy_process
from hopgate.proxy.pod_bootstrap import PodFiles
from tests.network_namespaces import Namespace

POD4, POD6 = "10.244.0.7", "fd00:244::7"
NODE4, NODE6 = "10.244.0.1", "fd00:244::1"
AUTHZ_NAME = "hopgate-authz.hopgate-system.svc"
AUTHZ_PORT, RESOLVER_PORT = 9443, 5353
PROXY_UID, APP_UID = 1337, 1000

_CAPTURE = """
import pathlib, sys
from hopgate.proxy import capture
from hopgate.proxy.errors import ProxyError
from hopgate.proxy.pod_bootstrap import PodFiles
folder = pathlib.Path(sys.argv[3])
trust_bundle, system_roots = folder / "trust" / "ca-certificates.pem", folder / "roots.pem"
files = PodFiles(configuration=folder / "configuration", admin_socket=folder / "admin" / "envoy.sock", token=folder / "tokens" / "token",
                 authorities=folder / "authorities", trust_bundle=trust_bundle, system_roots=system_roots)
try:
    capture.run({"HOPGATE_PLAN": sys.argv[1], "HOPGATE_POD_IPS": sys.argv[2]}, files)
except ProxyError as error:
    sys.exit(f"{error.code}: {error}")
status = pathlib.Path("/proc/self/status").read_text()
print(*(line.split()[1] for line in status.splitlines() if line.startswith(("CapEff", "CapPrm"))))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """`inside` is the pod's network, `outside` the node's and everybody else's."""

    inside: Namespace
    outside: Namespace

    def capture(self, plan: Plan, files: PodFiles, *, addresses: str = f"{POD4},{POD6}") -> str:
        """Run the capture program inside, as a process of its own with NET_ADMIN alone; what it prints of its rights at its end."""
        rights = ("setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin")
        return self.inside.run(*rights, sys.executable, "-c", _CAPTURE, plan.to_json(), addresses, str(files.configuration.parent))


@contextmanager
def made(*, ipv6: bool = True) -> Iterator[Pod]:
    """A pod that is connected and not yet captured."""
    inside, outside = Namespace(), Namespace()
    try:
        for namespace in (inside, outside):
            namespace.raise_loopback()
        if not ipv6:
            inside.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
        _join(inside, outside)
        for namespace, address4, address6, gateway4, gateway6 in (
            (inside, f"{POD4}/24", f"{POD6}/64", NODE4, NODE6),
            (outside, f"{NODE4}/24", f"{NODE6}/64", None, None),
        ):
            namespace.run("ip", "link", "set", "eth0", "up")
            namespace.run("ip", "addr", "add", address4, "dev", "eth0")
            if ipv6:
                namespace.run("ip", "addr", "add", address6, "dev", "eth0", "nodad")
            if gateway4:
                namespace.run("ip", "route", "add", "default", "via", gateway4)
                if ipv6:
                    namespace.run("ip", "-6", "route", "add", "default", "via", str(gateway6))
        # Everything else's addresses: connections to anywhere would be answered there.
        outside.run("ip", "addr", "add", "203.0.113.9/32", "dev", "lo")
        outside.run("ip", "addr", "add", "10.96.0.20/32", "dev", "lo")
        if ipv6:
            outside.run("ip", "addr", "add", "2001:db8:5::5/128", "dev", "lo", "nodad")
        yield Pod(inside=inside, outside=outside)
    finally:
        inside.close()
        outside.close()


def _join(inside: Namespace, outside: Namespace) -> None:
    command = (
        "nsenter",
        f"--net=/proc/self/fd/{inside.descriptor}",
        "--",
        "ip",
        "link",
        "add",
        "eth0",
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
    )
    target = ("netns", f"/proc/self/fd/{outside.descriptor}")
    subprocess.run((*command, *target), check=True, capture_output=True, pass_fds=(inside.descriptor, outside.descriptor))


def files_below(folder: Path, *, authz_pem: bytes = b"authz\n", open_tls_pem: bytes = b"gate\n") -> PodFiles:
    """The folders as a pod's volumes: the kubelet has put the token and the authorities there."""
    made = PodFiles(
        configuration=folder / "configuration",
        admin_socket=folder / "admin" / "envoy.sock",
        token=folder / "tokens" / "token",
        authorities=folder / "authorities",
        trust_bundle=folder / "trust" / "ca-certificates.pem",
        system_roots=folder / "roots.pem",
    )
    for path in (made.configuration, made.admin_socket.parent, made.token.parent, made.authorities, made.trust_bundle.parent):
        path.mkdir()
        path.chmod(0o777)
    made.system_roots.write_bytes(b"roots\n")
    made.token.write_text("the-pods-token")
    (made.authorities / sidecar.AUTHZ_AUTHORITY_KEY).write_bytes(authz_pem)
    (made.authorities / sidecar.OPEN_TLS_AUTHORITY_KEY).write_bytes(open_tls_pem)
    return made


def plan(*probes: PlannedProbe) -> Plan:
    return Plan(
        agent="demo/planner",
        proxy_uid=PROXY_UID,
        authz_addresses=("10.96.0.20",),
        authz_name=AUTHZ_NAME,
        authz_port=AUTHZ_PORT,
        resolver_port=RESOLVER_PORT,
        max_heap_bytes=128 << 20,
        probes=probes,
    )


def log_of(files: PodFiles) -> Path:
    return files.configuration.parent / "envoy.log"


def start_envoy(pod: Pod, files: PodFiles) -> subprocess.Popen[bytes]:
    """As the sidecar's container does: the proxy's user, no rights. Its binary may lie where that user can't look."""
    binary = os.open(envoy_process.find(), os.O_RDONLY)
    log = log_of(files).open("wb")
    try:
        return subprocess.Popen(
            (
                *("nsenter", f"--net=/proc/self/fd/{pod.inside.descriptor}", "--"),
                *("setpriv", "--reuid", str(PROXY_UID), "--regid", str(PROXY_UID), "--clear-groups", "--bounding-set=-all"),
                *("--inh-caps=-all", "--no-new-privs", "--pdeathsig", "KILL"),
                *(f"/proc/self/fd/{binary}", "--config-path", str(files.bootstrap), "--disable-hot-restart", "--concurrency", "1"),
                *("--log-level", "warning"),
            ),
            pass_fds=(pod.inside.descriptor, binary),
            env={},
            stderr=log,
        )
    finally:
        os.close(binary)
        log.close()
