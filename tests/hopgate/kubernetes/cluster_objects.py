"""Objects as an API server would give them, and what is built from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hopgate.identity.names import ObjectName
from hopgate.kubernetes import objects, snapshots
from hopgate.kubernetes.claims import Forms
from hopgate.kubernetes.objects import ClusterObject, ClusterService
from hopgate.kubernetes.secrets import Found
from hopgate.kubernetes.snapshots import Built, Seen
from hopgate.policy.question import Action, Entity, Judgement, Question
from hopgate.resources import parse
from hopgate.resources.kinds import Secret

NOW = 1_800_000_000
CLUSTER_SCOPED = {"ClusterPolicy", "IdentityProvider", "ShadowAgent"}


def manifest(
    kind: str,
    name: str,
    spec: Mapping[str, Any] | None = None,
    *,
    namespace: str = "demo",
    uid: str | None = None,
    generation: int = 1,
    created: str = "2026-01-01T00:00:00Z",
    addresses: Mapping[str, str] | None = None,
    **metadata: Any,
) -> dict[str, Any]:
    named = {"name": name} if kind in CLUSTER_SCOPED else {"name": name, "namespace": namespace}
    written = {"uid": uid or f"{kind}/{namespace}/{name}", "generation": generation, "creationTimestamp": created, **metadata}
    found: dict[str, Any] = {"apiVersion": "hopgate.dev/v1alpha1", "kind": kind, "metadata": {**named, **written}, "spec": dict(spec or {})}
    if addresses is not None:
        found["status"] = {"addresses": [{"host": host, "address": address} for host, address in addresses.items()]}
    return found


def read(*manifests: Mapping[str, Any], before: Built | None = None) -> list[ClusterObject]:
    """Read as the cache does: what has not changed since `before` is the same value."""
    forms: Forms = {} if before is None else before.forms
    references = [objects.refer(each) for each in manifests]
    found = [objects.read(each, None if own is None else forms.get(own)) for each, own in zip(manifests, references, strict=True)]
    assert None not in found
    return [each for each in found if each is not None]


def service(name: str, *, namespace: str = "demo", ip: str = "10.96.0.7", port: int = 8080) -> ClusterService:
    found = objects.read_service(
        {"kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip, "ports": [{"port": port}]}}
    )
    assert found is not None
    return found


def secret(name: str, namespace: str = "demo", **values: str) -> tuple[ObjectName, Found]:
    metadata = {"name": name, "namespace": namespace}
    found = parse.parse({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}).resource
    assert isinstance(found, Secret)
    return found.name, Found(secret=found)


def build(
    manifests: Iterable[Mapping[str, Any]],
    *,
    before: Built | None = None,
    services: Iterable[ClusterService] = (),
    secrets: Iterable[tuple[ObjectName, Found]] = (),
) -> Built:
    seen = Seen(
        objects={each.reference: each for each in read(*manifests, before=before)},
        services={each.name: each for each in services},
        secrets=dict(secrets),
    )
    return snapshots.build(seen, before, NOW)


def reasons(built: Built) -> dict[str, tuple[str, str]]:
    """The last problem of each object: what it is, and what is in force."""
    return {str(problem.reference): (problem.reason, problem.kept.value) for problem in built.problems}


def ask(built: Built, tool: str = "demo/tickets/search", agent: str = "demo/planner", arguments: dict[str, Any] | None = None) -> Judgement:
    """What the policies say of a call of a tool."""
    namespace, server, _ = tool.split("/")
    return built.snapshot.policies.judge(
        Question(
            principal=Entity("Agent", agent),
            action=Action.CALL_TOOL,
            resource=Entity("Tool", tool),
            server=Entity("ToolServer", f"{namespace}/{server}"),
            context={
                "now": NOW,
                "chain": {"depth": 1, "actors": [agent]},
                "http": {"method": "POST", "path": "/mcp", "host": "tickets.example.com"},
                "arguments": arguments or {},
            },
            caller_namespace=agent.partition("/")[0],
            destination_namespace=namespace,
        )
    )
