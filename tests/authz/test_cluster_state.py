"""What a process of a cluster has in force follows what it is told, and says what it still lacks."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from authz.cluster_state import ClusterState
from authz.workloads_cluster import ClusterWorkloads
from hopgate.identity.names import ObjectName
from hopgate.kubernetes import keys as published_keys
from hopgate.kubernetes.keys import AuthzPods, PodReference
from hopgate.manifests import snapshots
from hopgate.snapshot import ResolvedHost, Snapshot
from tests.tokenmint.service_accounts import AUDIENCE, ISSUER, JWKS
from tokenmint.keys import KeyRing
from tokenmint.shared_keys import SharedKeys

NOW = 1_800_000_000
AUTHZ = AuthzPods(namespace="hopgate", service_account="authz")
OWN = PodReference(namespace="hopgate", name="authz-1", uid="own")


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return snapshots.load(Path(__file__).parent.parent / "world", previous=None, now=int(time.time()))


class Told:
    """A state, and the keys that it keeps."""

    def __init__(self) -> None:
        self.keys = SharedKeys(KeyRing.create(NOW))
        workloads = ClusterWorkloads(issuer=ISSUER, audience=AUDIENCE, request_keys=lambda: None)
        self.state = ClusterState(workloads=workloads, keys=self.keys, authz=AUTHZ, pod=OWN, clock=lambda: NOW)

    def known(self) -> set[str]:
        return set(self.keys.public_keys(NOW))


def pod(name: str, uid: str, account: str = "authz", namespace: str = "hopgate", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": uid},
        "spec": {"serviceAccountName": account},
        "status": {"phase": "Running", **status},
    }


def lease(name: str, uid: str, ring: KeyRing) -> dict[str, Any]:
    return published_keys.manifest(PodReference(namespace="hopgate", name=name, uid=uid), ring.jwks(NOW), NOW)


def test_says_what_it_lacks_until_it_knows_all(snapshot: Snapshot) -> None:
    state = Told().state
    lacking = [len(state.missing)]
    state.snapshot_changed(snapshot)
    lacking.append(len(state.missing))
    state.pods.listed([pod("authz-1", "own")])
    lacking.append(len(state.missing))
    state.jwks_read(JWKS)
    lacking.append(len(state.missing))
    state.leases.listed([])
    lacking.append(len(state.missing))
    state.leases.changed(lease("authz-1", "own", KeyRing.create(NOW)))
    lacking.append(len(state.missing))
    assert lacking == [5, 4, 3, 2, 1, 0]


def test_no_check_is_answered_before_there_is_a_snapshot(snapshot: Snapshot) -> None:
    state = Told().state
    with pytest.raises(RuntimeError, match="no snapshot"):
        _ = state.snapshot
    state.snapshot_changed(snapshot)
    assert state.snapshot.digest == snapshot.digest


def test_pods_come_change_and_go() -> None:
    state = Told().state
    state.pods.listed([pod("a", "1"), pod("b", "2"), pod("done", "3") | {"status": {"phase": "Succeeded"}}])
    assert set(state.workloads.cluster.pods.by_uid) == {"1", "2"}
    state.pods.changed(pod("c", "4"))
    state.pods.changed(pod("b", "2") | {"status": {"phase": "Failed"}})
    state.pods.removed(pod("a", "1"))
    assert set(state.workloads.cluster.pods.by_uid) == {"4"}
    state.pods.listed([pod("d", "5")])
    assert set(state.workloads.cluster.pods.by_uid) == {"5"}


def test_the_agent_of_an_address_is_that_of_its_pod(snapshot: Snapshot) -> None:
    state = Told().state
    assert state.agent_at("10.0.0.1") is None
    state.snapshot_changed(snapshot)
    state.pods.listed([pod("planner-1", "1", "planner", "demo", podIPs=[{"ip": "10.0.0.1"}]), pod("x", "2", podIPs=[{"ip": "10.0.0.2"}])])
    assert [state.agent_at(ip) for ip in ("10.0.0.1", "10.0.0.2", "10.0.0.3")] == [ObjectName("demo", "planner"), None, None]


def test_agents_follow_the_registry(snapshot: Snapshot) -> None:
    state = Told().state
    state.snapshot_changed(snapshot)
    assert state.workloads.cluster.agents[("demo", "planner")] == ObjectName("demo", "planner")
    state.snapshot_changed(replace(snapshot, registry=replace(snapshot.registry, agents={})))
    assert state.workloads.cluster.agents == {}


def test_the_same_keys_read_again_leave_the_ones_in_force() -> None:
    state = Told().state
    state.jwks_read(JWKS)
    before = state.workloads.cluster.jwks
    state.jwks_read({"keys": [dict(key) for key in JWKS["keys"]]})
    assert state.workloads.cluster.jwks is before
    state.jwks_read({"keys": JWKS["keys"][:1]})
    assert len(state.workloads.cluster.jwks["keys"]) == 1


def test_names_are_in_force_whichever_comes_first(snapshot: Snapshot) -> None:
    found = {"weather.example.com": ResolvedHost(addresses=("1.1.1.1",), resolved_at=NOW)}
    first, second = Told().state, Told().state
    first.outside_changed(found)
    first.snapshot_changed(snapshot)
    second.snapshot_changed(snapshot)
    second.outside_changed(found)
    assert first.snapshot.upstreams.hosts == second.snapshot.upstreams.hosts == found
    first.snapshot_changed(replace(snapshot, digest="next"))
    assert (first.snapshot.digest, first.snapshot.upstreams.hosts) == ("next", found)
    first.inside_changed({"researcher.demo.svc.cluster.local": ResolvedHost(addresses=("10.96.0.7",), resolved_at=NOW)})
    assert set(first.snapshot.upstreams.gates) == {ObjectName("demo", "researcher")}


class TestKeysOfOthers:
    @staticmethod
    def told(ring: KeyRing) -> Told:
        told = Told()
        told.state.pods.listed([pod("authz-1", "own"), pod("authz-2", "other")])
        told.state.leases.listed([lease("authz-2", "other", ring)])
        return told

    def test_are_taken_in_while_their_pod_lives(self) -> None:
        ring = KeyRing.create(NOW)
        assert ring.public_keys(NOW).keys() <= self.told(ring).known()

    def test_are_taken_in_whichever_is_told_first(self) -> None:
        ring, told = KeyRing.create(NOW), Told()
        told.state.leases.listed([lease("authz-2", "other", ring)])
        assert len(told.known()) == 1
        told.state.pods.changed(pod("authz-2", "other"))
        assert ring.public_keys(NOW).keys() <= told.known()

    @pytest.mark.parametrize("how", ["the pod is gone", "the pod has ended", "the Lease is gone", "the pods are listed without it"])
    def test_end_with_the_pod_or_its_lease(self, how: str) -> None:
        ring = KeyRing.create(NOW)
        told = self.told(ring)
        match how:
            case "the pod is gone":
                told.state.pods.removed(pod("authz-2", "other"))
            case "the pod has ended":
                told.state.pods.changed(pod("authz-2", "other") | {"status": {"phase": "Failed"}})
            case "the Lease is gone":
                told.state.leases.removed(lease("authz-2", "other", ring))
            case _:
                told.state.pods.listed([pod("authz-1", "own")])
        [kid] = ring.public_keys(NOW)
        assert told.keys.public_keys(NOW)[kid].valid_until == NOW + 90

    def test_that_are_no_keys_of_ours_take_nobody_elses_away(self) -> None:
        ring = KeyRing.create(NOW)
        told = self.told(ring)
        told.state.pods.changed(pod("authz-3", "third"))
        broken = published_keys.manifest(PodReference(namespace="hopgate", name="authz-3", uid="third"), {"keys": [{"kty": "RSA"}]}, NOW)
        told.state.leases.changed(broken)
        assert ring.public_keys(NOW).keys() <= told.known()
        assert len(told.known()) == 2
