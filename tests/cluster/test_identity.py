"""Tokens that a real API server signed are accepted for the pod, the audience and the time that they were made for, and no others."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import kubernetes.client
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from kubernetes.client import (
    AuthenticationV1TokenRequest,
    CoreV1Api,
    OpenidApi,
    V1BoundObjectReference,
    V1Container,
    V1ObjectMeta,
    V1Pod,
    V1PodSpec,
    V1ServiceAccount,
    V1TokenRequestSpec,
)

from authz.workloads import Refusal
from authz.workloads_cluster import Cluster, ClusterWorkloads
from hopgate.identity.names import ObjectName
from hopgate.kubernetes import pods as pod_objects
from hopgate.kubernetes.pods import Pods
from tests.cluster.api_server import ApiServer
from tokenmint import service_account_token

ISSUER, AUDIENCE = "https://kubernetes.default.svc", "hopgate"
# The shortest that the API server gives.
SHORTEST = 600


def as_json(answer: Any) -> dict[str, Any]:
    """The body of a response that was asked for as it is."""
    parsed: dict[str, Any] = json.loads(answer.data)
    return parsed


@dataclass(frozen=True, slots=True)
class PodName:
    """A pod that was made."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace of the API server with a service account in it."""

    server: ApiServer
    namespace: str

    @property
    def core(self) -> CoreV1Api:
        return CoreV1Api(self.server.client())

    @classmethod
    def make(cls, server: ApiServer) -> Place:
        place = cls(server, server.namespace())
        place.account("planner")
        return place

    def account(self, name: str) -> None:
        self.core.create_namespaced_service_account(self.namespace, V1ServiceAccount(metadata=V1ObjectMeta(name=name)))

    def pod(self, name: str, account: str = "planner") -> PodName:
        spec = V1PodSpec(service_account_name=account, containers=[V1Container(name="app", image="localhost/none")])
        made = self.core.create_namespaced_pod(self.namespace, V1Pod(metadata=V1ObjectMeta(name=name), spec=spec), _preload_content=False)
        return PodName(name=name, uid=as_json(made)["metadata"]["uid"])

    def token(self, pod: PodName | None, *, account: str = "planner", audience: str | None = AUDIENCE, seconds: int = SHORTEST) -> str:
        bound = None if pod is None else V1BoundObjectReference(api_version="v1", kind="Pod", name=pod.name, uid=pod.uid)
        spec = V1TokenRequestSpec(audiences=[audience] if audience else [], bound_object_ref=bound, expiration_seconds=seconds)
        request = AuthenticationV1TokenRequest(spec=spec)
        answer = self.core.create_namespaced_service_account_token(account, self.namespace, request, _preload_content=False)
        token: str = as_json(answer)["status"]["token"]
        return token

    def jwks(self) -> dict[str, Any]:
        answer = OpenidApi(self.server.client()).get_service_account_issuer_open_id_keyset(_preload_content=False)
        return as_json(answer)

    def pods(self) -> Pods:
        listed = as_json(self.core.list_namespaced_pod(self.namespace, _preload_content=False))
        return pod_objects.read_all(listed["items"])

    def workloads(self) -> ClusterWorkloads:
        known = ClusterWorkloads(issuer=ISSUER, audience=AUDIENCE, request_keys=lambda: None)
        agents = {(self.namespace, "planner"): ObjectName("demo", "planner")}
        known.cluster = Cluster(jwks=self.jwks(), pods=self.pods(), agents=agents)
        return known


@pytest.fixture
def place(api_server: ApiServer) -> Place:
    return Place.make(api_server)


def who(known: ClusterWorkloads, token: str, now: int | None = None) -> str:
    """The agent, or the code of the refusal."""
    found = known.identify(token, int(time.time()) if now is None else now)
    return found.code if isinstance(found, Refusal) else str(found)


def test_a_pods_token_is_its_agents(place: Place) -> None:
    pod = place.pod("planner-1")
    assert who(place.workloads(), place.token(pod)) == "demo/planner"


def test_the_claims_are_read_as_the_server_writes_them(place: Place) -> None:
    pod = place.pod("planner-1")
    now = int(time.time())
    identity = service_account_token.verify(place.token(pod), issuer=ISSUER, audience=AUDIENCE, jwks=place.jwks(), now=now)
    account = as_json(place.core.read_namespaced_service_account("planner", place.namespace, _preload_content=False))["metadata"]
    assert (identity.namespace, identity.service_account, identity.pod) == (place.namespace, "planner", "planner-1")
    assert (identity.service_account_uid, identity.pod_uid) == (account["uid"], pod.uid)
    assert SHORTEST - 5 <= identity.period.expires_at - now <= SHORTEST + 5


REFUSED: dict[str, tuple[Callable[[Place, PodName], str], str]] = {
    "for the API server itself": (lambda place, pod: place.token(pod, audience=None), "TokenAudience"),
    "for another audience": (lambda place, pod: place.token(pod, audience="other"), "TokenAudience"),
    "bound to no pod": (lambda place, _: place.token(None), "TokenUnbound"),
}


@pytest.mark.parametrize(("make", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_a_token_with_one_fact_changed_is_refused(place: Place, make: Callable[[Place, PodName], str], code: str) -> None:
    pod = place.pod("planner-1")
    known = place.workloads()
    assert who(known, make(place, pod)) == code
    assert who(known, place.token(pod)) == "demo/planner"


def test_another_accounts_pod_is_no_agent(place: Place) -> None:
    place.account("other")
    token = place.token(place.pod("other-1", "other"), account="other")
    assert who(place.workloads(), token) == "AgentUnknown"


def test_a_pod_of_another_namespace_is_no_agent(place: Place, api_server: ApiServer) -> None:
    elsewhere = Place.make(api_server)
    token = elsewhere.token(elsewhere.pod("planner-1"))
    known = place.workloads()
    assert who(known, token) == "PodUnknown"
    known.cluster = replace(known.cluster, pods=elsewhere.pods())
    assert who(known, token) == "AgentUnknown"
    assert who(elsewhere.workloads(), token) == "demo/planner"


def test_a_token_ends_although_its_pod_lives(place: Place) -> None:
    token = place.token(place.pod("planner-1"))
    known = place.workloads()
    now = int(time.time())
    assert [who(known, token, moment) for moment in (now, now + SHORTEST - 5, now + SHORTEST + 31)] == [
        "demo/planner",
        "demo/planner",
        "TokenExpired",
    ]


def test_a_deleted_pods_token_is_refused_although_it_is_still_signed_and_current(place: Place) -> None:
    token = place.token(place.pod("planner-1"))
    known = place.workloads()
    assert who(known, token) == "demo/planner"
    place.core.delete_namespaced_pod("planner-1", place.namespace)
    known.cluster = replace(known.cluster, pods=place.pods())
    assert who(known, token) == "PodUnknown"


def test_a_pod_made_again_under_its_name_is_another(place: Place) -> None:
    token = place.token(place.pod("planner-1"))
    place.core.delete_namespaced_pod("planner-1", place.namespace)
    again = place.pod("planner-1")
    known = place.workloads()
    assert who(known, token) == "PodUnknown"
    assert who(known, place.token(again)) == "demo/planner"


def test_a_pod_that_has_ended_is_refused(place: Place) -> None:
    token = place.token(place.pod("planner-1"))
    for phase, expected in (("Running", "demo/planner"), ("Succeeded", "PodUnknown")):
        place.core.patch_namespaced_pod_status("planner-1", place.namespace, {"status": {"phase": phase}})
        assert who(place.workloads(), token) == expected


def test_the_server_signs_no_token_for_a_pod_that_is_not_this_accounts(place: Place) -> None:
    place.account("other")
    with pytest.raises(kubernetes.client.ApiException):
        place.token(place.pod("other-1", "other"))


@pytest.mark.slow
def test_keys_that_the_server_rotates_are_followed(cluster_binaries: Path, tmp_path: Path) -> None:
    """As an operator does it: the new key is published first, then signs, then the one before is taken away."""
    old, new = tmp_path / "old", tmp_path / "new"
    write_signing_key(old, rsa.generate_private_key(65537, 2048))
    write_signing_key(new, ec.generate_private_key(ec.SECP256R1()))
    server = ApiServer(cluster_binaries, tmp_path / "cluster", flags=signing_flags(old, old, new))
    with server:
        place = Place.make(server)
        pod = place.pod("planner-1")
        first = place.token(pod)
        known = place.workloads()
        assert who(known, first) == "demo/planner"
        server.restart(signing_flags(new, old, new))
        second = place.token(pod)
        assert [who(known, first), who(known, second)] == ["demo/planner", "demo/planner"]
        server.restart(signing_flags(new, new))
        known.cluster = replace(known.cluster, jwks=place.jwks())
        assert [who(known, first), who(known, second)] == ["TokenKeyUnknown", "demo/planner"]


def write_signing_key(file: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    """The two halves, in `FILE.key` and `FILE.pub`."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    file.with_suffix(".key").write_bytes(pem)
    file.with_suffix(".pub").write_bytes(public)


def signing_flags(signing: Path, *published: Path) -> tuple[str, ...]:
    """With which key the server signs, and which it publishes beside its usual one."""
    keys = (f"--service-account-key-file={file.with_suffix('.pub')}" for file in published)
    return (f"--service-account-signing-key-file={signing.with_suffix('.key')}", *keys)
