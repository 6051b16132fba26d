"""An agent's pod and what it may reach, on a node where hopgate is installed: a plain HTTP server in a namespace that is not governed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from tests.cluster.helm import NAMESPACE
from tests.cluster.installed import Installed

# Debian with Python; it runs whatever user a pod asks for.
IMAGE: Final = "localhost/hopgate-base:1"
PERMITTED_PATH: Final = "/etc/hostname"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """`agents` is the governed namespace, with the agent `caller`; `tools` has the server `web`."""

    installed: Installed
    agents: str
    tools: str

    @property
    def url(self) -> str:
        """The server, as the agent calls it."""
        return f"http://web.{self.tools}.svc:8080"

    @property
    def agent(self) -> str:
        """As records name it."""
        return f"{self.agents}/caller"

    def address(self, version: int) -> str:
        """The server's own address of one family."""
        found = self.installed.server.kubectl("get", "pod", "web", "-n", self.tools, "-o", "jsonpath={.status.podIPs[*].ip}").split()
        return next(each for each in found if (":" in each) == (version == 6))

    def run(self, pod: str, program: str, *arguments: str) -> str:
        """What a Python program writes in the app's container."""
        return self.installed.node.execute(self.agents, pod, "python3", "-c", program, *arguments, container="app")


def make(installed: Installed) -> Place:
    """The namespaces, what is registered, one permit, and the server, ready."""
    node = installed.node
    place = Place(installed=installed, agents=node.namespace({"hopgate.dev/inject": "enabled"}), tools=node.namespace())
    cedar = (
        f'@id("reads") permit (principal == Hopgate::Agent::"{place.agent}", action == Hopgate::Action::"HttpRequest", '
        f'resource == Hopgate::ToolServer::"{place.tools}/web") when {{ context.http.path == "{PERMITTED_PATH}" }};'
    )
    server = {
        "name": "app",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["python3", "-m", "http.server", "8080", "--bind", "::"],
    }
    node.apply(
        _of("v1", "ServiceAccount", place.agents, "caller"),
        _of("hopgate.dev/v1alpha1", "Agent", place.agents, "caller", {"owner": "team-a"}),
        _of("v1", "Service", place.tools, "web", {"selector": {"app": "web"}, "ports": [{"port": 8080}]}),
        _of("hopgate.dev/v1alpha1", "ToolServer", place.tools, "web", {"protocol": "HTTP", "service": {"name": "web", "port": 8080}}),
        pod(place.tools, "web", server, labels={"app": "web"}),
    )
    node.apply(_of("hopgate.dev/v1alpha1", "ClusterPolicy", None, f"reads-{place.tools}", {"cedar": cedar}))
    node.wait_ready(place.tools, "web")
    return place


def pod(namespace: str, name: str, container: dict[str, Any], *, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A pod that ends at once when it is told to."""
    made = _of("v1", "Pod", namespace, name, {"terminationGracePeriodSeconds": 0, "containers": [container], **spec})
    made["metadata"]["labels"] = labels or {}
    return made


def waiting(**more: Any) -> dict[str, Any]:
    """A container that waits."""
    return {"name": "app", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "infinity"], **more}


def start_agent(place: Place, name: str, **more: Any) -> str:
    """Start a pod of the agent, wait until it is ready, and give its name."""
    place.installed.node.apply(pod(place.agents, name, waiting(**more), serviceAccountName="caller"))
    place.installed.node.wait_ready(place.agents, name)
    return name


def failed_open(installed: Installed) -> int:
    """How many answers of all authz processes let a hop pass although something had failed."""
    leases = json.loads(
        installed.server.kubectl("get", "leases", "-n", NAMESPACE, "-l", "hopgate.dev/component=hop-token-keys", "-o", "json")
    )
    states = [json.loads(each["metadata"]["annotations"]["hopgate.dev/state"]) for each in leases["items"]]
    assert states
    return sum(int(state["failedOpen"]) for state in states)


def _of(version: str, kind: str, namespace: str | None, name: str, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    metadata = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
    made: dict[str, Any] = {"apiVersion": version, "kind": kind, "metadata": metadata}
    return made if spec is None else {**made, "spec": spec}
