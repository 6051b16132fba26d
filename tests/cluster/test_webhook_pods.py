"""The injecting webhook's front on a real API server: whose pods are asked about, who may leave the gate out, what is recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.api_server import ApiServer, ClusterError, User, eventually
from tests.cluster.webhooks import Webhooks, webhooks

GOVERNED = {"hopgate.dev/inject": "enabled"}
OUT = {"hopgate.dev/inject": "disabled"}


@pytest.fixture
def running(hopgate_definitions: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhooks]:
    with webhooks(hopgate_definitions, tmp_path_factory.mktemp("webhook") / "tls") as found:
        yield found


def make(server: ApiServer, namespace: str, name: str, *, user: User | None = None, dry_run: bool = False, **changes: Any) -> Any:
    """The pod as the server made it, or what it said of a refusal."""
    # Set by the ServiceAccount admission plugin elsewhere.
    account = {"serviceAccountName": "default"}
    spec = {**account, "containers": [{"name": "app", "image": "app:1", "securityContext": {"runAsUser": 1000}}], **changes.pop("spec", {})}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, **changes}, "spec": spec}
    flags = ["--dry-run=server"] if dry_run else []
    try:
        return json.loads(server.kubectl("create", "-o", "json", *flags, "-f", "-", stdin=json.dumps(pod), user=user))
    except ClusterError as error:
        return str(error)


def starts_with_gate(pod: Any) -> bool:
    return (
        isinstance(pod, dict)
        and pod["metadata"].get("labels", {}).get("hopgate.dev/injected") == "true"
        and "initContainers" in pod["spec"]
    )


def pod_author(server: ApiServer, name: str, namespace: str) -> User:
    user = server.user(name)
    server.kubectl("create", "role", name, "-n", namespace, "--verb=create,get", "--resource=pods")
    server.kubectl("create", "rolebinding", name, "-n", namespace, f"--role={name}", f"--user={name}")
    return user


def grant_skip(server: ApiServer, namespace: str, *subject: str) -> None:
    server.kubectl("create", "role", "skip", "-n", namespace, "--verb=skip-injection", "--resource=agents.hopgate.dev")
    server.kubectl("create", "rolebinding", "skip", "-n", namespace, "--role=skip", *subject)


def test_pods_of_a_labelled_namespace_are_injected_and_no_others(running: Webhooks) -> None:
    server = running.server
    assert starts_with_gate(make(server, server.namespace(GOVERNED), "one"))
    assert "initContainers" not in make(server, server.namespace(), "one")["spec"]


def test_a_pod_that_could_step_over_the_gate_is_refused_with_its_reason(running: Webhooks) -> None:
    server, namespace = running.server, running.server.namespace(GOVERNED)

    refused = make(server, namespace, "one", spec={"hostNetwork": True})
    assert "(HostNetwork)" in refused
    assert starts_with_gate(make(server, namespace, "one"))


def test_only_who_has_the_right_leaves_the_gate_out_and_that_is_recorded(running: Webhooks) -> None:
    server, namespace = running.server, running.server.namespace(GOVERNED)
    user = pod_author(server, "skipper", namespace)
    running.changes.clear()

    assert "(OptOut)" in make(server, namespace, "one", user=user, labels=OUT)
    assert running.changes == []
    grant_skip(server, namespace, "--user=skipper")
    eventually(lambda: isinstance(make(server, namespace, "one", user=user, labels=OUT, dry_run=True), dict), "the right is in force")
    assert running.changes == []
    assert "initContainers" not in make(server, namespace, "one", user=user, labels=OUT)["spec"]
    (change,) = running.changes
    assert (change.operation, change.kind, change.name) == ("OptOut", "Pod", f"{namespace}/one")
    assert change.who.startswith("skipper (")


def test_nobody_grants_themselves_the_right(running: Webhooks) -> None:
    server, namespace = running.server, running.server.namespace(GOVERNED)
    user = pod_author(server, "granter", namespace)
    server.kubectl("create", "role", "roles", "-n", namespace, "--verb=create,get", "--resource=roles.rbac.authorization.k8s.io")
    server.kubectl("create", "rolebinding", "roles", "-n", namespace, "--role=roles", "--user=granter")
    role = ("create", "role", "own", "-n", namespace, "--verb=skip-injection", "--resource=agents.hopgate.dev")

    with pytest.raises(ClusterError, match="attempting to grant RBAC permissions not currently held"):
        server.kubectl(*role, user=user)
    # What it has it may give: the neighbour.
    server.kubectl("create", "role", "own", "-n", namespace, "--verb=get", "--resource=pods", user=user)


def test_the_right_may_be_its_service_accounts(running: Webhooks) -> None:
    """The pods of a Deployment are made by the cluster's controller, which has no such right."""
    server, namespace = running.server, running.server.namespace(GOVERNED)
    user = pod_author(server, "controller", namespace)
    grant_skip(server, namespace, f"--serviceaccount={namespace}:maintenance")

    def asked(account: str) -> Any:
        return make(server, namespace, "one", user=user, labels=OUT, spec={"serviceAccountName": account}, dry_run=True)

    eventually(lambda: isinstance(asked("maintenance"), dict), "the right is in force")
    assert "(OptOut)" in asked("planner")


def test_without_the_webhook_pods_start_everywhere_but_in_governed_namespaces(running: Webhooks) -> None:
    server, governed, free = running.server, running.server.namespace(GOVERNED), running.server.namespace()
    server.kubectl("label", "namespace", "kube-system", "hopgate.dev/inject=enabled", "--overwrite")
    running.serving.stop()
    try:
        assert "failed calling webhook" in make(server, governed, "one")
        assert isinstance(make(server, free, "one"), dict)
        assert isinstance(make(server, "kube-system", "hopgate-webhook-test", dry_run=True), dict)
    finally:
        server.kubectl("label", "namespace", "kube-system", "hopgate.dev/inject-")
