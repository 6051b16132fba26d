"""`python -m hopgate.cluster controller` on a real API server, with the chart's rights and no others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import controllers
from tests.cluster.api_server import ApiServer, eventually
from tests.cluster.controllers import Controller, condition, status
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
