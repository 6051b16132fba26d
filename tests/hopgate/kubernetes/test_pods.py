"""Pods are read from the API's objects; the index names a pod by its uid, and by its address where that is its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopgate.kubernetes import pods
from hopgate.kubernetes.pods import Pod, Pods

PLANNER = Pod(uid="u1", namespace="demo", name="planner-1", service_account="planner", ips=("10.0.0.1", "fd00::1"), ready=True)


def manifest(**status: Any) -> dict[str, Any]:
    usual = {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
        "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
    }
    return {
        "metadata": {"uid": "u1", "namespace": "demo", "name": "planner-1"},
        "spec": {"serviceAccountName": "planner", "containers": []},
        "status": {name: value for name, value in (usual | status).items() if value is not None},
    }


def test_a_running_pod_is_read() -> None:
    assert pods.read(manifest()) == PLANNER


@pytest.mark.parametrize(
    ("status", "changed"),
    [
        pytest.param({"phase": "Pending", "podIPs": None, "podIP": None, "conditions": None}, {"ips": (), "ready": False}, id="new"),
        pytest.param({"conditions": [{"type": "Ready", "status": "False"}]}, {"ready": False}, id="not ready"),
        pytest.param({"phase": "Unknown"}, {}, id="on a node that is not heard of"),
    ],
)
def test_a_pod_exists_in_every_phase_but_the_last(status: dict[str, Any], changed: dict[str, Any]) -> None:
    assert pods.read(manifest(**status)) == replace(PLANNER, **changed)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_does_not_exist(phase: str) -> None:
    assert pods.read(manifest(phase=phase)) is None


def test_a_pod_that_is_being_deleted_exists_until_it_is_gone() -> None:
    deleting = manifest()
    deleting["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}
    assert pods.read(deleting) == PLANNER


def test_a_pod_without_a_service_account_of_its_own_runs_as_default() -> None:
    bare = manifest()
    del bare["spec"]["serviceAccountName"]
    assert pods.read(bare) == replace(PLANNER, service_account="default")


class TestIndex:
    other = Pod(uid="u2", namespace="demo", name="writer-1", service_account="writer", ips=("10.0.0.2",))

    def test_finds_by_uid_and_by_every_address(self) -> None:
        index = Pods.of((PLANNER, self.other))
        assert index.by_uid == {"u1": PLANNER, "u2": self.other}
        assert [index.at(ip) for ip in ("10.0.0.1", "fd00::1", "10.0.0.2", "10.0.0.9")] == [PLANNER, PLANNER, self.other, None]
        assert len(index) == 2

    def test_an_address_that_two_pods_have_names_neither_until_one_is_gone(self) -> None:
        third = replace(self.other, uid="u3", ips=("10.0.0.1", "10.0.0.3"))
        index = Pods.of((PLANNER, third))
        assert [index.at(ip) for ip in ("10.0.0.1", "fd00::1", "10.0.0.3")] == [None, PLANNER, third]
        assert index.remove("u1").at("10.0.0.1") == third
        assert index.put(replace(third, ips=())).at("10.0.0.1") == PLANNER

    def test_a_nodes_address_names_no_pod(self) -> None:
        assert Pods.of((replace(PLANNER, host_network=True),)).at("10.0.0.1") is None

    def test_a_change_leaves_the_value_before_as_it_was(self) -> None:
        before = Pods.of((PLANNER,))
        after = before.put(self.other).remove("u1")
        assert (before, after) == (Pods.of((PLANNER,)), Pods.of((self.other,)))

    def test_what_changes_nothing_gives_the_same_value(self) -> None:
        index = Pods.of((PLANNER,))
        assert index.put(replace(PLANNER)) is index
        assert index.remove("gone") is index

    @given(
        changes=st.lists(
            st.one_of(
                st.builds(
                    Pod,
                    uid=st.sampled_from("abc"),
                    namespace=st.just("demo"),
                    name=st.sampled_from("xy"),
                    service_account=st.just("default"),
                    ips=st.lists(st.sampled_from("123"), unique=True, max_size=2).map(tuple),
                    host_network=st.booleans(),
                ),
                st.sampled_from("abc"),
            )
        )
    )
    def test_any_order_of_changes_gives_the_index_of_what_is_left(self, changes: list[Pod | str]) -> None:
        index, left = Pods(), dict[str, Pod]()
        for change in changes:
            if isinstance(change, Pod):
                index, left[change.uid] = index.put(change), change
            else:
                index = index.remove(change)
                left.pop(change, None)
        expected = Pods.of(left.values())
        assert index.by_uid == expected.by_uid
        assert {ip: index.at(ip) for ip in "123"} == {ip: expected.at(ip) for ip in "123"}
        assert set(index.by_ip) == set(expected.by_ip)
