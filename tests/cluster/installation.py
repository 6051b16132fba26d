"""hopgate on an API server of its own: the processes of webhooks and authz as in a cluster, and people who have one namespace each."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from kubernetes.client import ApiException

from authz import server as authz_server
from authz.pb import ext_authz_pb2 as pb
from authz.pb import health_pb2
from authz.request import CheckInput, Direction, SocketAddress
from hopgate.resources import addresses
from hopgate.resources.kinds import Tls
from tests.authz import requests
from tests.authz.certificates import HOST, Mounted
from tests.authz.test_check import encoded
from tests.cluster import helm as helms
from tests.cluster.api_server import ApiServer, User, eventually, free_ports, message_of
from tests.cluster.conftest import DEFINITIONS
from tests.cluster.test_identity import Place, PodName
from tests.cluster.test_identity_command import Ports, given
from tests.cluster.test_identity_process import is_allowed, reason
from tests.cluster.test_webhook_process import NAMESPACE, Process, make_authz_service, started
from tests.cluster.watching import Objects
from tests.cluster.webhooks import try_apply

DEADLINE_SECONDS = 30.0
# Where authz runs, and as whom.
SYSTEM, ACCOUNT = "hopgate", "hopgate-authz"

# What somebody usually has who looks after one namespace.
OWN = (
    ("hopgate.dev", "agents,toolservers,modelproviders,policies", "get,list,create,update,patch,delete,deletecollection"),
    ("", "pods,pods/exec,pods/attach,pods/ephemeralcontainers", "get,list,create,update,patch,delete"),
    ("", "services,serviceaccounts,configmaps", "get,list,create,update,patch,delete"),
    ("coordination.k8s.io", "leases", "get,list,create,update,patch,delete"),
    ("rbac.authorization.k8s.io", "roles,rolebindings", "get,list,create,update,patch,delete"),
)


def apply_policy(server: ApiServer, name: str) -> None:
    """What the API server judges by itself, as the chart has it."""
    manifests = helms.policies(helms.of_this_machine().manifests(namespace=SYSTEM))
    server.kubectl("apply", "-f", "-", stdin=helms.as_list([each for each in manifests if each["metadata"]["name"] == name]))


def address_of(host: str, tls: Tls = Tls.DISABLED) -> str:
    """The virtual address of a name: a hash of it, while no other has the same."""
    return addresses.allot({host: tls}, {})[host]


def request_to(host: str, port: int, *, path: str, method: str = "POST", body: dict[str, Any] | bytes = b"") -> bytes:
    """A check of an outbound request."""
    destination = SocketAddress(ip=address_of(host), port=port)
    described = requests.http(host=host if port == 80 else f"{host}:{port}", path=path, method=method, body=body)
    check = CheckInput(
        request_id="r1", direction=Direction.OUTBOUND, source=requests.AGENT_SOCKET, destination=destination, sni=None, http=described
    )
    return encoded(check)


def tool_call(namespace: str, tool: str = "search", service: str = "tickets") -> bytes:
    """A check of a call of a tool of `NAMESPACE/tickets`."""
    return request_to(f"{service}.{namespace}.svc", 80, path="/mcp", body=requests.tool_call(tool, {}))


def get(host: str) -> bytes:
    """A check of a GET of an HTTP host at port 80."""
    return request_to(host, 80, path="/", method="GET")


class Authz:
    """`python -m authz cluster`, running as a pod of the namespace `hopgate`, with `more` arguments."""

    def __init__(self, server: ApiServer, folder: Path, mounted: Mounted, name: str, more: Sequence[str] = ()) -> None:
        self.ports = Ports(*free_ports(4))
        self.spool = folder / f"spool-{name}"
        self.process: subprocess.Popen[bytes] | None = None
        self._log = folder / f"{name}.log"
        pod = Place(server, SYSTEM).pod(name, ACCOUNT)
        self.arguments = (*given(server, SYSTEM, pod, self.ports, mounted, self.spool), *more)
        credentials = grpc.ssl_channel_credentials(mounted.authority.certificate_pem)
        options = (
            ("grpc.ssl_target_name_override", HOST),
            ("grpc.max_reconnect_backoff_ms", 200),
            ("grpc.initial_reconnect_backoff_ms", 50),
        )
        self.channel = grpc.secure_channel(f"127.0.0.1:{self.ports.listen}", credentials, options=options)
        self._ask = self.channel.unary_unary(authz_server.METHOD)

    def start(self, before: Sequence[str] = (sys.executable, "-m", "authz"), *, settle: float | None = None) -> None:
        """Run it, and wait until it is ready; `before` is what stands before its arguments. `settle`: `--settle-seconds`."""
        with self._log.open("ab") as log:
            command = (*before, "cluster", *self.arguments, *(() if settle is None else (f"--settle-seconds={settle}",)))
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        eventually(self._ready, "authz is ready")

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def close(self) -> None:
        """End it, and its clients."""
        self.kill()
        self.channel.close()

    def ask(self, request: bytes, token: str, *, seconds: float = DEADLINE_SECONDS, direction: str = "outbound") -> pb.CheckResponse:
        """Raises grpc.RpcError where nobody answers."""
        metadata = [("x-hopgate-direction", direction), ("authorization", f"Bearer {token}")]
        return pb.CheckResponse.FromString(self._ask(request, timeout=seconds, metadata=metadata, wait_for_ready=True))

    def allows(self, request: bytes, token: str) -> bool:
        return is_allowed(self.ask(request, token))

    def denies(self, request: bytes, token: str) -> str:
        """What is said of the denial; empty where it is allowed."""
        answer = self.ask(request, token)
        return "" if is_allowed(answer) else reason(answer)

    def decisions(self) -> list[dict[str, Any]]:
        """Every record of a decision."""
        lines = [line for file in sorted(self.spool.rglob("*.jsonl")) for line in file.read_bytes().splitlines()]
        return [record for line in lines if "verdict" in (record := json.loads(line)["record"])]

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self._log.read_text()
        status = health_pb2.HealthCheckResponse
        with grpc.insecure_channel(f"127.0.0.1:{self.ports.health}") as channel:
            ask = channel.unary_unary(authz_server.HEALTH_METHOD)
            try:
                answer = ask(health_pb2.HealthCheckRequest().SerializeToString(), timeout=1)
            except grpc.RpcError:
                return False
        return bool(status.FromString(answer).status == status.SERVING)


@dataclass(frozen=True)
class Tenant:
    """Somebody with the usual rights in one namespace and none elsewhere, and what is theirs."""

    server: ApiServer
    user: User
    namespace: str
    objects: Objects = field(repr=False)

    @property
    def place(self) -> Place:
        return Place(self.server, self.namespace)

    def attempt(self, kind: str, name: str, spec: dict[str, Any], namespace: str | None = None) -> str:
        """Apply as this user; what is said of the refusal, empty where it was accepted."""
        return try_apply(self.server, namespace or self.namespace, kind, name, spec, user=self.user)

    def make(self, kind: str, name: str, spec: dict[str, Any]) -> str:
        """Create as this user, without the time that kubectl takes."""
        return _said(lambda: self.objects.make(kind, name, spec))

    def edit(self, kind: str, name: str, spec: dict[str, Any]) -> str:
        """Patch the spec as this user."""
        return _said(lambda: self.objects.edit(kind, name, spec))

    def agent(self, name: str) -> tuple[PodName, str]:
        """A service account, its Agent, a pod, and the token of the pod's sidecar, all made by the admin."""
        self.place.account(name)
        assert try_apply(self.server, self.namespace, "Agent", name, {}) == ""
        pod = self.place.pod(f"{name}-1", name)
        return pod, self.place.token(pod, account=name)

    def tool_server(self, name: str = "tickets") -> None:
        """An MCP server behind a Service, with the tools `search` and `delete`."""
        Objects(self.server.client(), self.namespace).service(name, ports=[{"port": 80}])
        spec = {"protocol": "MCP", "service": {"name": name, "port": 80}, "tools": [{"name": "search"}, {"name": "delete"}]}
        assert try_apply(self.server, self.namespace, "ToolServer", name, spec) == ""


def _said(call: Any) -> str:
    try:
        call()
    except ApiException as error:
        return message_of(error)
    return ""


class Installation:
    """The processes, and the tenants of the cluster."""

    def __init__(self, server: ApiServer, webhooks: Process, authz: Authz, mounted: Mounted, folder: Path) -> None:
        self.server = server
        self.webhooks = webhooks
        self.authz = authz
        self.mounted = mounted
        self.folder = folder
        self._numbers = itertools.count(1)

    def tenant(self, labels: dict[str, str] | None = None, namespace: str | None = None) -> Tenant:
        """A user with the usual rights in a namespace: a new one, or `namespace`."""
        namespace = namespace or self.server.namespace(labels)
        user = self.server.user(f"tenant-{next(self._numbers)}")
        self.grant(user, namespace, OWN)
        return Tenant(self.server, user, namespace, Objects(self.server.client(user), namespace))

    def grant(self, user: User, namespace: str | None, rules: Sequence[tuple[str, str, str]]) -> None:
        """Give a user these rights, each (group, resources, verbs), in a namespace, or in the cluster."""
        kind, inside = ("ClusterRole", {}) if namespace is None else ("Role", {"namespace": namespace})
        name = f"granted-{next(self._numbers)}"
        common = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name, **inside}}
        described = [
            {"apiGroups": [group], "resources": resources.split(","), "verbs": verbs.split(",")} for group, resources, verbs in rules
        ]
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
        subjects = [{"kind": "User", "name": user.name, "apiGroup": "rbac.authorization.k8s.io"}]
        for manifest in (
            {**common, "kind": kind, "rules": described},
            {**common, "kind": f"{kind}Binding", "roleRef": reference, "subjects": subjects},
        ):
            self.server.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))


@contextmanager
def installed(server: ApiServer, folder: Path) -> Iterator[Installation]:
    """hopgate, running."""
    server.install(DEFINITIONS)
    for namespace in (SYSTEM, NAMESPACE):
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        server.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    Place(server, SYSTEM).account(ACCOUNT)
    mounted = Mounted(folder / "tls")
    authz = Authz(server, folder, mounted, "authz-1")
    (folder / "webhooks").mkdir()
    try:
        make_authz_service(server)
        with started(server, folder / "webhooks") as webhooks:
            webhooks.register()
            webhooks.await_certificate()
            bad = {"cedar": "permit ("}
            asked = lambda: "(InvalidSyntax)" in try_apply(server, "default", "Policy", "bad", bad, dry_run=True)  # noqa: E731
            eventually(asked, "the webhooks are asked")
            authz.start()
            yield Installation(server, webhooks, authz, mounted, folder)
    finally:
        authz.close()
