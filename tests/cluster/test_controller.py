"""`python -m hopgate.cluster controller` on a real API server, with the chart's rights and no others."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hopgate.identity.names import ObjectName
from hopgate.kubernetes import authz_state, keys
from hopgate.kubernetes.authz_state import AuthzState
from tests.cluster import controllers
from tests.cluster.api_server import ApiServer, eventually
from tests.cluster.controllers import Controller, condition, status
from tests.cluster.test_identity import Place
from tests.cluster.watching import Objects

GOOD = 'permit (principal == Hopgate::Agent::"{0}/planner", action, resource);'
AGENT = {"owner": "team-a", "serviceAccountName": "planner"}
TOOL = {"protocol": "MCP", "hosts": ["tickets.example.com"], "tools": [{"name": "search"}]}
MODEL = {"provider": "OpenAI", "hosts": ["models.example.com"]}
ISSUER = {"issuer": "https://users.example.com", "audiences": ["hopgate"], "jwksURI": "https://users.example.com/keys"}


@pytest.fixture(scope="module")
def server(cluster_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(cluster_binaries, tmp_path_factory.mktemp("cluster") / "controller") as found:
        yield found


@pytest.fixture(scope="module")
def controller(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    user = controllers.install(server)
    with controllers.running(server, user, tmp_path_factory.mktemp("controller")) as found:
        yield found


@pytest.fixture
def objects(controller: Controller) -> Objects:
    return Objects(controller.server.client(), controller.server.namespace())


def until(server: ApiServer, kind: str, name: str, namespace: str | None, wanted: tuple[str, str]) -> dict[str, Any]:
    """The status whose condition is as wanted: status and reason."""

    def found() -> dict[str, Any]:
        seen = status(server, kind, name, namespace)
        own = condition(seen)
        return seen if (own.get("status"), own.get("reason")) == wanted else {}

    return eventually(found, f"{kind} {name} is {wanted}", 20)


def test_each_kind_is_ready_or_valid(objects: Objects, server: ApiServer) -> None:
    namespace = objects.namespace
    objects.make("Agent", "planner", AGENT)
    objects.make("ToolServer", "tickets", TOOL)
    objects.make("ModelProvider", "models", MODEL)
    objects.make("IdentityProvider", "users", ISSUER)
    objects.make("Policy", "may", {"cedar": GOOD.format(namespace)})
    objects.make("ClusterPolicy", "floor", {"cedar": "forbid (principal, action, resource) when { context.chain.depth > 9 };"})
    for kind, name in (("Agent", "planner"), ("ToolServer", "tickets"), ("ModelProvider", "models"), ("Policy", "may")):
        found = until(server, kind, name, namespace, ("True", "InForce"))
        assert condition(found)["type"] == ("Valid" if kind == "Policy" else "Ready")
        assert found["observedGeneration"] == condition(found)["observedGeneration"] == 1
    assert condition(until(server, "ClusterPolicy", "floor", None, ("True", "InForce")))["type"] == "Valid"
    assert condition(until(server, "IdentityProvider", "users", None, ("True", "InForce")))["type"] == "Ready"
    assert status(server, "Policy", "may", namespace)["digest"] == hashlib.sha256(GOOD.format(namespace).encode()).hexdigest()
    objects.delete("ClusterPolicy", "floor")
    objects.delete("IdentityProvider", "users")


CREDENTIAL = {"header": "authorization", "secretRef": {"name": "not-there", "key": "key"}}
BAD = [
    ("Agent", {**AGENT, "service": {"name": "not-there", "port": 80}}, AGENT, "MissingService"),
    ("ToolServer", {**TOOL, "hosts": ["bad.example.com", "taken.example.com"]}, {**TOOL, "hosts": ["bad.example.com"]}, "DuplicateHost"),
    ("ModelProvider", {**MODEL, "hosts": ["llm.example.com"], "credential": CREDENTIAL}, {"credential": None}, "MissingSecret"),
    ("Policy", {"cedar": "permit ("}, {"cedar": "permit (principal, action, resource);"}, "InvalidSyntax"),
    ("ClusterPolicy", {"cedar": "forbid (principal, action"}, {"cedar": "permit (principal, action, resource);"}, "InvalidSyntax"),
    ("IdentityProvider", {**ISSUER, "issuer": "https://taken.example.com"}, {"issuer": "https://other.example.com"}, "DuplicateIssuer"),
]


def events(server: ApiServer, name: str, namespace: str) -> dict[str, Any]:
    """The events of objects of this name, by reason."""
    found = json.loads(server.kubectl("get", "events.events.k8s.io", "-n", namespace, "-o", "json"))["items"]
    return {each["reason"]: each for each in found if each["regarding"]["name"] == name}


@pytest.mark.parametrize(("kind", "bad", "good", "reason"), BAD, ids=[each[0] for each in BAD])
def test_a_mistake_is_told_with_its_reason_and_so_is_its_repair(
    objects: Objects, server: ApiServer, kind: str, bad: dict[str, Any], good: dict[str, Any], reason: str
) -> None:
    scoped = kind in {"ClusterPolicy", "IdentityProvider"}
    namespace = None if scoped else objects.namespace
    if reason == "DuplicateHost":
        objects.make("ToolServer", "owner", {**TOOL, "hosts": ["taken.example.com"]})
        until(server, "ToolServer", "owner", objects.namespace, ("True", "InForce"))
    if reason == "DuplicateIssuer":
        objects.make("IdentityProvider", "owner", {**ISSUER, "issuer": "https://taken.example.com"})
        until(server, "IdentityProvider", "owner", None, ("True", "InForce"))
    name = f"bad-{kind.lower()}"
    objects.make(kind, name, bad)
    found = until(server, kind, name, namespace, ("False", reason))
    assert "; " in condition(found)["message"]
    inside = () if namespace is None else ("-n", namespace)
    columns = server.kubectl("get", f"{kind.lower()}.hopgate.dev", name, *inside, "-o", "wide").split("\n")
    assert "False" in columns[1]
    assert reason in columns[1]
    told = eventually(lambda: events(server, name, namespace or "default").get(reason, {}), "an event tells")
    assert (told["type"], told["reportingController"]) == ("Warning", "hopgate.dev/controller")
    assert reason in server.kubectl("describe", f"{kind.lower()}.hopgate.dev", name, *inside)

    patch = json.dumps({"spec": {**({"service": None} if kind == "Agent" else {}), **good}})
    server.kubectl("patch", f"{kind.lower()}.hopgate.dev", name, *inside, "--type=merge", "-p", patch)
    found = until(server, kind, name, namespace, ("True", "InForce"))
    assert found["observedGeneration"] == condition(found)["observedGeneration"] == 2
    repaired = eventually(lambda: events(server, name, namespace or "default").get("InForce", {}), "the repair is told")
    assert repaired["type"] == "Normal"
    if scoped:
        objects.delete(kind, name)
    if reason == "DuplicateIssuer":
        objects.delete(kind, "owner")


def test_the_owner_of_a_host_in_another_namespace_is_not_named(objects: Objects, server: ApiServer) -> None:
    other = Objects(server.client(), server.namespace())
    other.make("ToolServer", "theirs", {**TOOL, "hosts": ["theirs.example.com"]})
    until(server, "ToolServer", "theirs", other.namespace, ("True", "InForce"))
    objects.make("ToolServer", "mine", {**TOOL, "hosts": ["theirs.example.com"]})
    message = condition(until(server, "ToolServer", "mine", objects.namespace, ("False", "DuplicateHost")))["message"]
    assert "belongs to an object of another namespace already" in message
    assert other.namespace not in message
    objects.make("ToolServer", "twin", {**TOOL, "hosts": ["twin.example.com"]})
    until(server, "ToolServer", "twin", objects.namespace, ("True", "InForce"))
    objects.edit("ToolServer", "mine", {"hosts": ["twin.example.com"]})
    eventually(
        lambda: f"ToolServer {objects.namespace}/twin" in condition(status(server, "ToolServer", "mine", objects.namespace))["message"],
        "the owner in the same namespace is named",
    )


def addresses(server: ApiServer, name: str, namespace: str) -> dict[str, str]:
    return {each["host"]: each["address"] for each in status(server, "ToolServer", name, namespace).get("addresses", [])}


def test_an_address_written_by_hand_is_put_right_and_told(objects: Objects, server: ApiServer) -> None:
    namespace = objects.namespace
    objects.make("ToolServer", "one", {**TOOL, "hosts": ["zone.example.com"]})
    objects.make("ToolServer", "two", {**TOOL, "hosts": ["alpha.example.com"]})
    for name in ("one", "two"):
        until(server, "ToolServer", name, namespace, ("True", "InForce"))
    one, two = addresses(server, "one", namespace), addresses(server, "two", namespace)
    assert one.keys() == {"zone.example.com"}
    for wrong in (one["zone.example.com"], "203.0.113.7"):
        objects.set_status("ToolServer", "two", {"addresses": [{"host": "alpha.example.com", "address": wrong}]})
        eventually(lambda: addresses(server, "two", namespace) == two, f"{wrong} is put right")
        assert addresses(server, "one", namespace) == one
    told = eventually(lambda: events(server, "two", namespace).get("AddressRepaired", {}), "the repair is told")
    assert "`alpha.example.com`" in told["note"]


def test_a_status_that_somebody_changed_is_mended_and_one_of_another_type_stays(objects: Objects, server: ApiServer) -> None:
    namespace = objects.namespace
    objects.make("Agent", "planner", AGENT)
    right = until(server, "Agent", "planner", namespace, ("True", "InForce"))
    own = {**condition(right), "status": "False", "reason": "Nonsense"}
    foreign = {**condition(right), "type": "example.com/Seen"}
    objects.set_status("Agent", "planner", {"observedGeneration": 7, "pods": 99, "conditions": [own, foreign]})

    def mended() -> dict[str, Any]:
        found = status(server, "Agent", "planner", namespace)
        ready = [each for each in found["conditions"] if each["type"] == "Ready"]
        return found if found["pods"] == 0 and found["observedGeneration"] == 1 and ready[0]["status"] == "True" else {}

    assert foreign in eventually(mended, "it is mended")["conditions"]


def test_nothing_is_written_twice(objects: Objects, server: ApiServer) -> None:
    objects.make("Agent", "quiet", AGENT)
    until(server, "Agent", "quiet", objects.namespace, ("True", "InForce"))

    def version() -> str:
        return server.kubectl("get", "agent.hopgate.dev", "quiet", "-n", objects.namespace, "-o", "jsonpath={.metadata.resourceVersion}")

    before = version()
    for number in range(5):
        objects.make("Agent", f"other-{number}", {"serviceAccountName": f"other-{number}"})
        until(server, "Agent", f"other-{number}", objects.namespace, ("True", "InForce"))
    assert version() == before


def test_running_pods_are_counted_and_decisions_are_told(objects: Objects, server: ApiServer) -> None:
    namespace = objects.namespace
    place = Place(server, namespace)
    for account in ("planner", "other"):
        place.account(account)
    objects.make("Agent", "planner", AGENT)
    for name, account in (("one", "planner"), ("two", "planner"), ("three", "other"), ("pending", "planner")):
        place.pod(name, account)
        if name != "pending":
            place.core.patch_namespaced_pod_status(name, namespace, {"status": {"phase": "Running"}})
    eventually(lambda: status(server, "Agent", "planner", namespace).get("pods") == 2, "two pods run")
    place.core.delete_namespaced_pod("one", namespace, grace_period_seconds=0)
    eventually(lambda: status(server, "Agent", "planner", namespace).get("pods") == 1, "one pod runs")
    assert "lastSeen" not in status(server, "Agent", "planner", namespace)

    now = int(time.time())
    state = AuthzState(
        version="1",
        started_at=now,
        snapshot_at=now,
        watches={},
        certificate_ends_at=now,
        key_made_at=now,
        allowed=1,
        denied=0,
        failed_open=0,
    )
    lease = {
        "apiVersion": keys.API_VERSION,
        "kind": keys.KIND,
        "metadata": {
            "name": "hopgate-keys-test",
            "labels": {keys.LABEL: keys.LABEL_VALUE},
            "annotations": authz_state.write(state, {ObjectName(namespace, "planner"): now - 5}),
        },
    }
    server.kubectl("apply", "-n", controllers.SYSTEM, "-f", "-", stdin=json.dumps(lease))
    seen = eventually(lambda: status(server, "Agent", "planner", namespace).get("lastSeen", ""), "the decision is told", 40)
    assert dt.datetime.fromisoformat(seen).timestamp() == now - 5
    [header, row] = server.kubectl("get", "agents.hopgate.dev", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "OWNER", "PODS", "READY", "LAST", "SEEN", "AGE"]
    assert row.split()[:4] == ["planner", "team-a", "1", "True"]


def test_the_authorities_are_kept(objects: Objects, server: ApiServer) -> None:
    governed = server.namespace({"hopgate.dev/inject": "enabled"})
    asked = ("get", "configmap", "hopgate-authorities", "-n", governed, "-o", "json", "--ignore-not-found")
    found = eventually(lambda: server.kubectl(*asked), "it is published")
    assert json.loads(found)["data"].keys() == {"authz.pem", "open-tls.pem", "private-authorities.json"}


def test_one_that_ends_gives_the_lease_up_and_the_next_one_leads(server: ApiServer, controller: Controller, tmp_path: Path) -> None:
    user = server.user(controllers.ACCOUNT)
    with controllers.running(server, user, tmp_path, "controller-2") as second:
        assert controllers.leader(server) == "controller-1"
        assert (second.probe("/readyz"), second.probe("/healthz")) == (200, 200)
        began = time.monotonic()
        controller.process.send_signal(signal.SIGTERM)
        assert controller.process.wait(30) == 0
        eventually(lambda: controllers.leader(server) == "controller-2", "the next one leads", 10)
        # Sooner than a Lease that is not given up lasts.
        assert time.monotonic() - began < 14
        objects = Objects(server.client(), server.namespace())
        objects.make("Agent", "planner", AGENT)
        until(server, "Agent", "planner", objects.namespace, ("True", "InForce"))
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(30) == 0
        assert "Traceback" not in second.log + controller.log
