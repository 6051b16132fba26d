"""One object as the API server gives it."""

from __future__ import annotations

from typing import Any

import pytest

from hopgate.identity.names import ObjectName
from hopgate.kubernetes import objects
from hopgate.kubernetes.objects import ServiceRefusal
from hopgate.resources.kinds import Agent, DialAddress
from tests.hopgate.kubernetes.cluster_objects import manifest, read, service

SERVICE = {"service": {"name": "planner", "port": 8080}}


def test_an_object_is_read_as_a_folder_reads_it() -> None:
    [found] = read(manifest("Agent", "planner", {"owner": "team-a"}))
    assert found.resource == Agent(name=ObjectName("demo", "planner"), service_account_name="planner", owner="team-a")
    assert found.mistakes == ()


def test_an_object_with_a_mistake_is_kept_with_its_mistakes() -> None:
    [found] = read(manifest("Agent", "planner", {"owners": "team-a"}))
    assert found.resource is None
    assert [mistake.code for mistake in found.mistakes] == ["UnknownField"]


def test_what_is_being_deleted_is_gone_though_a_finaliser_holds_it() -> None:
    assert objects.read(manifest("Agent", "planner", deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["a"])) is None
    assert objects.read(manifest("Agent", "planner", finalizers=["a"])) is not None


def test_a_spec_of_the_same_generation_is_not_read_again() -> None:
    [first] = read(manifest("Agent", "planner", SERVICE))
    later = manifest("Agent", "planner", SERVICE, addresses={"planner.demo.svc": "198.19.0.9"}, resourceVersion="7")
    again = objects.read(later, first)
    assert again is not None
    assert again.resource is first.resource
    assert again.addresses == {"planner.demo.svc": "198.19.0.9"}


@pytest.mark.parametrize("changed", [{"generation": 2}, {"uid": "another"}], ids=["a new generation", "another object of the same name"])
def test_what_may_have_another_spec_is_read_again(changed: dict[str, Any]) -> None:
    [first] = read(manifest("Agent", "planner", {"owner": "team-a"}))
    again = objects.read(manifest("Agent", "planner", {"owner": "team-b"}, **changed), first)
    assert again is not None
    assert isinstance(again.resource, Agent)
    assert again.resource.owner == "team-b"


def test_an_address_that_is_none_is_not_taken() -> None:
    [found] = read(manifest("Agent", "planner", SERVICE, addresses={"a.svc": "198.19.0.09", "b.svc": "nonsense", "c.svc": "198.19.0.9"}))
    assert found.addresses == {"c.svc": "198.19.0.9"}


def test_the_digest_is_of_the_spec_and_the_name() -> None:
    one, same, status, other, renamed = read(
        manifest("Agent", "planner", {"owner": "a", "version": "1"}),
        manifest("Agent", "planner", {"version": "1", "owner": "a"}, uid="x", generation=9),
        manifest("Agent", "planner", {"owner": "a", "version": "1"}, addresses={"x": "198.19.0.9"}),
        manifest("Agent", "planner", {"owner": "b", "version": "1"}),
        manifest("Agent", "planer", {"owner": "a", "version": "1"}),
    )
    assert one.digest == same.digest == status.digest
    assert len({one.digest, other.digest, renamed.digest}) == 3


AGENT = Agent(name=ObjectName("demo", "planner"), service_account_name="planner", service=None)


def raw_service(**spec: Any) -> dict[str, Any]:
    return {
        "kind": "Service",
        "metadata": {"name": "planner", "namespace": "demo"},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.7", "ports": [{"port": 8080, "protocol": "TCP"}], **spec},
    }


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"type": "ExternalName", "externalName": "example.com", "clusterIP": None}, "ExternalName"),
        ({"clusterIP": "None"}, "headless"),
        ({"clusterIP": ""}, "no cluster IP"),
        ({"ports": [{"port": 8081, "protocol": "TCP"}]}, "no TCP port 8080; it has: 8081"),
        ({"ports": [{"port": 8080, "protocol": "UDP"}]}, "no TCP port 8080; it has: none"),
    ],
    ids=["ExternalName", "headless", "no address yet", "another port", "UDP"],
)
def test_a_service_that_cannot_be_dialled_is_refused_with_its_reason(spec: dict[str, Any], words: str) -> None:
    [agent] = read(manifest("Agent", "planner", SERVICE))
    found = objects.read_service(raw_service(**spec))
    assert found is not None
    assert agent.resource is not None
    refusal = objects.dial(agent.resource, {found.name: found})
    assert isinstance(refusal, ServiceRefusal)
    assert refusal.code == "UnusableService"
    assert words in refusal.message


@pytest.mark.parametrize("address", ["10.96.0.7", "fd00::7"])
def test_a_service_with_a_cluster_ip_is_dialled_there(address: str) -> None:
    [agent] = read(manifest("Agent", "planner", SERVICE))
    found = objects.read_service(raw_service(clusterIP=address))
    assert found is not None
    assert agent.resource is not None
    assert objects.dial(agent.resource, {found.name: found}) == DialAddress(ip=address, port=8080)


def test_a_service_of_another_namespace_is_not_taken() -> None:
    [agent] = read(manifest("Agent", "planner", SERVICE))
    other = service("planner", namespace="other")
    assert agent.resource is not None
    refusal = objects.dial(agent.resource, {other.name: other})
    assert isinstance(refusal, ServiceRefusal)
    assert refusal.code == "MissingService"
