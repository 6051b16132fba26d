"""The cluster's snapshot is the folder's, and the same in every process."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import yaml

from hopgate.identity.names import ObjectName
from hopgate.kubernetes.secrets import Found
from hopgate.manifests import snapshots as folder_snapshots
from hopgate.resources import parse
from hopgate.resources.kinds import DialAddress, Secret
from tests.hopgate.kubernetes.cluster_objects import NOW, build, manifest, reasons, service

ADDRESS = "198.18.7.7"


def hosts(number: int, **metadata: Any) -> dict[str, Any]:
    return manifest("ToolServer", f"t{number}", {"protocol": "HTTP", "hosts": [f"t{number}.example.com"]}, **metadata)


def addresses(built: Any) -> dict[str, str]:
    return {host: endpoint.address for host, endpoint in built.snapshot.registry.by_host.items()}


def test_the_same_manifests_give_what_a_folder_gives(repository: Path, tmp_path: Path) -> None:
    text = (repository / "tests" / "world" / "resources.yaml").read_text(encoding="utf-8")
    (tmp_path / "world.yaml").write_text(text, encoding="utf-8")
    expected = folder_snapshots.load(tmp_path, previous=None, now=NOW)
    documents = [each for each in yaml.safe_load_all(text) if each is not None]
    secrets = [parse.parse(each).resource for each in documents if each["kind"] == "Secret"]
    found = {each.name: Found(secret=each) for each in secrets if isinstance(each, Secret)}
    given = [{**each, "metadata": {**each["metadata"], "uid": str(n)}} for n, each in enumerate(documents) if each["kind"] != "Secret"]
    built = build(given, secrets=found.items())
    assert {problem.reason for problem in built.problems} <= {"MissingService"}
    assert built.snapshot.registry == expected.registry
    assert built.snapshot.policies.digest == expected.policies.digest
    assert built.snapshot.secrets == expected.secrets
    assert built.snapshot.identity_providers == expected.identity_providers


def test_two_processes_give_the_same_digest_and_addresses_whatever_they_saw_before() -> None:
    """Enough names that many hash to one address: there the order would tell."""
    everything = [hosts(number) for number in range(1500)]
    fresh = build(everything)
    assert len(set(addresses(fresh).values())) == 1500
    shuffled = random.Random(7).sample(everything, 1000)
    grown = build(everything, before=build(shuffled))
    assert addresses(grown) == addresses(fresh)
    assert grown.snapshot.digest == fresh.snapshot.digest


def test_the_digest_tells_of_a_change() -> None:
    one = build([hosts(1)])
    assert build([hosts(1), hosts(2)], before=one).snapshot.digest != one.snapshot.digest
    assert build([manifest("ToolServer", "t1", {"protocol": "MCP", "hosts": ["t1.example.com"]})]).snapshot.digest != one.snapshot.digest


def test_the_controllers_address_is_taken() -> None:
    assert addresses(build([hosts(1, addresses={"t1.example.com": ADDRESS})])) == {"t1.example.com": ADDRESS}


def test_an_address_that_the_controller_writes_later_is_taken() -> None:
    first = build([hosts(1)])
    assert addresses(build([hosts(1, addresses={"t1.example.com": ADDRESS})], before=first)) == {"t1.example.com": ADDRESS}
    assert build([hosts(1)], before=first).snapshot.registry is first.snapshot.registry


def test_an_address_of_another_range_or_of_anothers_name_is_not_taken() -> None:
    own = addresses(build([hosts(1)]))
    assert addresses(build([hosts(1, addresses={"t1.example.com": "198.19.0.7"})])) == own
    thief = hosts(2, addresses={"t1.example.com": ADDRESS})
    assert addresses(build([hosts(1), thief]))["t1.example.com"] == own["t1.example.com"]


def test_one_address_given_to_two_names_is_had_by_one_of_them() -> None:
    twice = [hosts(number, addresses={f"t{number}.example.com": ADDRESS}) for number in (1, 2)]
    found = addresses(build(twice))
    assert found["t1.example.com"] == ADDRESS
    assert found["t2.example.com"] != ADDRESS
    assert addresses(build(twice[::-1])) == found


def test_a_new_name_does_not_get_the_address_that_another_was_given() -> None:
    own = addresses(build([hosts(1)]))["t1.example.com"]
    found = addresses(build([hosts(1), hosts(2, addresses={"t2.example.com": own})]))
    assert found["t2.example.com"] == own
    assert found["t1.example.com"] != own


SERVED = {"service": {"name": "s", "port": 8080}}


def test_an_agent_is_dialled_at_its_service_by_its_gate() -> None:
    built = build([manifest("Agent", "a", SERVED)], services=[service("s", ip="10.96.0.9")])
    assert built.snapshot.upstreams.gates == {ObjectName("demo", "a"): DialAddress(ip="10.96.0.9", port=8080)}
    assert built.snapshot.registry.by_host["s.demo.svc"].dial is None
    assert built.problems == ()


def test_a_tool_server_is_dialled_at_its_service() -> None:
    made = manifest("ToolServer", "t", {"protocol": "MCP", **SERVED})
    built = build([made], services=[service("s", ip="10.96.0.9")])
    for name in ("s.demo.svc", "s.demo.svc.cluster.local"):
        endpoint = built.snapshot.registry.by_host[name]
        assert endpoint.dial == DialAddress(ip="10.96.0.9", port=8080)
        assert built.snapshot.registry.by_address[endpoint.address] is endpoint
    moved = build([made], before=built, services=[service("s", ip="10.96.0.10")])
    assert moved.snapshot.registry.by_host["s.demo.svc"].dial == DialAddress(ip="10.96.0.10", port=8080)


def test_an_address_of_its_own_goes_before_the_service() -> None:
    made = manifest("ToolServer", "t", {"protocol": "MCP", "address": "192.0.2.7", **SERVED})
    built = build([made], services=[service("s")])
    assert built.snapshot.registry.by_host["s.demo.svc"].dial == DialAddress(ip="192.0.2.7", port=8080)


def test_without_its_service_a_resource_is_registered_and_nothing_is_dialled() -> None:
    built = build(
        [manifest("ToolServer", "t", {"protocol": "MCP", **SERVED}), manifest("Agent", "a", {"service": {"name": "b", "port": 1}})]
    )
    assert built.snapshot.registry.by_host["s.demo.svc"].dial is None
    assert built.snapshot.upstreams.gates == {}
    assert reasons(built) == {"ToolServer demo/t": ("MissingService", "InForce"), "Agent demo/a": ("MissingService", "InForce")}
