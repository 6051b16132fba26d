"""Nobody gets a pod past the gate without the right to, tried as the person of one namespace on a real API server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster.api_server import ClusterError, eventually
from tests.cluster.installation import SYSTEM, Installation, Tenant, apply_policy
from tests.cluster.test_webhook_pods import GOVERNED, OUT, make, starts_with_gate

SKIP = (("hopgate.dev", "agents", "skip-injection"),)
IMAGE = "proxy:1"


@dataclass(frozen=True)
class Governed:
    """Somebody's governed namespace."""

    installation: Installation
    mine: Tenant

    def make(self, name: str, **changes: Any) -> Any:
        return make(self.mine.server, self.mine.namespace, name, user=self.mine.user, **changes)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What was said, of a refusal too."""
        try:
            return self.mine.server.kubectl("-n", self.mine.namespace, *arguments, user=self.mine.user, stdin=stdin)
        except ClusterError as error:
            return str(error)


@pytest.fixture
def governed(installation: Installation) -> Governed:
    found = Governed(installation, installation.tenant(GOVERNED))
    eventually(lambda: starts_with_gate(found.make("probe", dry_run=True)), "pods are asked about")
    return found


def opted_out(pod: Any) -> bool:
    return isinstance(pod, dict) and "initContainers" not in pod["spec"]


def test_a_label_without_the_right_leaves_nothing_out(governed: Governed) -> None:
    assert "(OptOut)" in governed.make("one", labels=OUT)
    annotated = governed.make("two", annotations={"hopgate.dev/inject": "disabled", "hopgate.dev/injection": "0000", "sidecar": "false"})
    assert starts_with_gate(annotated)
    governed.installation.grant(governed.mine.user, governed.mine.namespace, SKIP)
    eventually(lambda: opted_out(governed.make("three", labels=OUT, dry_run=True)), "the right is in force")
    assert opted_out(governed.make("three", labels=OUT))


def test_nobody_grants_themselves_the_right(governed: Governed) -> None:
    escalation = "attempting to grant RBAC permissions not currently held"
    assert escalation in governed.kubectl("create", "role", "own", "--verb=skip-injection", "--resource=agents.hopgate.dev")
    assert escalation in governed.kubectl("create", "role", "own", "--verb=*", "--resource=agents.hopgate.dev")
    governed.mine.server.kubectl(
        "create", "role", "skip", "-n", governed.mine.namespace, "--verb=skip-injection", "--resource=agents.hopgate.dev"
    )
    binding = ("create", "rolebinding", "own", f"--user={governed.mine.user.name}")
    # Roles that are there, in the namespace and in the cluster, can't be taken.
    assert escalation in governed.kubectl(*binding, "--role=skip")
    assert escalation in governed.kubectl(*binding, "--clusterrole=cluster-admin")
    assert "forbidden" in governed.kubectl("create", "serviceaccount", "own", "--as=system:admin")
    assert "(OptOut)" in governed.make("one", labels=OUT)
    assert "created" in governed.kubectl("create", "role", "own", "--verb=get", "--resource=agents.hopgate.dev")
    assert "created" in governed.kubectl(*binding, "--role=own")


def test_another_service_account_helps_only_if_it_has_the_right(governed: Governed) -> None:
    space = governed.mine.namespace
    other = governed.installation.tenant()
    for name in ("plain", "maintenance"):
        assert "created" in governed.kubectl("create", "serviceaccount", name)
    other.place.account("elsewhere")
    server = governed.mine.server
    server.kubectl("create", "clusterrole", f"skip-{space}", "--verb=skip-injection", "--resource=agents.hopgate.dev")
    # An account of that name elsewhere has it; here, one of the two.
    for where, account in ((other.namespace, f"{other.namespace}:plain"), (space, f"{space}:maintenance")):
        server.kubectl("create", "rolebinding", "skip", "-n", where, f"--clusterrole=skip-{space}", f"--serviceaccount={account}")

    def asked(account: str) -> Any:
        return governed.make("one", labels=OUT, spec={"serviceAccountName": account}, dry_run=True)

    eventually(lambda: opted_out(asked("maintenance")), "the account's right is in force")
    assert "(OptOut)" in asked("plain")
    assert "(OptOut)" in asked("elsewhere")
    assert "(OptOut)" in asked(f"{other.namespace}:plain") or "Invalid value" in asked(f"{other.namespace}:plain")


def test_the_label_of_the_namespace_is_not_its_peoples(governed: Governed) -> None:
    server, space = governed.mine.server, governed.mine.namespace
    with pytest.raises(ClusterError, match="forbidden"):
        server.kubectl("label", "namespace", space, "hopgate.dev/inject-", user=governed.mine.user)
    assert starts_with_gate(governed.make("one"))
    governed.installation.grant(governed.mine.user, space, (("", "namespaces", "get,patch"),))
    eventually(lambda: "unlabeled" in _label(governed), "who has the right may")
    eventually(lambda: opted_out(governed.make("two", dry_run=True)), "the namespace is not governed any more")


def _label(governed: Governed) -> str:
    try:
        return governed.mine.server.kubectl("label", "namespace", governed.mine.namespace, "hopgate.dev/inject-", user=governed.mine.user)
    except ClusterError as error:
        return str(error)


def test_what_a_pod_says_of_its_own_injection_is_not_believed(governed: Governed) -> None:
    forged = [
        {"name": name, "image": "forged:1", "securityContext": {"runAsUser": 0}, "restartPolicy": "Always"}
        for name in ("hopgate-capture", "hopgate-proxy")
    ]
    said = {"labels": {"hopgate.dev/injected": "true"}, "annotations": {"hopgate.dev/injection": "0123456789abcdef"}}
    assert starts_with_gate(governed.make("one", **said))
    pod = governed.make("two", **said, spec={"initContainers": forged})
    assert [(each["name"], each["image"]) for each in pod["spec"]["initContainers"]] == [
        ("hopgate-capture", IMAGE),
        ("hopgate-proxy", IMAGE),
    ]
    assert "restartPolicy" not in pod["spec"]["initContainers"][0]
    # Without the annotation they are somebody's own, under names that are taken.
    assert "(ReservedName)" in governed.make("three", spec={"initContainers": forged})
    assert "(ReservedName)" in governed.make("four", **said, spec={"containers": [forged[1]]})
    volume = {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": "hopgate"}}]}}
    assert "(TokenAudience)" in governed.make("five", spec={"volumes": [volume]})
    volume["projected"]["sources"][0]["serviceAccountToken"]["audience"] = "other"  # type: ignore[index]
    assert starts_with_gate(governed.make("five", spec={"volumes": [volume]}))


def test_a_pod_that_runs_keeps_its_gate(governed: Governed) -> None:
    """Its owner may change images and start programs in it, but not in the gate's containers; a new label changes nothing."""
    server = governed.mine.server
    apply_policy(server, "hopgate-gate-containers")
    made = governed.make("one")
    assert starts_with_gate(made)

    def image(container: str, *flags: str, kind: str = "initContainers") -> str:
        change = json.dumps({"spec": {kind: [{"name": container, "image": "forged:1"}]}})
        return governed.kubectl("patch", "pod", "one", "-p", change, *flags)

    eventually(lambda: "stay as they are" in image("hopgate-proxy", "--dry-run=server"), "the policy is in force")
    assert "stay as they are" in image("hopgate-proxy")
    assert "stay as they are" in image("hopgate-capture")
    assert "patched" in image("app", kind="containers")
    assert "not to be entered" in governed.kubectl("exec", "one", "-c", "hopgate-proxy", "--", "id")
    assert "not to be entered" in governed.kubectl("attach", "one", "-c", "hopgate-proxy")
    # No node runs it: this is how far an allowed one gets.
    assert "does not have a host assigned" in governed.kubectl("exec", "one", "-c", "app", "--", "id")
    assert "modified" in governed.kubectl("label", "pod", "one", "hopgate.dev/inject=disabled", "hopgate.dev/injected-")
    assert "not to be entered" in governed.kubectl("exec", "one", "-c", "hopgate-proxy", "--", "id")
    assert "stay as they are" in image("hopgate-proxy")
    # Whoever may leave out the gate may do both.
    governed.installation.grant(governed.mine.user, governed.mine.namespace, SKIP)
    eventually(lambda: "patched" in image("hopgate-proxy"), "the right is in force")
    assert "does not have a host assigned" in governed.kubectl("exec", "one", "-c", "hopgate-proxy", "--", "id")


def test_no_container_is_added_to_a_pod_that_runs(governed: Governed) -> None:
    assert starts_with_gate(governed.make("one"))
    added = json.dumps({"spec": {"ephemeralContainers": [{"name": "debug", "image": "debug:1"}]}})
    patch = ("patch", "pod", "one", "--subresource=ephemeralcontainers", "-p", added)
    assert "(EphemeralContainer)" in governed.kubectl(*patch)
    # The label that would leave a new pod out needs the same right here.
    assert "labeled" in governed.kubectl("label", "pod", "one", "hopgate.dev/inject=disabled")
    assert "(OptOut)" in governed.kubectl(*patch)
    governed.installation.grant(governed.mine.user, governed.mine.namespace, SKIP)
    eventually(lambda: "patched" in governed.kubectl(*patch), "the right is in force")


def lease(name: str, namespace: str, pod: dict[str, Any]) -> str:
    metadata = {
        "name": name,
        "namespace": namespace,
        "labels": {"hopgate.dev/component": "hop-token-keys"},
        "annotations": {"hopgate.dev/hop-token-keys": '{"keys": []}'},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}],
    }
    return json.dumps({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}})


def test_keys_of_hop_tokens_are_published_by_authz_alone(governed: Governed) -> None:
    mine = governed.mine
    server = mine.server
    apply_policy(server, "hopgate-authz-keys")
    authz = json.loads(server.kubectl("get", "pod", "authz-1", "-n", SYSTEM, "-o", "json"))
    own = governed.make("authz-1")

    def write(name: str, namespace: str, pod: dict[str, Any]) -> str:
        try:
            return server.kubectl(
                "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=lease(name, namespace, pod), user=mine.user
            )
        except ClusterError as error:
            return str(error)

    for name, pod in (("hopgate-keys-authz-1", authz), ("hopgate-keys-authz-2", own)):
        assert "forbidden" in write(name, SYSTEM, pod).lower()
    # Somebody gives them Leases there, as a component's author might: the API server's own policy stands.
    governed.installation.grant(mine.user, SYSTEM, (("coordination.k8s.io", "leases", "get,create,update,patch"),))
    eventually(lambda: "by authz alone" in write("hopgate-keys-authz-1", SYSTEM, authz), "the policy is in force")
    assert "by authz alone" in write("hopgate-keys-authz-2", SYSTEM, own)
    assert "serverside-applied" in write("somebodys-own", SYSTEM, own)
    # In a namespace of one's own it is a Lease like any other, and authz reads none there.
    assert "serverside-applied" in write("hopgate-keys-authz-1", mine.namespace, own)
    server.kubectl("delete", "validatingadmissionpolicybinding", "hopgate-authz-keys")
