"""Who of a node's pods is governed, whose a program is, and which cgroups are to be cut off."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from hopgate.kubernetes import sidecar
from hopgate.kubernetes.injection_found import GateState
from sensor import node_governance, node_pods
from sensor.containers import Placement
from sensor.events import TCP, UDP, Endpoint
from sensor.node_cgroups import ContainerCgroup, Found
from sensor.node_governance import Registered, Shadow
from sensor.node_pods import Container, NodePod
from sensor.quarantine import Destination
from sensor.sightings import Program

APP, GATE = "a" * 64, "b" * 64
POD = NodePod(
    uid="one",
    namespace="demo",
    name="bot-5d8f-x",
    service_account="planner",
    workload="Deployment/bot",
    gate=GateState.WHOLE,
    containers={
        APP: Container(name="app", image_digest="sha256:00"),
        GATE: Container(name=sidecar.PROXY_CONTAINER),
    },
)
FOUND = Found(
    cgroups=(
        ContainerCgroup(pod="one", container=APP, cgroup_id=1),
        ContainerCgroup(pod="one", container=APP, cgroup_id=11),
        ContainerCgroup(pod="one", container=GATE, cgroup_id=2),
    ),
    namespaces={"one": 7},
)
AGENTS = {("demo", "planner"): Registered(name="demo/plan")}
GATED = replace(POD, gate=GateState.WHOLE)
UNGATED = replace(POD, gate=GateState.NONE)


def governance(pod: NodePod, agents: Any = AGENTS, found: Found = FOUND) -> Any:
    return node_governance.governance({"one": pod}, agents, found)


def test_a_pod_with_the_gate_is_governed_and_its_sidecar_is_the_gate() -> None:
    made = governance(GATED)
    [governed] = made.agents
    assert (governed.agent, governed.cgroups, governed.namespaces) == ("demo/plan", {1, 11}, {7})
    assert made.gate_cgroups == {2}
    assert {(each.protocol, each.endpoint.port, each.cgroup_id) for each in governed.listeners} == {
        (TCP, sidecar.OUTBOUND_PORT, 2),
        (TCP, sidecar.DNS_PORT, 2),
        (UDP, sidecar.DNS_PORT, 2),
    }
    assert {each.endpoint.ip for each in governed.listeners} == {ip_address("127.0.0.1"), ip_address("::1")}


@pytest.mark.parametrize(
    ("gate", "agents", "agent"),
    [
        (GateState.WHOLE, AGENTS, "demo/plan"),
        (GateState.WHOLE, {}, "demo/planner"),
        (GateState.BROKEN, {}, "demo/planner"),
        (GateState.NONE, AGENTS, "demo/plan"),
        (GateState.NONE, {}, ""),
        (GateState.NONE, {("other", "planner"): Registered(name="other/plan")}, ""),
    ],
)
def test_whose_a_pod_is(gate: GateState, agents: Any, agent: str) -> None:
    pod = replace(POD, gate=gate)
    assert node_governance.agent_of(pod, agents) == agent
    assert [each.agent for each in governance(pod, agents).agents] == ([agent] if agent else [])


@pytest.mark.parametrize(
    ("told", "app"),
    [
        ({}, set()),
        ({APP: Container(name="app")}, {1, 11}),
        ({GATE: Container(name=sidecar.PROXY_CONTAINER)}, {1, 11}),
    ],
    ids=["nothing yet", "the app only", "the gate, which starts first"],
)
def test_what_may_be_the_gate_is_nobodys_until_it_is_known(told: dict[str, Container], app: set[int]) -> None:
    """Else its own connections would be the agent's, around itself."""
    assert [set(governed.cgroups) for governed in governance(replace(GATED, containers=told)).agents] == ([app] if app else [])


@pytest.mark.parametrize("gate", [GateState.BROKEN, GateState.NONE])
def test_a_container_that_only_has_the_gates_name_is_no_gate(gate: GateState) -> None:
    made = governance(replace(POD, gate=gate))
    assert made.gate_cgroups == frozenset()
    [governed] = made.agents
    assert (governed.cgroups, governed.listeners) == ({1, 2, 11}, ())


def test_an_agent_that_is_cut_off_keeps_its_gate() -> None:
    agents = {("demo", "planner"): Registered(name="demo/plan", quarantine=True)}
    made = node_governance.wanted({"one": GATED}, agents, (), FOUND)
    assert [(each.cgroup_id, each.subject) for each in made] == [(1, "demo/plan"), (11, "demo/plan")]
    assert Destination(Endpoint(ip_address("::1"), sidecar.OUTBOUND_PORT), TCP) in made[0].allowed
    assert node_governance.wanted({"one": GATED}, AGENTS, (), FOUND) == ()


@pytest.mark.parametrize(
    ("change", "cut"),
    [
        ({}, [1, 11]),
        ({"namespace": "other"}, []),
        ({"workload": "Deployment/other"}, []),
        ({"container": "other"}, []),
        ({"container": sidecar.PROXY_CONTAINER}, []),
    ],
)
def test_a_shadow_agent_is_its_container_in_each_pod_of_its_workload(change: dict[str, str], cut: list[int]) -> None:
    where = {"namespace": "demo", "workload": "Deployment/bot", "container": "app", **change}
    shadow = Shadow(name="bot-1", quarantine=True, where=where)
    made = node_governance.wanted({"one": GATED}, {}, (shadow,), FOUND)
    assert [each.cgroup_id for each in made] == cut
    assert {each.subject for each in made} <= {"bot-1"}
    assert node_governance.wanted({"one": GATED}, {}, (replace(shadow, quarantine=False),), FOUND) == ()


@pytest.mark.parametrize(
    ("gate", "agents", "quarantine", "uids"),
    [
        (GateState.WHOLE, {}, False, {"one"}),
        (GateState.NONE, AGENTS, False, {"one"}),
        (GateState.NONE, {}, True, {"one"}),
        (GateState.NONE, {}, False, set()),
    ],
)
def test_pods_of_nobody_are_not_looked_for(gate: GateState, agents: Any, quarantine: bool, uids: set[str]) -> None:
    where = {"namespace": "demo", "workload": "Deployment/bot", "container": "app"}
    pods = {"one": replace(POD, gate=gate)}
    assert node_governance.concerned(pods, agents, [Shadow(name="bot-1", quarantine=quarantine, where=where)]) == uids
    assert node_governance.concerned(pods, {}, [Shadow(name="x", quarantine=True, where={**where, "container": "other"})]) <= {
        pod.uid for pod in pods.values() if pod.gate is not GateState.NONE
    }


def manifest(owner: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    status = {"name": "app", "containerID": f"containerd://{APP}", "imageID": "registry.example.com/bot@sha256:00"}
    owners = {"ownerReferences": [{**owner, "controller": True}]} if owner else {}
    return {
        "metadata": {"uid": "one", "namespace": "demo", "name": "bot-5d8f-x", **owners, **metadata},
        "spec": {},
        "status": {"containerStatuses": [status]},
    }


@pytest.mark.parametrize(
    ("owner", "labels", "workload"),
    [
        (None, {}, "Pod/bot-5d8f-x"),
        ({"kind": "ReplicaSet", "name": "bot-5d8f"}, {"pod-template-hash": "5d8f"}, "Deployment/bot"),
        ({"kind": "ReplicaSet", "name": "bot-5d8f"}, {}, "ReplicaSet/bot-5d8f"),
        ({"kind": "Job", "name": "bot-29384710"}, {}, "CronJob/bot"),
        ({"kind": "Job", "name": "bot-once"}, {}, "Job/bot-once"),
        ({"kind": "StatefulSet", "name": "bot"}, {}, "StatefulSet/bot"),
    ],
)
def test_what_a_pod_belongs_to(owner: dict[str, str] | None, labels: dict[str, str], workload: str) -> None:
    assert node_pods.read(manifest(owner, labels=labels)).workload == workload


def test_what_is_read_of_a_pod() -> None:
    found = node_pods.read(manifest())
    assert found == NodePod(
        uid="one",
        namespace="demo",
        name="bot-5d8f-x",
        service_account="default",
        workload="Pod/bot-5d8f-x",
        gate=GateState.NONE,
        containers={APP: Container(name="app", image_digest="sha256:00")},
    )
    assert node_pods.read(manifest(annotations={"kubernetes.io/config.hash": "0" * 32})).uid == "0" * 32


def test_where_a_program_runs() -> None:
    program = Program(name="bot", placement=Placement(pod="one", container=APP), cgroup="/kubepods/one")
    found = node_pods.where(program, {"one": POD}, "node-1")
    assert found is not None
    assert found.fields() == {
        "node": "node-1",
        "namespace": "demo",
        "workload": "Deployment/bot",
        "pod": "bot-5d8f-x",
        "container": "app",
        "imageDigest": "sha256:00",
        "serviceAccount": "planner",
        "cgroup": "/kubepods/one",
    }
    assert node_pods.where(program, {}, "node-1") is None
    unit = replace(program, placement=Placement(unit="bot.service"))
    outside = node_pods.where(unit, {"one": POD}, "node-1")
    assert outside is not None
    assert outside.fields() == {"node": "node-1", "unit": "bot.service", "cgroup": "/kubepods/one"}


def test_a_workloads_program_is_one_and_those_of_two_nodes_are_two() -> None:
    program = Program(name="bot", placement=Placement(pod="one", container=APP))
    other = replace(program, placement=Placement(pod="two", container="c" * 64))
    pods = {"one": POD, "two": replace(POD, uid="two", containers={"c" * 64: Container(name="app")})}

    def told(each: Program, node: str) -> str:
        place = node_pods.where(each, pods, node)
        assert place is not None
        return node_pods.subject(each, place).id

    assert told(program, "node-1") == told(other, "node-2")
    unit = Program(name="bot", placement=Placement(unit="bot.service"))
    assert told(unit, "node-1") != told(unit, "node-2")
