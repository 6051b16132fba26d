"""Published keys count for the authz pod that owns them, and for nobody and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hopgate.kubernetes import keys
from hopgate.kubernetes.keys import AuthzPods, PodReference
from hopgate.kubernetes.pods import Pod, Pods

AUTHZ = AuthzPods(namespace="hopgate", service_account="hopgate-authz")
POD = Pod(uid="u1", namespace="hopgate", name="authz-1", service_account="hopgate-authz")
JWKS = {"keys": [{"kid": "k", "exp": 5}]}
LEASE = keys.manifest(PodReference(namespace="hopgate", name="authz-1", uid="u1"), JWKS, 1_800_000_000.5)


def published(item: Any = LEASE, pods: Pods | None = None) -> Any:
    return dict(keys.published((item,), Pods.of((POD,)) if pods is None else pods, AUTHZ))


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    item = copy.deepcopy(LEASE)
    change(item["metadata"])
    return item


def test_the_object_names_and_is_owned_by_its_pod() -> None:
    assert LEASE["metadata"]["name"] == "hopgate-keys-authz-1"
    assert LEASE["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "Pod", "name": "authz-1", "uid": "u1"}]
    assert LEASE["spec"] == {"holderIdentity": "authz-1", "renewTime": "2027-01-15T08:00:00.500000Z"}


def test_what_a_living_authz_pod_publishes_counts() -> None:
    assert published() == {"u1": JWKS}


@pytest.mark.parametrize(
    "pods",
    [
        pytest.param(Pods(), id="gone"),
        pytest.param(Pods.of((replace(POD, uid="u2"),)), id="made anew under its name"),
        pytest.param(Pods.of((replace(POD, namespace="demo"),)), id="of another namespace"),
        pytest.param(Pods.of((replace(POD, service_account="default"),)), id="of another service account"),
        pytest.param(Pods.of((replace(POD, name="authz-2"),)), id="of another name"),
    ],
)
def test_keys_of_a_pod_that_is_not_that_authz_pod_do_not_count(pods: Pods) -> None:
    assert published(pods=pods) == {}


@pytest.mark.parametrize(
    "item",
    [
        pytest.param({}, id="nothing"),
        pytest.param(changed(lambda metadata: metadata.pop("ownerReferences")), id="no owner"),
        pytest.param(changed(lambda metadata: metadata["ownerReferences"].append({"kind": "Pod", "uid": "u1"})), id="two owners"),
        pytest.param(changed(lambda metadata: metadata["ownerReferences"][0].update(uid="u2")), id="another pod as owner"),
        pytest.param(changed(lambda metadata: metadata["ownerReferences"][0].update(kind="ReplicaSet")), id="another kind as owner"),
        pytest.param(changed(lambda metadata: metadata.update(name="hopgate-keys-authz-2")), id="named after another pod"),
        pytest.param(changed(lambda metadata: metadata.update(namespace="demo")), id="in another namespace"),
        pytest.param(changed(lambda metadata: metadata.pop("annotations")), id="no keys"),
        pytest.param(changed(lambda metadata: metadata["annotations"].update({keys.ANNOTATION: "{"})), id="no JSON"),
        pytest.param(changed(lambda metadata: metadata["annotations"].update({keys.ANNOTATION: "[]"})), id="an array"),
        pytest.param(changed(lambda metadata: metadata["annotations"].update({keys.ANNOTATION: " " * 20_000})), id="too long"),
        pytest.param(changed(lambda metadata: metadata["annotations"].update({keys.ANNOTATION: "[" * 10_000})), id="nested for ever"),
    ],
)
def test_an_object_with_one_fact_changed_does_not_count(item: dict[str, Any]) -> None:
    assert published(item) == {}


def test_each_pod_has_its_own() -> None:
    second = replace(POD, uid="u2", name="authz-2")
    other = keys.manifest(PodReference(namespace="hopgate", name="authz-2", uid="u2"), {"keys": []}, 0)
    assert keys.published((LEASE, {}, other), Pods.of((POD, second)), AUTHZ) == {"u1": JWKS, "u2": {"keys": []}}
