"""A node's pods as values: which containers they have, of which workload, and which container is the gate. Pure.

Read from objects of the API server (`v1` Pod, as JSON); what the kernel knows of them is looked up apart (`sensor.node_cgroups`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from hopgate.kubernetes import injection_found, sidecar
from hopgate.kubernetes.injection_found import GateState
from sensor.containers import Placement
from sensor.shadow_agents import Where
from sensor.sightings import Program

# What the kubelet calls a static pod in cgroups, instead of its UID at the API server.
_STATIC_POD: Final = "kubernetes.io/config.hash"
_TEMPLATE: Final = "pod-template-hash"
# A CronJob's Jobs are named for the minute that they are due.
_SCHEDULED: Final = re.compile(r"(.+)-\d{8,10}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container. `image_digest` has its algorithm, and is empty until the image is there."""

    name: str
    image_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePod:
    """One pod. `workload` is what it belongs to, `KIND/NAME`; `gate` tells whether it has the sidecar that governs it.

    `containers` are those that run or ran, by the runtime's id, `gate_container` the id of the gate's among them, empty until it runs.
    """

    uid: str
    namespace: str
    name: str
    service_account: str
    workload: str
    gate: GateState
    containers: Mapping[str, Container] = field(default_factory=dict)

    @property
    def gate_container(self) -> str:
        """The id of the container that is the gate; empty for none, and for one that only has its name."""
        if self.gate is not GateState.WHOLE:
            return ""
        return next((id_ for id_, each in self.containers.items() if each.name == sidecar.PROXY_CONTAINER), "")


def read(manifest: Mapping[str, Any]) -> NodePod:
    """The pod of an object."""
    metadata, spec, status = manifest["metadata"], manifest.get("spec") or {}, manifest.get("status") or {}
    annotations = metadata.get("annotations") or {}
    statuses = [
        each for kind in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses") for each in status.get(kind) or ()
    ]
    return NodePod(
        uid=str(annotations.get(_STATIC_POD) or metadata["uid"]),
        namespace=str(metadata["namespace"]),
        name=str(metadata["name"]),
        service_account=str(spec.get("serviceAccountName") or "default"),
        workload=_workload(metadata),
        gate=injection_found.find(manifest).state,
        containers={
            id_: Container(name=str(each.get("name") or ""), image_digest=_digest(str(each.get("imageID") or "")))
            for each in statuses
            if (id_ := str(each.get("containerID") or "").rpartition("/")[2])
        },
    )


def _workload(metadata: Mapping[str, Any]) -> str:
    owner = next((each for each in metadata.get("ownerReferences") or () if each.get("controller")), None)
    if owner is None:
        return f"Pod/{metadata['name']}"
    kind, name = str(owner.get("kind")), str(owner.get("name"))
    template = (metadata.get("labels") or {}).get(_TEMPLATE)
    if kind == "ReplicaSet" and template and name.endswith(f"-{template}"):
        return f"Deployment/{name.removesuffix(f'-{template}')}"
    if kind == "Job" and (scheduled := _SCHEDULED.fullmatch(name)):
        return f"CronJob/{scheduled[1]}"
    return f"{kind}/{name}"


def _digest(image_id: str) -> str:
    """Of `REPOSITORY@sha256:…` or `sha256:…`, as runtimes write it."""
    found = image_id.rpartition("@")[2].rpartition("//")[2]
    return found if ":" in found and "/" not in found else ""


def where(program: Program, pods: Mapping[str, NodePod], node: str) -> Where | None:
    """Where a program runs on `node`; None for one in a pod that is not known (yet)."""
    placed = program.placement
    if not placed.pod:
        return Where(node=node, container=placed.container, unit=placed.unit, cgroup=program.cgroup)
    pod = pods.get(placed.pod)
    container = pod.containers.get(placed.container) if pod is not None else None
    if pod is None or container is None:
        return None
    return Where(
        node=node,
        namespace=pod.namespace,
        workload=pod.workload,
        pod=pod.name,
        container=container.name,
        image_digest=container.image_digest,
        service_account=pod.service_account,
        cgroup=program.cgroup,
    )


def subject(program: Program, place: Where) -> Program:
    """The program as it is told of: one of a workload is the same in each of its pods, one of a node's own is of that node."""
    if place.namespace:
        same = Placement(pod=f"{place.namespace}/{place.workload}", container=place.container)
    else:
        same = replace(program.placement, pod=f"node/{place.node}")
    return replace(program, placement=same)


def index(pods: Iterable[NodePod]) -> dict[str, NodePod]:
    """By the UID that cgroups have."""
    return {pod.uid: pod for pod in pods}
