"""Injected pods before a real API server: it takes each of them, and what it gives back is injected again without a change."""

from __future__ import annotations

import copy
from typing import Any

import kubernetes.client
import pytest

from hopgate.kubernetes import injection
from hopgate.kubernetes.injection import Injected
from hopgate.kubernetes.injection_settings import NamespaceFacts
from tests.cluster.api_server import ApiServer
from tests.hopgate.kubernetes.injection import json_patches
from tests.hopgate.kubernetes.injection.pods import NAMESPACE, SETTINGS, SHAPES, Fields


@pytest.fixture(scope="module")
def namespace(api_server: ApiServer) -> str:
    return api_server.namespace()


def dry_run(server: ApiServer, namespace: str, pod: Fields) -> Fields:
    """The pod as the server would store it, with every default."""
    client = server.client()
    sent = copy.deepcopy(pod)
    sent["metadata"]["namespace"] = namespace
    # The client takes a dict as well as its own type, and sends it as it is.
    made = kubernetes.client.CoreV1Api(client).create_namespaced_pod(namespace, sent, dry_run="All")  # type: ignore[arg-type]
    stored: Fields = client.sanitize_for_serialization(made)  # type: ignore[no-untyped-call]
    return stored


def patch(pod: Fields, namespace: str) -> list[Any]:
    facts = NamespaceFacts(name=namespace, governed=True, providers=NAMESPACE.providers)
    outcome = injection.inject(pod, namespace=facts, settings=SETTINGS, may_opt_out=False)
    assert isinstance(outcome, Injected), str(outcome)
    return list(outcome.patch)


@pytest.mark.parametrize("name", SHAPES)
def test_the_server_takes_an_injected_pod_and_gives_back_one_that_needs_nothing(api_server: ApiServer, namespace: str, name: str) -> None:
    as_asked = dry_run(api_server, namespace, SHAPES[name])
    injected = json_patches.apply(as_asked, patch(as_asked, namespace))
    stored = dry_run(api_server, namespace, without_what_the_server_made(injected))
    assert patch(stored, namespace) == []
    assert [found["name"] for found in stored["spec"]["initContainers"]][:2] == ["hopgate-capture", "hopgate-proxy"]


def without_what_the_server_made(pod: Fields) -> Fields:
    kept = copy.deepcopy(pod)
    kept.pop("status", None)
    for field in ("uid", "creationTimestamp", "managedFields", "resourceVersion", "generation"):
        kept["metadata"].pop(field, None)
    if kept["metadata"].get("generateName"):
        kept["metadata"].pop("name", None)
    return kept
