"""`hopgate status` of a real API server with hopgate's processes on it: what is found, what is not believed, and what a reader may lack."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hopgate.cli.main import commands
from hopgate.kubernetes import cluster_status
from tests.authz.certificates import HOST
from tests.cluster.api_server import ApiServer, User, eventually
from tests.cluster.installation import SYSTEM, Installation, installed
from tests.cluster.test_webhook_pods import GOVERNED, grant_skip, make, pod_author, starts_with_gate
from tests.cluster.webhooks import try_apply
from tokenmint import authority

OUT = {"hopgate.dev/inject": "disabled"}
READER = (
    ("", "namespaces,pods", "get,list"),
    ("coordination.k8s.io", "leases", "list"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations,mutatingwebhookconfigurations", "list"),
    ("hopgate.dev", "agents,toolservers,modelproviders,policies,clusterpolicies,identityproviders,shadowagents", "list"),
)


@pytest.fixture(scope="module")
def hopgate(cluster_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("status")
    with ApiServer(cluster_binaries, folder / "server") as server, installed(server, folder) as running:
        path = ("pod", "authz-1", "-n", SYSTEM, "--subresource=status", "--type=merge", "-p")
        server.kubectl("patch", *path, json.dumps({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}))
        lead(server, time.time())
        now = int(time.time())
        certificate, key = authority.issue_serving(authority.create_root(now), (HOST,), now, 30 * 86_400)
        running.mounted.write(certificate, key.reveal())
        eventually(lambda: not findings(server.admin), "authz says that it is well")
        yield running


def findings(user: User) -> list[str]:
    return [finding for row in found(user)["authz"] for finding in row["findings"]]


def lead(server: ApiServer, renewed: float) -> None:
    """The Lease that a controller's leader holds."""
    at = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(renewed))
    metadata = {"name": "hopgate-controller", "namespace": SYSTEM}
    spec = {"holderIdentity": "hopgate-controller-1", "renewTime": at, "leaseDurationSeconds": 15}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
    server.kubectl("apply", "-f", "-", stdin=json.dumps(lease))


def status(user: User, *arguments: str) -> Result:
    return CliRunner().invoke(commands, ["status", "--kubeconfig", str(user.kubeconfig), *arguments])


def found(user: User, *arguments: str) -> dict[str, Any]:
    ran = status(user, "--json", *arguments)
    assert ran.exit_code in {0, 1}, ran.output
    read: dict[str, Any] = json.loads(ran.stdout)
    assert read["healthy"] == (ran.exit_code == 0)
    return read


def ungoverned(user: User, namespace: str) -> dict[str, str]:
    return {row["name"]: row["why"] for row in found(user, "-n", namespace)["pods"]["rows"]}


def label(server: ApiServer, namespace: str) -> None:
    server.kubectl("label", "namespace", namespace, "hopgate.dev/inject=enabled")


def test_a_cluster_in_which_all_is_well_ends_with_0(hopgate: Installation) -> None:
    server, namespace = hopgate.server, hopgate.server.namespace(GOVERNED)
    assert starts_with_gate(make(server, namespace, "one"))
    lead(server, time.time())
    read = found(server.admin, "-n", namespace)
    assert (read["findings"], read["resources"], read["unread"], read["pods"]) == ([], [], {}, {"governed": 1, "rows": []})
    assert namespace in found(server.admin)["namespaces"]
    [authz] = read["authz"]
    assert (authz["pod"], authz["ready"], authz["failed_open"], authz["findings"]) == ("authz-1", True, 0, [])
    assert authz["oldest_watch_age"] < cluster_status.STALE_SECONDS
    assert authz["certificate_ends_in"] > 0
    assert {row["name"]: row["findings"] for row in read["webhooks"]} == {"inject.hopgate.dev": [], "validate.hopgate.dev": []}
    assert status(server.admin, "-n", namespace).exit_code == 0


def test_pods_that_are_not_governed_are_listed_with_the_reason(hopgate: Installation) -> None:
    server, namespace = hopgate.server, hopgate.server.namespace()
    make(server, namespace, "before")
    make(server, namespace, "boasting", labels={"hopgate.dev/injected": "true"}, annotations={"hopgate.dev/injection": "0" * 16})
    make(server, namespace, "asked-before", labels=OUT)
    make(server, namespace, "node", spec={"hostNetwork": True})
    label(server, namespace)
    eventually(lambda: starts_with_gate(make(server, namespace, "probe", dry_run=True)), "pods are asked about")
    make(server, namespace, "governed")
    server.kubectl("label", "pod", "governed", "-n", namespace, "hopgate.dev/inject=disabled", "hopgate.dev/injected-", "--overwrite")
    rows = ungoverned(server.admin, namespace)
    assert rows == {"before": "MadeBeforeLabel", "boasting": "MadeBeforeLabel", "asked-before": "OptedOut", "node": "HostNetwork"}
    assert status(server.admin, "-n", namespace).exit_code == 1


def test_a_pod_that_was_let_out_by_right_is_listed_too(hopgate: Installation) -> None:
    server, namespace = hopgate.server, hopgate.server.namespace(GOVERNED)
    user = pod_author(server, "status-skipper", namespace)
    grant_skip(server, namespace, "--user=status-skipper")
    eventually(lambda: isinstance(make(server, namespace, "out", user=user, labels=OUT), dict), "the right is in force")
    assert ungoverned(server.admin, namespace) == {"out": "OptedOut"}
    assert [change["operation"] for change in hopgate.webhooks.changes() if change["name"] == f"{namespace}/out"] == ["OptOut"]


def test_a_gate_that_somebody_made_is_not_taken_for_the_installations(hopgate: Installation) -> None:
    server, source, namespace = hopgate.server, hopgate.server.namespace(GOVERNED), hopgate.server.namespace()
    real = make(server, source, "real")
    assert isinstance(real, dict)
    for name, change in (("image", "image"), ("command", "command")):
        made = json.loads(json.dumps(real).replace(source, namespace))
        made["metadata"] = {"name": name, "namespace": namespace, "labels": made["metadata"]["labels"]}
        made["status"] = {}
        for container in made["spec"]["initContainers"]:
            container[change] = "own:1" if change == "image" else ["sleep"]
        server.kubectl("create", "-f", "-", stdin=json.dumps(made))
    label(server, namespace)
    assert ungoverned(server.admin, namespace) == {"image": "OtherSettings", "command": "BrokenGate"}
    assert ungoverned(server.admin, source) == {}


def test_a_resource_that_is_not_well_is_shown(hopgate: Installation) -> None:
    server, namespace = hopgate.server, hopgate.server.namespace(GOVERNED)
    assert try_apply(server, namespace, "Agent", "planner", {}) == ""
    [unseen] = found(server.admin, "-n", namespace)["resources"]
    assert (unseen["name"], unseen["reason"]) == (f"{namespace}/planner", "NotObserved")
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "DuplicateHost",
        "message": "it is taken",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": 1,
    }
    write_status(server, namespace, [condition])
    assert found(server.admin, "-n", namespace)["resources"] == [
        {"kind": "Agent", "name": f"{namespace}/planner", "reason": "DuplicateHost", "message": "it is taken"}
    ]
    write_status(server, namespace, [{**condition, "status": "True"}])
    assert found(server.admin, "-n", namespace)["resources"] == []


def write_status(server: ApiServer, namespace: str, conditions: Sequence[Any]) -> None:
    patch = json.dumps({"status": {"observedGeneration": 1, "conditions": conditions}})
    server.kubectl("patch", "agent.hopgate.dev", "planner", "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)


def test_a_leader_that_does_not_renew_is_shown(hopgate: Installation) -> None:
    server, namespace = hopgate.server, hopgate.server.namespace(GOVERNED)
    lead(server, time.time() - 600)
    try:
        [row] = found(server.admin, "-n", namespace)["controller"]
        assert row["holder"] == "hopgate-controller-1"
        assert row["findings"] == ["its leader does not renew the Lease: statuses are not written"]
    finally:
        lead(server, time.time())
    assert found(server.admin, "-n", namespace)["controller"][0]["findings"] == []


def test_who_lacks_rights_learns_which_and_gets_the_rest(hopgate: Installation) -> None:
    server, namespace = hopgate.server, hopgate.server.namespace(GOVERNED)
    make(server, namespace, "one")
    reader = server.user("reader")
    hopgate.grant(reader, None, READER)
    lead(server, time.time())
    read = eventually(lambda: found(reader, "-n", namespace), "the reader may read")
    # Neither the Secret of the certificates nor a dry run of a pod is a reader's: the rest stands for itself.
    assert set(read["unread"]) == {"settings"}
    assert read["healthy"]
    nobody = server.user("nobody")
    read = found(nobody, "-n", namespace)
    assert {f"namespace {namespace}", "leases", "webhooks", "installation", "agents"} <= set(read["unread"])
    assert all(why["code"] == "ClusterRefused" for why in read["unread"].values())
    assert not read["healthy"]
    assert 'User "nobody" cannot list resource "leases"' in status(nobody, "-n", namespace).stdout


def test_a_cluster_that_does_not_answer_ends_with_2(hopgate: Installation, tmp_path: Path) -> None:
    elsewhere = tmp_path / "kubeconfig"
    elsewhere.write_text(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", hopgate.server.admin.kubeconfig.read_text()))
    ran = CliRunner().invoke(commands, ["status", "--kubeconfig", str(elsewhere)])
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "ClusterUnreachable" in ran.stderr
    missing = CliRunner().invoke(commands, ["status", "--kubeconfig", str(tmp_path / "none")])
    assert (missing.exit_code, "ClusterNotConfigured" in missing.stderr) == (2, True)


def test_what_is_of_a_cluster_needs_one() -> None:
    ran = CliRunner().invoke(commands, ["status", "-n", "demo"])
    assert (ran.exit_code, "--kubeconfig" in ran.stderr) == (2, True)
