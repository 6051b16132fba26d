"""The processes of an installed chart, each started as its Deployment says and as its service account: the tests in the kubelet's place."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import yaml

from authz import server as authz_server
from authz.pb import health_pb2
from tests.cluster.api_server import ApiServer, ClusterError, eventually, free_ports
from tests.cluster.helm import NAMESPACE
from tests.cluster.test_identity import Place


class ChartProcess:
    """One container of one Deployment, as a pod `NAME-1` that exists."""

    def __init__(self, server: ApiServer, folder: Path, name: str) -> None:
        self.server, self.name = server, name
        self.folder = folder / name
        self.folder.mkdir()
        found = json.loads(server.kubectl("get", "deployment", name, "-n", NAMESPACE, "-o", "json"))
        self._pod = found["spec"]["template"]["spec"]
        [container] = self._pod["containers"]
        self._container = container
        self._mounts = {mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", ())}
        place = Place(server, NAMESPACE)
        pod = place.pod(f"{name}-1", self._pod["serviceAccountName"])
        token = place.token(pod, account=self._pod["serviceAccountName"], audience=None, seconds=3600)
        self._process: subprocess.Popen[bytes] | None = None
        self.ports: dict[str, int] = {}
        self._command = (sys.executable, *container["command"][1:])
        known = {"$(POD_NAME)": pod.name, "$(POD_UID)": pod.uid}
        self._arguments = [self._placed(argument, known) for argument in container["args"]]
        self._arguments.append(f"--kubeconfig={self._kubeconfig(token)}")
        self._log = self.folder / "log"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen((*self._command, *self._arguments), stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def mount(self) -> None:
        """Wait for the Secrets that it mounts, and put their files where it looks."""
        for volume in self._pod.get("volumes", ()):
            if "secret" not in volume:
                continue
            data = eventually(lambda: self._data(volume["secret"]["secretName"]), f"{volume['secret']['secretName']} is made")  # noqa: B023 - called at once
            folder = self._placed_folder(self._mounts[volume["name"]])
            folder.mkdir(parents=True, exist_ok=True)
            for item in volume["secret"]["items"]:
                (folder / item["path"]).write_bytes(base64.b64decode(data[item["key"]]))

    def ready(self) -> bool:
        """What the readiness probe of its container finds."""
        self.check()
        probe = self._container["readinessProbe"]
        if "grpc" in probe:
            return self._is_serving()
        asked = probe["httpGet"]
        if asked.get("scheme") == "HTTPS":
            # As the kubelet does, which looks at no certificate.
            context = ssl._create_unverified_context()  # noqa: S323
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                "127.0.0.1", self.ports["listen"], timeout=5, context=context
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.ports["health"], timeout=5)
        try:
            connection.request("GET", asked["path"])
            return connection.getresponse().status == http.HTTPStatus.OK
        except OSError:
            return False
        finally:
            connection.close()

    def check(self) -> None:
        """That it runs, and was refused nothing."""
        assert self._process is not None
        assert self._process.poll() is None, self.log
        assert "forbidden" not in self.log, self.log

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _is_serving(self) -> bool:
        with grpc.insecure_channel(f"127.0.0.1:{self.ports['health']}") as channel:
            ask = channel.unary_unary(authz_server.HEALTH_METHOD)
            try:
                answer = ask(health_pb2.HealthCheckRequest().SerializeToString(), timeout=1)
            except grpc.RpcError:
                return False
        return bool(health_pb2.HealthCheckResponse.FromString(answer).status == health_pb2.HealthCheckResponse.SERVING)

    def _data(self, secret: str) -> Mapping[str, str]:
        try:
            return dict(json.loads(self.server.kubectl("get", "secret", secret, "-n", NAMESPACE, "-o", "json"))["data"])
        except ClusterError:
            return {}

    def _placed(self, argument: str, known: Mapping[str, str]) -> str:
        """An argument with the pod's own facts, this machine's ports, and folders below the test's."""
        option, _, value = argument.partition("=")
        value = known.get(value, value)
        if value.startswith("[::]:"):
            self.ports[option.removeprefix("--")] = free_ports(1)[0]
            value = f"127.0.0.1:{self.ports[option.removeprefix('--')]}"
        if value.startswith("/"):
            value = str(self._placed_folder(value))
        return f"{option}={value}"

    def _placed_folder(self, path: str) -> Path:
        return self.folder / path.removeprefix("/")

    def _kubeconfig(self, token: str) -> Path:
        found = yaml.safe_load(self.server.admin.kubeconfig.read_text())
        found["users"][0]["user"] = {"token": token}
        file = self.folder / "kubeconfig"
        file.write_text(json.dumps(found))
        return file


@contextmanager
def running(server: ApiServer, folder: Path, names: Sequence[str]) -> Iterator[dict[str, ChartProcess]]:
    """Processes by the names of their Deployments, started in this order."""
    with ExitStack() as stack:
        found: dict[str, ChartProcess] = {}
        for name in names:
            found[name] = ChartProcess(server, folder, name)
            stack.callback(found[name].stop)
            if name == "hopgate-authz":
                found[name].mount()
            found[name].start()
        for each in found.values():
            each.mount()
            eventually(each.ready, f"{each.name} is ready")
        yield found


def listing(server: ApiServer) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Every object that the API server has, by kind, namespace and name, but for events, which it forgets by itself."""
    kinds = server.kubectl("api-resources", "--verbs=list", "-o", "name").split()
    wanted = ",".join(kind for kind in kinds if not kind.startswith(("events", "componentstatuses")))
    items = json.loads(server.kubectl("get", wanted, "--all-namespaces", "-o", "json"))["items"]
    return {(each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each["metadata"] for each in items}
