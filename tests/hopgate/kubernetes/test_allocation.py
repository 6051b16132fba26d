"""Which address each name of a cluster is given: the one that every process gives it, kept while the name is there, and nobody else's."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hopgate.kubernetes import allocation
from hopgate.kubernetes.allocation import Allocation
from hopgate.kubernetes.snapshots import Built
from hopgate.resources import addresses
from hopgate.resources.addresses import RANGES
from hopgate.resources.kinds import Tls
from hopgate.resources.reference import ObjectReference
from tests.hopgate.kubernetes import cluster_objects
from tests.hopgate.kubernetes.cluster_objects import manifest, service

HOST = "tickets.example.com"


def reference(name: str, kind: str = "ToolServer") -> ObjectReference:
    return ObjectReference(kind=kind, namespace="demo", name=name)


def tool(name: str, *hosts: str, tls: str = "Open") -> dict[str, object]:
    return manifest("ToolServer", name, {"protocol": "MCP", "hosts": list(hosts), "tls": tls})


def allocate(built: Built, stands: Mapping[str, Mapping[str, str]] | None = None, own: Mapping[str, str] | None = None) -> Allocation:
    found = {reference(name): given for name, given in (stands or {}).items()}
    return allocation.allocate(built.objects, built.forms, found, own or {})


def natural(host: str, tls: Tls = Tls.OPEN) -> str:
    return addresses.allot({host: tls}, {})[host]


def twins() -> tuple[str, str]:
    """Two names with one hash."""
    seen: dict[str, str] = {}
    for number in range(2_000):
        name = f"host-{number}.example.com"
        other = seen.setdefault(natural(name), name)
        if other != name:
            first, second = sorted((other, name))
            return first, second
    raise AssertionError("expected two names with one hash")


def test_what_every_process_answers_is_what_is_given() -> None:
    agent = manifest("Agent", "planner", {"service": {"name": "planner", "port": 8080}})
    built = cluster_objects.build([tool("one", HOST, "other.example.com"), agent], services=[service("planner")])
    found = allocate(built)
    for host, endpoint in built.snapshot.registry.by_host.items():
        if not host.endswith(".cluster.local"):
            assert found.by_name[host] == endpoint.address
    assert found.by_object[reference("one")] == {host: found.by_name[host] for host in (HOST, "other.example.com")}
    assert found.by_object[reference("planner", "Agent")].keys() == {"planner.demo.svc"}


def test_what_stands_there_is_kept_and_so_is_what_may_have_been_written() -> None:
    built = cluster_objects.build([tool("one", HOST)])
    assert allocate(built, {"one": {HOST: "198.18.3.4"}}).by_name == {HOST: "198.18.3.4"}
    assert allocate(built, own={HOST: "198.18.3.5"}).by_name == {HOST: "198.18.3.5"}
    assert allocate(built, {"one": {HOST: "198.18.3.4"}}, {HOST: "198.18.3.5"}).by_name == {HOST: "198.18.3.4"}


@pytest.mark.parametrize("wrong", ["203.0.113.7", "198.18.128.9", "198.18.0.0"])
def test_what_is_of_no_range_or_of_another_is_put_right(wrong: str) -> None:
    built = cluster_objects.build([tool("one", HOST)])
    assert allocate(built, {"one": {HOST: wrong}}).by_name == {HOST: natural(HOST)}


def test_another_treatment_of_tls_moves_a_name_to_its_range() -> None:
    before = allocate(cluster_objects.build([tool("one", HOST)]))
    after = allocate(cluster_objects.build([tool("one", HOST, tls="Sealed")]), {"one": before.by_name}, before.by_name)
    assert IPv4Address(after.by_name[HOST]) in RANGES[Tls.SEALED]


def test_of_two_with_one_address_it_stays_with_the_one_whose_hash_it_is() -> None:
    for thief in ("alpha.example.com", "zone.example.com"):
        built = cluster_objects.build([tool("one", HOST), tool("two", thief)])
        stands = {"one": {HOST: natural(HOST)}, "two": {thief: natural(HOST)}}
        assert allocate(built, stands).by_name == {HOST: natural(HOST), thief: natural(thief)}


def test_of_two_names_with_one_hash_the_one_that_has_it_keeps_it() -> None:
    first, second = twins()
    built = cluster_objects.build([tool("one", first), tool("two", second)])
    alone = natural(first)
    for holder in (first, second):
        own = "one" if holder == first else "two"
        found = allocate(built, {own: {holder: alone}}).by_name
        assert found[holder] == alone
        assert len(set(found.values())) == 2
    assert allocate(built, {"one": {first: alone}, "two": {second: alone}}).by_name[first] == alone


def test_an_object_with_a_mistake_keeps_its_addresses_and_nobody_gets_them() -> None:
    broken = manifest("ToolServer", "broken", {"protocol": "Nonsense", "hosts": [HOST]})
    first, second = twins()
    built = cluster_objects.build([broken, tool("two", second)])
    found = allocate(built, {"broken": {HOST: "198.18.3.4", first: natural(first)}})
    assert found.by_object[reference("broken")] == {HOST: "198.18.3.4", first: natural(first)}
    assert found.by_object[reference("two")][second] != natural(second)


def test_a_name_that_another_object_has_now_is_taken_away() -> None:
    broken = manifest("ToolServer", "broken", {"protocol": "Nonsense", "hosts": [HOST]})
    built = cluster_objects.build([broken, tool("two", HOST)])
    found = allocate(built, {"broken": {HOST: natural(HOST)}})
    assert found.by_object[reference("broken")] == {}
    assert found.by_object[reference("two")] == {HOST: natural(HOST)}


@settings(max_examples=200)
@given(
    previous=st.dictionaries(
        st.integers(0, 30).map(lambda number: f"host-{number}.example.com"),
        st.integers(0, 40).map(lambda number: str(IPv4Address("198.18.127.240") + number)),
    )
)
def test_no_two_names_have_one_address_whatever_stands_there(previous: dict[str, str]) -> None:
    wanted = {f"host-{number}.example.com": Tls.OPEN if number % 2 else Tls.SEALED for number in range(25)}
    found = addresses.allot(wanted, previous)
    assert found.keys() == wanted.keys()
    assert len(set(found.values())) == len(found)
    assert all(IPv4Address(address) in RANGES[wanted[name]] for name, address in found.items())
    # Settled: who takes what was settled for what stands there settles the same.
    assert addresses.allot(wanted, found) == found
