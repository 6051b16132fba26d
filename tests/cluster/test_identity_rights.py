"""The rights that the chart gives to authz are enough for it, and give nobody another pod's keys."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes.client
import pytest
from kubernetes.client import ApiClient, CoordinationV1Api, CoreV1Api, OpenidApi, V1Namespace, V1ObjectMeta

from hopgate.kubernetes import keys
from hopgate.kubernetes.keys import PodReference
from tests.cluster import api_server as api_servers
from tests.cluster import helm as helms
from tests.cluster.api_server import ApiServer
from tests.cluster.test_identity import Place, PodName, as_json

SYSTEM, ACCOUNT = "hopgate", "hopgate-authz"
APPLY: dict[str, Any] = {"field_manager": "authz", "force": True, "_content_type": "application/apply-patch+yaml"}


@dataclass(frozen=True, slots=True)
class Rights:
    """The namespace of authz with the chart's rights in it, and two pods of authz."""

    server: ApiServer
    place: Place
    first: PodName
    second: PodName

    def client(self, pod: PodName | None, account: str = ACCOUNT) -> ApiClient:
        """A client with the token of a pod's service account."""
        configuration = kubernetes.client.Configuration()
        configuration.host, configuration.ssl_ca_cert = self.server.url, str(self.server.ca_file)
        configuration.api_key = {"authorization": f"Bearer {self.place.token(pod, account=account, audience=None)}"}
        return ApiClient(configuration)

    def publish(self, client: ApiClient, manifest: dict[str, Any]) -> str:
        """The message of the server's refusal; empty when it took the object."""
        name = manifest["metadata"]["name"]
        try:
            CoordinationV1Api(client).patch_namespaced_lease(name, SYSTEM, manifest, **APPLY)
        except kubernetes.client.ApiException as error:
            return api_servers.message_of(error)
        return ""


@pytest.fixture(scope="module")
def rights(cluster_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rights]:
    chart = helms.of_this_machine().manifests({"secretNamespaces": ["kube-public"]}, namespace=SYSTEM)
    manifests = [each for each in [*helms.rights(chart), *helms.policies(chart)] if "authz" in each["metadata"]["name"]]
    with ApiServer(cluster_binaries, tmp_path_factory.mktemp("cluster") / "server") as server:
        place = Place(server, SYSTEM)
        place.core.create_namespace(V1Namespace(metadata=V1ObjectMeta(name=SYSTEM)))
        for account in (ACCOUNT, "other"):
            place.account(account)
        server.kubectl("apply", "-f", "-", stdin=helms.as_list(manifests))
        found = Rights(server, place, place.pod("authz-1", ACCOUNT), place.pod("authz-2", ACCOUNT))
        # The policy of the API server is in force a moment after it was made.
        admin = server.client()
        api_servers.eventually(lambda: "by authz alone" in found.publish(admin, lease(found.first)), "the policy is in force")
        yield found


def lease(pod: PodName, **changes: Any) -> dict[str, Any]:
    return keys.manifest(PodReference(namespace=SYSTEM, name=pod.name, uid=pod.uid), {"keys": []}, time.time())


def test_authz_publishes_its_own_keys_again_and_again(rights: Rights) -> None:
    client = rights.client(rights.first)
    assert [rights.publish(client, lease(rights.first)) for _ in range(2)] == ["", ""]


def test_authz_reads_what_it_needs(rights: Rights) -> None:
    client = rights.client(rights.first)
    label = f"{keys.LABEL}={keys.LABEL_VALUE}"
    assert as_json(CoreV1Api(client).list_pod_for_all_namespaces(_preload_content=False))["items"]
    assert "items" in as_json(CoordinationV1Api(client).list_namespaced_lease(SYSTEM, label_selector=label, _preload_content=False))
    assert as_json(OpenidApi(client).get_service_account_issuer_open_id_keyset(_preload_content=False))["keys"]


def test_authz_publishes_nothing_as_another_pod(rights: Rights) -> None:
    client = rights.client(rights.first)
    assert "as its own only" in rights.publish(client, lease(rights.second))
    owned_by_another = copy.deepcopy(lease(rights.first))
    owned_by_another["metadata"]["ownerReferences"][0].update(name=rights.second.name, uid=rights.second.uid)
    assert "as its own only" in rights.publish(client, owned_by_another)
    owned_by_nobody = copy.deepcopy(lease(rights.first))
    del owned_by_nobody["metadata"]["ownerReferences"]
    assert "as its own only" in rights.publish(client, owned_by_nobody)
    assert rights.publish(client, lease(rights.first)) == ""


def test_authz_writes_no_other_lease(rights: Rights) -> None:
    leader = copy.deepcopy(lease(rights.first))
    leader["metadata"]["name"] = "hopgate-controller"
    assert "authz writes nothing else" in rights.publish(rights.client(rights.first), leader)


def test_a_token_of_authz_that_is_bound_to_no_pod_publishes_nothing(rights: Rights) -> None:
    assert "as its own only" in rights.publish(rights.client(None), lease(rights.first))


def test_nobody_else_publishes_keys_whatever_their_rights(rights: Rights) -> None:
    rights.server.kubectl("create", "clusterrolebinding", "all", "--clusterrole=cluster-admin", f"--serviceaccount={SYSTEM}:other")
    pod = rights.place.pod("other-1", "other")
    client = rights.client(pod, "other")
    assert "by authz alone" in rights.publish(client, lease(rights.first))
    assert "by authz alone" in rights.publish(client, lease(pod))
    leader = copy.deepcopy(lease(pod))
    leader["metadata"]["name"] = "hopgate-controller"
    assert rights.publish(client, leader) == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("delete", "leases.coordination.k8s.io", "-n", SYSTEM),
        ("update", "leases.coordination.k8s.io", "-n", SYSTEM),
        ("get", "leases.coordination.k8s.io", "-n", "default"),
        ("create", "leases.coordination.k8s.io", "-n", "default"),
        ("patch", "configmaps", "-n", SYSTEM),
        ("get", "secrets", "-n", SYSTEM),
        ("patch", "pods", "-n", SYSTEM),
        ("create", "serviceaccounts/token", "-n", SYSTEM),
    ],
    ids=" ".join,
)
def test_authz_may_do_nothing_else(rights: Rights, arguments: tuple[str, ...]) -> None:
    with pytest.raises(api_servers.ClusterError):
        rights.server.kubectl("auth", "can-i", *arguments, f"--as=system:serviceaccount:{SYSTEM}:{ACCOUNT}")
