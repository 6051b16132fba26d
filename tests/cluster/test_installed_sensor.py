"""The sensor as an installation has it, on a node: who calls models unregistered, who is cut off, and who goes around the gate."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.cluster import around_gate, governed_pods, model_callers
from tests.cluster.api_server import eventually
from tests.cluster.governed_pods import PERMITTED_PATH, Place
from tests.cluster.helm import NAMESPACE
from tests.cluster.installed import VALUES, Installed
from tests.cluster.model_callers import ACCOUNT, MODEL, OTHER, WAYS, Callers
from tests.cluster.node import NAME

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]

TOLD_SECONDS: Final = 10.0
CUT_SECONDS: Final = 1.0
_GET: Final = """
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=20) as answer:
    print(answer.status)
"""


@pytest.fixture(scope="module")
def callers(installed: Installed) -> Callers:
    """`model` calls a model's API all the time, `other` something else; neither is registered, and the namespace has no label."""
    made = model_callers.make(installed.node)
    made.start("model", MODEL)
    made.start("other", OTHER)
    return made


@pytest.fixture(scope="module")
def enforcing(installed: Installed) -> Iterator[Installed]:
    """The installation, whose sensor may cut off, for the rest of the module."""
    installed.deploy("upgrade", {**VALUES, "sensor": {"enabled": True, "enforce": True}})
    yield installed
    installed.deploy("upgrade")


@pytest.fixture(scope="module")
def place(enforcing: Installed) -> Place:
    return governed_pods.make(enforcing)


@pytest.fixture(scope="module")
def app(place: Place) -> str:
    """The id of the app's container in a governed pod that has called what it may."""
    governed_pods.start_agent(place, "caller")
    assert place.run("caller", _GET, f"{place.url}{PERMITTED_PATH}").strip() == "200"
    statuses = json.loads(place.installed.server.kubectl("get", "pod", "caller", "-n", place.agents, "-o", "json"))["status"]
    [found] = [each["containerID"] for each in statuses["containerStatuses"] if each["name"] == "app"]
    return str(found).rpartition("/")[2]


def shadows(callers: Callers) -> list[dict[str, Any]]:
    """The ShadowAgents of the callers' namespace; the node's machine may have others."""
    items = json.loads(callers.node.server.kubectl("get", "shadowagents", "-o", "json"))["items"]
    return [each for each in items if each.get("status", {}).get("where", {}).get("namespace") == callers.namespace]


def the_shadow(callers: Callers) -> dict[str, Any]:
    """The only one."""
    found = eventually(lambda: shadows(callers), "the caller is told", TOLD_SECONDS)
    assert len(found) == 1, [each["status"] for each in found]
    return found[0]


def condition(installed: Installed, shadow: dict[str, Any]) -> str:
    """The reason of its condition `Quarantined`; empty before there is one."""
    found = json.loads(installed.server.kubectl("get", "shadowagent", shadow["metadata"]["name"], "-o", "json"))
    conditions = {each["type"]: each for each in found.get("status", {}).get("conditions", ())}
    return str(conditions.get("Quarantined", {}).get("reason", ""))


def test_a_caller_of_a_model_is_told_with_its_pod_and_another_is_not(callers: Callers) -> None:
    eventually(lambda: callers.ways("model", "ok"), "it has called")
    found = the_shadow(callers)
    where = found["status"]["where"]
    where.pop("cgroup")
    assert where == {
        "node": NAME,
        "namespace": callers.namespace,
        "workload": "Pod/model",
        "pod": "model",
        "container": "app",
        "imageDigest": callers.image("model"),
        "serviceAccount": ACCOUNT,
    }
    assert [each["host"] for each in found["status"]["reached"]] == [MODEL]
    assert not found["spec"]["quarantine"]
    since = time.time()
    eventually(lambda: callers.ways("other", "ok", since) == WAYS, "the other one goes on calling")
    assert [each["metadata"]["name"] for each in shadows(callers)] == [found["metadata"]["name"]]


def test_a_sensor_that_only_looks_cuts_nobody_off_and_says_so(installed: Installed, callers: Callers) -> None:
    found = the_shadow(callers)
    _set(installed, found, quarantine=True)
    eventually(lambda: condition(installed, found) == "EnforcementOff", "it is said that nothing is done")
    since = time.time()
    eventually(lambda: callers.ways("model", "ok", since) == WAYS, "it goes on calling")
    assert "hopgate" not in installed.node.run("ls", "/sys/fs/bpf").split()
    _set(installed, found, quarantine=False)


def test_who_is_to_be_cut_off_is_within_a_second_and_stays_so_without_the_sensor(enforcing: Installed, callers: Callers) -> None:
    found = the_shadow(callers)
    before = time.time()
    eventually(lambda: callers.ways("model", "ok", before) == WAYS, "both families work, over connections that stay and new ones")
    _set(enforcing, found, quarantine=True)
    asked = time.time()
    eventually(lambda: callers.ways("model", "PermissionError", asked) == WAYS, "it is told that it may not")
    assert callers.ways("model", "ok", asked + CUT_SECONDS) == set()
    eventually(lambda: condition(enforcing, found) == "Enforced", "it is said that it is cut off")
    for pod in enforcing.pods("sensor"):
        enforcing.server.kubectl("delete", "pod", pod, "-n", NAMESPACE, "--force", "--grace-period=0")
    killed = time.time()
    enforcing.wait_ready()
    eventually(lambda: callers.ways("model", "PermissionError", killed) == WAYS, "it is still told that it may not")
    assert callers.ways("model", "ok", asked + CUT_SECONDS) == set()
    _set(enforcing, found, quarantine=False)
    released = time.time()
    eventually(lambda: callers.ways("model", "ok", released) == WAYS, "it may again")
    assert {each.said for each in callers.outcomes("other", before)} == {"ok"}


def test_what_a_governed_pod_does_goes_through_the_gate(enforcing: Installed, place: Place, app: str) -> None:
    del app

    def through() -> list[dict[str, Any]]:
        return [each for each in flows(enforcing, place.agent) if each["verdict"] == "ThroughGate" and each["protocol"] == "TCP"]

    eventually(through, "its connection was seen", TOLD_SECONDS)
    found = [each for each in flows(enforcing, place.agent) if each["verdict"] == "Bypass"]
    assert [(each["reason"], each["program"], each["user"], each["destination"], each["went"], each["time"]) for each in found] == []


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("way", ["as the proxy's user", "in the node's network"])
def test_what_goes_around_the_gate_is_told(enforcing: Installed, place: Place, app: str, version: int, way: str) -> None:
    known = {each["id"] for each in flows(enforcing, place.agent)}
    address = place.address(version)
    user, namespace, reason = {
        "as the proxy's user": (around_gate.PROXY_USER, None, "NotRedirected"),
        "in the node's network": (0, enforcing.node.pid, "OtherNamespace"),
    }[way]
    assert around_gate.connect(app, address, 8080, user=user, namespace=namespace) == "HTTP/1.0 200"

    def told() -> list[dict[str, Any]]:
        return [each for each in flows(enforcing, place.agent) if each["id"] not in known and each["verdict"] == "Bypass"]

    found = eventually(told, "it is told", TOLD_SECONDS)
    shown = f"[{address}]" if version == 6 else address
    assert {(each["reason"], each["destination"]) for each in found} == {(reason, f"{shown}:8080")}


def flows(installed: Installed, agent: str) -> list[dict[str, Any]]:
    """The rows of `flows` of an agent, from the running sensors' records."""
    return [record for record in installed.records("sensor") if "attribution" in record and record["agent"] == agent]


def _set(installed: Installed, shadow: dict[str, Any], *, quarantine: bool) -> None:
    change = json.dumps({"spec": {"quarantine": quarantine}})
    installed.server.kubectl("patch", "shadowagent", shadow["metadata"]["name"], "--type=merge", "-p", change)
