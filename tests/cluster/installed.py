"""hopgate as people install it: the chart by Helm, on a node, with the images."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from deploy.images.build import Image
from tests.cluster.api_server import ApiServer, eventually
from tests.cluster.helm import CHART, NAMESPACE, RELEASE, Helm
from tests.cluster.node import Node

COMPONENTS: Final[Mapping[str, str]] = {
    "authz": "deployment",
    "webhooks": "deployment",
    "controller": "deployment",
    "sensor": "daemonset",
}
# Who makes tokens in a cluster of the tests; and a sensor that looks.
VALUES: Final[Mapping[str, Any]] = {"authz": {"tokenIssuer": "https://kubernetes.default.svc"}, "sensor": {"enabled": True}}
READY_SECONDS: Final = 300.0
_READ: Final = """
import json, pathlib
for file in sorted(pathlib.Path("/var/lib/hopgate/spool").rglob("*.jsonl")):
    print(file.read_text(), end="")
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """The release, on its node."""

    node: Node
    helm: Helm

    @property
    def server(self) -> ApiServer:
        """The node's API server."""
        return self.node.server

    def deploy(self, action: str = "install", values: Mapping[str, Any] = VALUES) -> None:
        """`helm install` or `helm upgrade`, and wait until every part of it is ready. Raises HelmError, TimeoutError."""
        self.helm.run(action, RELEASE, str(CHART), "--namespace", NAMESPACE, "--create-namespace", values=values, user=self.server.admin)
        self.wait_ready()

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until every pod of every part is there and of the present revision."""
        try:
            for component in COMPONENTS:
                eventually(functools.partial(self._is_ready, component), f"{component} is ready", seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.story()}") from error

    def story(self) -> str:
        """What became of its pods, for an error."""
        told = self.server.kubectl("get", "pods,events", "--namespace", NAMESPACE, "--output", "wide")
        return told + "".join(f"--- {pod}\n{self._log(pod)}" for pod in self.pods())

    def pods(self, component: str = "") -> Sequence[str]:
        """The names of its pods, of one part or of all."""
        chosen = f"app.kubernetes.io/instance={RELEASE}" + (f",app.kubernetes.io/component={component}" if component else "")
        found = self.server.kubectl(
            "get", "pods", "--namespace", NAMESPACE, "--selector", chosen, "--output", "jsonpath={.items[*].metadata.name}"
        )
        return found.split()

    def records(self, component: str = "authz") -> list[dict[str, Any]]:
        """Every record that the running pods of a part have written, in the order of their identifiers."""
        lines = [
            line for pod in self.pods(component) for line in self.node.execute(NAMESPACE, pod, "python", "-c", _READ).splitlines() if line
        ]
        return [json.loads(line)["record"] for line in lines]

    def decisions(self, namespace: str) -> list[dict[str, Any]]:
        """The records of decisions on what agents of a namespace did, oldest first."""
        found = [record for record in self.records() if "verdict" in record and record["caller"].startswith(f"{namespace}/")]
        return sorted(found, key=lambda record: str(record["time"]))

    def _log(self, pod: str) -> str:
        return self.server.kubectl("logs", "--namespace", NAMESPACE, pod, "--tail=20", "--all-containers", "--ignore-errors")

    def _is_ready(self, component: str) -> bool:
        self.server.check()
        kind = COMPONENTS[component]
        found = json.loads(self.server.kubectl("get", kind, f"{RELEASE}-{component}", "--namespace", NAMESPACE, "--output", "json"))
        status = found.get("status", {})
        if status.get("observedGeneration") != found["metadata"]["generation"]:
            return False
        if kind == "daemonset":
            wanted = status["desiredNumberScheduled"]
            return bool(wanted and status.get("numberReady") == status.get("updatedNumberScheduled") == wanted)
        wanted = found["spec"]["replicas"]
        return bool(status.get("readyReplicas") == status.get("updatedReplicas") == status.get("replicas") == wanted)


def install(node: Node, helm: Helm, images: Mapping[str, Image]) -> Installed:
    """Install it on a node that has the images."""
    assert {image.name for image in images.values()} <= node.images()
    installed = Installed(node, helm)
    installed.deploy()
    return installed
