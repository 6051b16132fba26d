"""A cluster's worth of objects, written into a real API server: 50 namespaces with agents, tool servers, policies and pods."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from hopgate.kubernetes import injection
from hopgate.kubernetes.client import Client
from hopgate.kubernetes.injection import Injected
from hopgate.kubernetes.injection_settings import NamespaceFacts
from tests.hopgate.kubernetes.injection import json_patches
from tests.hopgate.kubernetes.injection.pods import SETTINGS

NAMESPACES, PODS, AGENTS, TOOL_SERVERS = 50, 5000, 1000, 500
WRITERS = 8
API = "/apis/hopgate.dev/v1alpha1"
SCHEMA = {"type": "object", "properties": {"limit": {"type": "integer"}, "text": {"type": "string"}}, "required": ["limit"]}


@dataclass(frozen=True, kw_only=True)
class Write:
    """One object and where it is posted."""

    path: str
    body: Mapping[str, Any]


def rule(namespace: str, agent: str, server: str, tool: str) -> dict[str, str]:
    """A policy that lets one agent call one tool."""
    principal, resource = f'Hopgate::Agent::"{namespace}/{agent}"', f'Hopgate::Tool::"{namespace}/{server}/{tool}"'
    condition = " when { context.arguments.limit <= 100 }" if tool == "search" else ""
    return {"cedar": f'permit (principal == {principal}, action == Hopgate::Action::"CallTool", resource == {resource}){condition};'}


def resource(namespace: str, kind: str, name: str, spec: Mapping[str, Any]) -> Write:
    """One of hopgate's objects."""
    plural = {"Agent": "agents", "ToolServer": "toolservers", "Policy": "policies"}[kind]
    body = {"apiVersion": "hopgate.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return Write(path=f"{API}/namespaces/{namespace}/{plural}", body=body)


def service(namespace: str, name: str) -> Write:
    """A Service at port 80."""
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}}
    return Write(path=f"/api/v1/namespaces/{namespace}/services", body=body)


def tool_server(namespace: str, name: str) -> Iterator[Write]:
    """An MCP server with a Service and three tools."""
    yield service(namespace, name)
    tools = [{"name": "search", "inputSchema": SCHEMA}, {"name": "other"}, {"name": "third"}]
    yield resource(namespace, "ToolServer", name, {"protocol": "MCP", "service": {"name": name, "port": 80}, "tools": tools})


def pod(name: str, account: str, **metadata: Any) -> dict[str, Any]:
    """A pod with two probes, as a Deployment's template has it."""
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10}
    container = {
        "name": "app",
        "image": "planner:1",
        "ports": [{"containerPort": 8080}],
        "env": [{"name": "OPENAI_API_KEY", "value": "sk-bench"}, {"name": "MODE", "value": "bench"}],
        "securityContext": {"runAsUser": 1000},
        "readinessProbe": probe,
        "livenessProbe": probe,
    }
    spec = {"serviceAccountName": account, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}


def _injected(made: dict[str, Any], namespace: str) -> Any:
    outcome = injection.inject(made, namespace=NamespaceFacts(name=namespace, governed=True), settings=SETTINGS, may_opt_out=False)
    if not isinstance(outcome, Injected):
        raise RuntimeError(f"the pod is not injected: {outcome}")
    return json_patches.apply(made, outcome.patch)


def objects() -> Iterator[Write]:
    """Everything, an object after what it needs."""
    for number in range(NAMESPACES):
        yield from _namespace(f"bench-{number}")


def names() -> list[str]:
    """The namespaces."""
    return [f"bench-{number}" for number in range(NAMESPACES)]


def _namespace(namespace: str) -> Iterator[Write]:
    agents, servers = AGENTS // NAMESPACES, TOOL_SERVERS // NAMESPACES
    for number in range(servers):
        yield from tool_server(namespace, f"tools-{number}")
    for number in range(agents):
        yield resource(namespace, "Agent", f"agent-{number}", {"owner": f"team-{number % 7}"})
        yield resource(namespace, "Policy", f"agent-{number}", rule(namespace, f"agent-{number}", f"tools-{number % servers}", "search"))
    path = f"/api/v1/namespaces/{namespace}/pods"
    for number in range(PODS // NAMESPACES):
        yield Write(path=path, body=_injected(pod(f"pod-{number}", f"agent-{number % agents}", namespace=namespace), namespace))


def small() -> Iterator[Write]:
    """An agent with its policy and its tool server, in `bench-0` and in `bench-1`."""
    for namespace, number in (("bench-0", 0), ("bench-1", 3)):
        yield from tool_server(namespace, f"tools-{number}")
        yield resource(namespace, "Agent", f"agent-{number}", {})
        yield resource(namespace, "Policy", f"agent-{number}", rule(namespace, f"agent-{number}", f"tools-{number}", "search"))


def write(client: Client, writes: Iterable[Write], writers: int = WRITERS) -> int:
    """Write all, several at a time; gives how many there were."""
    with ThreadPoolExecutor(writers) as pool:
        return sum(1 for _ in pool.map(lambda each: client.call("POST", each.path, each.body), writes))


def make_namespaces(client: Client, given: Iterable[str], labels: Mapping[str, str] | None = None) -> None:
    """These namespaces."""
    bodies = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}} for name in given]
    write(client, [Write(path="/api/v1/namespaces", body=body) for body in bodies])


def size(value: Any) -> int:
    """Bytes as JSON."""
    return len(json.dumps(value))
