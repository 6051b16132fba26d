"""Who of a node's pods is governed, and who is to be cut off: values in, values out. Pure.

An agent is known by its pod's service account. A pod with the gate in it is governed; one without, whose service account an `Agent` has, is
known too, and what it does goes around the gate.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final

from hopgate.kubernetes import sidecar
from hopgate.kubernetes.injection_found import GateState
from sensor.events import TCP, UDP, Endpoint
from sensor.node_cgroups import ContainerCgroup, Found
from sensor.node_pods import NodePod
from sensor.quarantine import Destination, Wanted
from sensor.verdict import Governance, Governed, Listener

# Where the capture rules turn a pod's packets to (`hopgate.proxy.rules`).
_LOOPBACK: Final = (ip_address("127.0.0.1"), ip_address("::1"))
_LISTENS: Final = ((TCP, sidecar.OUTBOUND_PORT), (TCP, sidecar.DNS_PORT), (UDP, sidecar.DNS_PORT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """An `Agent`: `namespace/name`, and whether it is to be cut off."""

    name: str
    quarantine: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """A `ShadowAgent` as people decided about it. `where` is of its status."""

    name: str
    quarantine: bool = False
    where: Mapping[str, Any] = field(default_factory=dict)


# Agents by namespace and name of their service account.
Agents = Mapping[tuple[str, str], Registered]


def agent_of(pod: NodePod, agents: Agents) -> str:
    """The agent that a pod is; empty for a pod that is none's."""
    registered = agents.get((pod.namespace, pod.service_account))
    if registered is not None:
        return registered.name
    return "" if pod.gate is GateState.NONE else f"{pod.namespace}/{pod.service_account}"


def concerned(pods: Mapping[str, NodePod], agents: Agents, shadows: Iterable[Shadow]) -> frozenset[str]:
    """The pods, by UID, that `governance` and `wanted` can say something about: agents', and those with a container to be cut off."""
    cut = {_place_of(shadow) for shadow in shadows if shadow.quarantine}
    return frozenset(
        pod.uid
        for pod in pods.values()
        if agent_of(pod, agents) or any((pod.namespace, pod.workload, each.name) in cut for each in pod.containers.values())
    )


def governance(pods: Mapping[str, NodePod], agents: Agents, found: Found) -> Governance:
    """What verdicts go by."""
    gates = {each.cgroup_id for each in found.cgroups if _is_gate(each, pods)}
    return Governance(
        agents=tuple(
            Governed(
                agent=agent,
                cgroups=frozenset(_app_cgroups(pod, found.cgroups)),
                namespaces=frozenset({found.namespaces[pod.uid]} if pod.uid in found.namespaces else ()),
                listeners=_listeners(pod, found.cgroups),
            )
            for pod in sorted(pods.values(), key=lambda each: each.uid)
            # Without a cgroup its namespace alone would tell, which its gate is in, too.
            if (agent := agent_of(pod, agents)) and _app_cgroups(pod, found.cgroups)
        ),
        gate_cgroups=frozenset(gates),
    )


def wanted(pods: Mapping[str, NodePod], agents: Agents, shadows: Iterable[Shadow], found: Found) -> tuple[Wanted, ...]:
    """The containers' cgroups that resources ask to be cut off; a gate never is, and stays reachable for its own pod."""
    asked: dict[int, Wanted] = {}
    for pod in pods.values():
        registered = agents.get((pod.namespace, pod.service_account))
        if registered is not None and registered.quarantine:
            allowed = frozenset(Destination(each.endpoint, each.protocol) for each in _listeners(pod, found.cgroups))
            for number in _app_cgroups(pod, found.cgroups):
                asked[number] = Wanted(cgroup_id=number, subject=registered.name, allowed=allowed)
    for shadow in shadows:
        if shadow.quarantine:
            for number in cgroups_of(shadow, pods, found.cgroups):
                asked.setdefault(number, Wanted(cgroup_id=number, subject=shadow.name))
    return tuple(asked[number] for number in sorted(asked))


def cgroups_of(shadow: Shadow, pods: Mapping[str, NodePod], found: Iterable[ContainerCgroup]) -> tuple[int, ...]:
    """The cgroups, on this node, of the container that a shadow agent runs in, in every pod of its workload."""
    numbers = []
    for each in found:
        pod = pods.get(each.pod)
        if pod is None or _is_gate(each, pods):
            continue
        container = pod.containers.get(each.container)
        if container is not None and (pod.namespace, pod.workload, container.name) == _place_of(shadow):
            numbers.append(each.cgroup_id)
    return tuple(numbers)


def _place_of(shadow: Shadow) -> tuple[object, object, object]:
    """Namespace, workload and container, as a pod has them."""
    return shadow.where.get("namespace"), shadow.where.get("workload"), shadow.where.get("container")


def _is_gate(each: ContainerCgroup, pods: Mapping[str, NodePod]) -> bool:
    pod = pods.get(each.pod)
    return pod is not None and bool(each.container) and pod.gate_container == each.container


def _app_cgroups(pod: NodePod, found: Collection[ContainerCgroup]) -> tuple[int, ...]:
    """Those that are not the gate's. Until the API server tells which container the gate is, one that it has not told of may be the gate,
    which starts first; from then on it is the app's.
    """
    own = [each for each in found if each.pod == pod.uid and each.container != pod.gate_container]
    if pod.gate is GateState.WHOLE and not pod.gate_container:
        own = [each for each in own if each.container in pod.containers]
    return tuple(each.cgroup_id for each in own)


def _listeners(pod: NodePod, found: Iterable[ContainerCgroup]) -> tuple[Listener, ...]:
    own = [each.cgroup_id for each in found if each.pod == pod.uid and pod.gate_container and each.container == pod.gate_container]
    return tuple(
        Listener(protocol=protocol, endpoint=Endpoint(ip, port), cgroup_id=number)
        for number in own
        for ip in _LOOPBACK
        for protocol, port in _LISTENS
    )
