"""The watch against a real API server: seen in time, through restarts, merged, and with no more rights than it needs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import kubernetes.client
import pytest

from hopgate.identity.names import ObjectName
from hopgate.kubernetes import api, pods
from hopgate.kubernetes.api import ExpiredError, RefusedError, UnreachableError
from hopgate.kubernetes.client import Client
from hopgate.kubernetes.snapshots import Built
from hopgate.resources.kinds import DialAddress
from tests.cluster.api_server import ApiServer, User, eventually
from tests.cluster.conftest import DEFINITIONS
from tests.cluster.watching import Objects, Watching, watching

PERMIT = 'permit (principal == Hopgate::Agent::"{0}/planner", action == Hopgate::Action::"CallTool", resource);'
# Ends what would never end; how long an edit takes is measured elsewhere.
DEADLINE_SECONDS = 30.0


@pytest.fixture
def objects(hopgate_definitions: ApiServer) -> Iterator[Objects]:
    found = Objects(hopgate_definitions.client(), hopgate_definitions.namespace())
    yield found
    for kind in ("Policy", "Agent", "ToolServer", "ModelProvider"):
        found.delete_all(kind)


@pytest.fixture
def own(own_api_server: ApiServer) -> Objects:
    own_api_server.install(DEFINITIONS)
    return Objects(own_api_server.client(), own_api_server.namespace())


def owner(built: Built, namespace: str, name: str = "planner") -> str | None:
    agent = built.snapshot.registry.agents.get(ObjectName(namespace, name))
    return None if agent is None else agent.owner


def problems(built: Built, namespace: str) -> dict[str, tuple[str, str]]:
    found = [problem for problem in built.problems if problem.reference.namespace == namespace]
    return {problem.reference.name: (problem.reason, problem.kept.value) for problem in found}


def test_it_is_ready_only_with_everything_that_was_there(objects: Objects, hopgate_definitions: ApiServer) -> None:
    objects.make("Agent", "planner", {"owner": "team-a"})
    objects.make("ToolServer", "tickets", {"protocol": "MCP", "hosts": ["ready.example.com"]})
    objects.make("Policy", "planner", {"cedar": PERMIT.format(objects.namespace)})
    with watching(hopgate_definitions) as watch:
        first = watch.until(lambda built: True, "the first snapshot")
        assert watch.count() == 1
        assert owner(first, objects.namespace) == "team-a"
        assert "ready.example.com" in first.snapshot.registry.by_host
        assert first.snapshot.policies.size >= 1
        state = watch.watcher.state()
        assert state.ready
        assert all(kind.synced and kind.error is None for kind in state.kinds)
        assert state.age_seconds is not None


def test_it_is_not_ready_while_one_kind_can_not_be_listed(objects: Objects, hopgate_definitions: ApiServer) -> None:
    user = hopgate_definitions.user("reads-all-but-policies")
    grant(hopgate_definitions, user, [*watch_rules()[:1], rule("", "services", "list", "watch")], "all-but-policies")
    with watching(hopgate_definitions, user) as watch:
        eventually(lambda: kinds(watch)["Agent"].synced and kinds(watch)["Policy"].failures > 1, "the other kinds are there")
        assert not watch.watcher.state().ready
        assert watch.watcher.state().age_seconds is None
        assert "forbidden" in str(kinds(watch)["Policy"].error)
        assert watch.count() == 0


def kinds(watch: Watching) -> dict[str, Any]:
    return {kind.kind: kind for kind in watch.watcher.state().kinds}


def test_what_is_made_edited_and_deleted_is_in_force(objects: Objects, hopgate_definitions: ApiServer) -> None:
    with watching(hopgate_definitions) as watch:
        watch.until(lambda built: True, "the first snapshot")
        for change, expected in (
            (lambda: objects.make("Agent", "planner", {"owner": "team-a"}), "team-a"),
            (lambda: objects.edit("Agent", "planner", {"owner": "team-b"}), "team-b"),
            (lambda: objects.delete("Agent", "planner"), None),
        ):
            began = time.monotonic()
            change()
            watch.until(lambda built, wanted=expected: owner(built, objects.namespace) == wanted, f"the owner is {expected}")  # type: ignore[misc]
            assert time.monotonic() - began < DEADLINE_SECONDS


def test_a_wrong_object_keeps_its_last_good_form_and_is_reported_and_mends(objects: Objects, hopgate_definitions: ApiServer) -> None:
    space = objects.namespace
    objects.make("Agent", "planner", {"owner": "team-a"})
    objects.make("ToolServer", "tickets", {"protocol": "MCP", "hosts": ["wrong.example.com"]})
    objects.make("Policy", "planner", {"cedar": PERMIT.format(space)})
    with watching(hopgate_definitions) as watch:
        first = watch.until(lambda built: True, "the first snapshot")
        made = objects.edit("Policy", "planner", {"cedar": "permit ("})
        wrong = watch.until(lambda built: problems(built, space), "the mistake is reported")
        assert problems(wrong, space) == {"planner": ("InvalidSyntax", "LastGood")}
        [problem] = [problem for problem in wrong.problems if problem.reference.namespace == space]
        assert (problem.uid, problem.generation, problem.field) == (made["metadata"]["uid"], 2, "spec.cedar")
        assert wrong.snapshot.policies.digest == first.snapshot.policies.digest
        objects.edit("Agent", "planner", {"owner": "team-b"})
        watch.until(lambda built: owner(built, space) == "team-b", "another object's change is in force all the same")
        objects.edit("Policy", "planner", {"cedar": PERMIT.format(space) + "\n" + PERMIT.format(space)})
        mended = watch.until(lambda built: not problems(built, space), "the mistake is gone")
        assert mended.snapshot.policies.size == first.snapshot.policies.size + 1


def test_a_host_of_another_namespace_is_not_taken_over(objects: Objects, hopgate_definitions: ApiServer) -> None:
    space = hopgate_definitions.namespace()
    attacker = Objects(hopgate_definitions.client(), space)
    host = "taken.example.com"
    attacker.make("ToolServer", "mine", {"protocol": "HTTP", "hosts": ["mine.example.com"]})
    objects.make("ToolServer", "tickets", {"protocol": "MCP", "hosts": [host]})
    with watching(hopgate_definitions) as watch:
        watch.until(lambda built: host in built.snapshot.registry.by_host, "the host is there")
        attacker.edit("ToolServer", "mine", {"hosts": [host]})
        built = watch.until(lambda built: problems(built, space), "the conflict is reported")
        assert problems(built, space) == {"mine": ("DuplicateHost", "LastGood")}
        assert built.snapshot.registry.by_host[host].destination.name.name.namespace == objects.namespace
    attacker.delete_all("ToolServer")


def test_services_give_what_is_dialled(objects: Objects, hopgate_definitions: ApiServer) -> None:
    space = objects.namespace
    objects.make("Agent", "planner", {"service": {"name": "planner", "port": 8080}})
    objects.make("ToolServer", "tickets", {"protocol": "MCP", "service": {"name": "tickets", "port": 8080}})
    objects.make("ToolServer", "outside", {"protocol": "MCP", "service": {"name": "outside", "port": 8080}})
    address = objects.service("planner").spec.cluster_ip
    objects.service("outside", type="ExternalName", externalName="metadata.example.com", ports=None)
    with watching(hopgate_definitions) as watch:
        built = watch.until(lambda built: True, "the first snapshot")
        assert problems(built, space) == {"tickets": ("MissingService", "InForce"), "outside": ("UnusableService", "InForce")}
        assert built.snapshot.upstreams.gates[ObjectName(space, "planner")] == DialAddress(ip=address, port=8080)
        made = objects.service("tickets").spec.cluster_ip
        built = watch.until(lambda built: "tickets" not in problems(built, space), "the service is there")
        assert built.snapshot.registry.by_host[f"tickets.{space}.svc"].dial == DialAddress(ip=made, port=8080)
        assert built.snapshot.registry.by_host[f"outside.{space}.svc"].dial is None
        objects.core.delete_namespaced_service("tickets", space)
        gone = watch.until(lambda built: "tickets" in problems(built, space), "the service is gone")
        assert gone.snapshot.registry.by_host[f"tickets.{space}.svc"].dial is None


def test_services_that_nobody_names_cause_no_work(objects: Objects, hopgate_definitions: ApiServer) -> None:
    with watching(hopgate_definitions) as watch:
        watch.until(lambda built: True, "the first snapshot")
        for number in range(20):
            objects.service(f"other-{number}")
        objects.make("Agent", "planner", {"owner": "team-a"})
        watch.until(lambda built: owner(built, objects.namespace) == "team-a", "the agent is there")
        assert watch.count() <= 2


def test_a_status_that_changes_causes_no_work_and_an_address_in_it_is_taken(objects: Objects, hopgate_definitions: ApiServer) -> None:
    host = "status.example.com"
    objects.make("ToolServer", "tickets", {"protocol": "MCP", "hosts": [host]})
    with watching(hopgate_definitions) as watch:
        first = watch.until(lambda built: host in built.snapshot.registry.by_host, "the first snapshot")
        for generation in range(20):
            objects.set_status("ToolServer", "tickets", {"observedGeneration": generation})
        assert first.snapshot.registry.by_host[host].address != "198.18.99.99"
        objects.set_status("ToolServer", "tickets", {"addresses": [{"host": host, "address": "198.18.99.99"}]})
        watch.until(lambda built: built.snapshot.registry.by_host[host].address == "198.18.99.99", "the address is taken")
        assert watch.count() == 2


def test_a_storm_of_edits_is_a_few_rebuilds_and_the_last_edit_is_in_force(objects: Objects, hopgate_definitions: ApiServer) -> None:
    for number in range(10):
        objects.make("Agent", f"agent-{number}", {"owner": "start"})
    with watching(hopgate_definitions) as watch:
        watch.until(lambda built: True, "the first snapshot")
        before = watch.count()
        began = time.monotonic()
        pace = threading.Event()
        for number in range(500):
            objects.edit("Agent", f"agent-{number % 10}", {"owner": f"owner-{number}"})
            pace.wait(max(0.0, began + number * 0.01 - time.monotonic()))
        ended = time.monotonic()
        watch.until(
            lambda built: all(owner(built, objects.namespace, f"agent-{last % 10}") == f"owner-{last}" for last in range(490, 500)),
            "the last edits are in force",
        )
        assert time.monotonic() - ended < DEADLINE_SECONDS
        assert watch.count() - before <= (ended - began) / 0.1 + 2


def test_two_processes_that_started_apart_agree(own: Objects, own_api_server: ApiServer) -> None:
    """On a server of its own: what other tests left wrong elsewhere would be judged as well."""
    host = "agree-{}.example.com"
    with watching(own_api_server) as one:
        one.until(lambda built: True, "the first snapshot")
        for number in range(30):
            own.make("ToolServer", f"t{number}", {"protocol": "HTTP", "hosts": [host.format(number)]})
        own.make("Policy", "planner", {"cedar": "permit (principal, action, resource);"})
        seen = one.until(
            lambda built: host.format(29) in built.snapshot.registry.by_host and built.snapshot.policies.size == 1, "all is there"
        )
        with watching(own_api_server) as two:
            fresh = two.until(lambda built: True, "the first snapshot of the other")
            assert fresh.snapshot.digest == seen.snapshot.digest
            assert fresh.snapshot.registry == seen.snapshot.registry


# Secrets and rights


def rule(group: str, resource: str, *verbs: str, names: tuple[str, ...] = ()) -> dict[str, Any]:
    found: dict[str, Any] = {"apiGroups": [group], "resources": resource.split(","), "verbs": list(verbs)}
    return {**found, "resourceNames": list(names)} if names else found


def watch_rules() -> list[dict[str, Any]]:
    """What the watch needs, and nothing else."""
    most = "agents,toolservers,modelproviders,clusterpolicies,identityproviders,shadowagents"
    return [
        rule("hopgate.dev", most, "list", "watch"),
        rule("hopgate.dev", "policies", "list", "watch"),
        rule("", "services", "list", "watch"),
    ]


def grant(server: ApiServer, user: User, rules: list[dict[str, Any]], name: str, namespace: str | None = None) -> None:
    rbac = kubernetes.client.RbacAuthorizationV1Api(server.client())
    kind = "ClusterRole" if namespace is None else "Role"
    role: Any = {"metadata": {"name": name}, "rules": rules}
    binding: Any = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user.name}],
    }
    if namespace is None:
        rbac.create_cluster_role(role)
        rbac.create_cluster_role_binding(binding)
    else:
        rbac.create_namespaced_role(namespace, role)
        rbac.create_namespaced_role_binding(namespace, binding)


def keyed(secret: str) -> dict[str, Any]:
    credential = {"secretRef": {"name": secret, "key": "apiKey"}, "header": "x-api-key"}
    return {"protocol": "HTTP", "hosts": ["keyed.example.com"], "credential": credential}


def values(built: Built, namespace: str) -> dict[str, bytes]:
    return {key.secret.name: value.reveal() for key, value in built.snapshot.secrets.items() if key.secret.namespace == namespace}


def test_a_user_who_may_get_the_named_secrets_only_is_enough(objects: Objects, hopgate_definitions: ApiServer) -> None:
    space = objects.namespace
    user = hopgate_definitions.user("gate")
    grant(hopgate_definitions, user, watch_rules(), "gate-watches")
    grant(hopgate_definitions, user, [rule("", "secrets", "get", names=("named",))], "gate-reads", space)
    objects.secret("named", {"apiKey": "sk-marker-named"})
    objects.secret("other", {"apiKey": "sk-marker-other"})
    objects.make("ToolServer", "tickets", keyed("named"))
    client = Client.connect(user.kubeconfig)
    with pytest.raises(RefusedError, match="cannot list"):
        client.list(api.WatchedKind(kind="Secret", plural="secrets", group="", version="v1"))
    client.close()
    with watching(hopgate_definitions, user) as watch:
        built = watch.until(lambda built: values(built, space), "the secret is there")
        assert values(built, space) == {"named": b"sk-marker-named"}
        assert problems(built, space) == {}
        assert "sk-marker" not in repr(built)
        assert "sk-marker" not in repr(vars(watch.watcher))
        objects.edit("ToolServer", "tickets", keyed("other"))
        denied = watch.until(lambda built: problems(built, space), "the other may not be read")
        assert problems(denied, space) == {"tickets": ("UnreadableSecret", "LastGood")}
        assert values(denied, space) == {"named": b"sk-marker-named"}


def test_a_secret_that_comes_later_is_found_and_a_new_value_too(
    objects: Objects, hopgate_definitions: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hopgate.kubernetes.secrets.REFRESH_SECONDS", 0.5)
    monkeypatch.setattr("hopgate.kubernetes.secrets.RETRY_SECONDS", 0.5)
    space = objects.namespace
    objects.make("ToolServer", "tickets", keyed("late"))
    with watching(hopgate_definitions) as watch:
        missing = watch.until(lambda built: True, "the first snapshot")
        assert problems(missing, space) == {"tickets": ("MissingSecret", "InForce")}
        objects.secret("late", {"apiKey": "sk-one"})
        built = watch.until(lambda built: values(built, space) == {"late": b"sk-one"}, "the secret is there")
        assert problems(built, space) == {}
        objects.secret("late", {"apiKey": "sk-two"})
        watch.until(lambda built: values(built, space) == {"late": b"sk-two"}, "the new value is there")
        objects.core.delete_namespaced_secret("late", space)
        gone = watch.until(lambda built: not values(built, space), "the secret is gone")
        assert problems(gone, space) == {"tickets": ("MissingSecret", "InForce")}
        before = watch.count()
        objects.make("Agent", "planner", {})
        watch.until(
            lambda built: owner(built, space) is None and ObjectName(space, "planner") in built.snapshot.registry.agents, "a change"
        )
        assert watch.count() <= before + 2


# Outages


def test_an_outage_keeps_the_last_good_state_with_its_age_and_what_happened_meanwhile_is_seen(
    own: Objects, own_api_server: ApiServer
) -> None:
    space = own.namespace
    own.secret("named", {"apiKey": "sk-marker"})
    own.make("ToolServer", "tickets", keyed("named"))
    own.make("Agent", "planner", {"owner": "team-a"})
    own.make("Agent", "leaver", {"owner": "team-a"})
    with watching(own_api_server) as watch:
        watch.until(lambda built: owner(built, space) == "team-a", "the agents are there")
        for number in range(3):
            built = watch.built
            own_api_server.kill()
            eventually(lambda: all(kind.failures > 2 for kind in watch.watcher.state().kinds), "every kind has noticed")
            age = watch.watcher.state().age_seconds
            assert age is not None
            eventually(lambda since=age: (watch.watcher.state().age_seconds or 0) > since, "the age grows")  # type: ignore[misc]
            assert watch.watcher.state().ready
            assert owner(watch.built, space) == owner(built, space)
            assert values(watch.built, space) == {"named": b"sk-marker"}
            own_api_server.start()
            own.edit("Agent", "planner", {"owner": f"team-{number}"})
            watch.until(lambda built, wanted=f"team-{number}": owner(built, space) == wanted, "the edit is in force")  # type: ignore[misc]
        own.delete("Agent", "leaver")
        watch.until(lambda built: ObjectName(space, "leaver") not in built.snapshot.registry.agents, "the deleted is gone")
        eventually(lambda: all(kind.error is None for kind in watch.watcher.state().kinds), "every kind is back")
        assert watch.watcher.state().failures == 0


def test_a_revision_of_before_a_restart_is_expired_and_the_informer_lists_again(own: Objects, own_api_server: ApiServer) -> None:
    client = Client.connect(own_api_server.admin.kubeconfig)
    own.make("Agent", "planner", {"owner": "team-a"})
    revision = client.list(api.AGENTS).revision
    with watching(own_api_server) as watch:
        watch.until(lambda built: owner(built, own.namespace) == "team-a", "the agent is there")
        own.edit("Agent", "planner", {"owner": "team-b"})
        watch.until(lambda built: owner(built, own.namespace) == "team-b", "the edit is in force")
        own_api_server.kill()
        own_api_server.start()
        eventually(lambda: is_expired(client, revision), "the old revision is refused")
        own.delete("Agent", "planner")
        watch.until(lambda built: ObjectName(own.namespace, "planner") not in built.snapshot.registry.agents, "the deletion is in force")
    client.close()


def is_expired(client: Client, revision: str) -> bool:
    try:
        with client.watch(api.AGENTS, revision) as stream:
            next(iter(stream))
    except ExpiredError:
        return True
    except (UnreachableError, RefusedError):
        return False
    return False


def test_stopping_is_prompt_and_leaves_no_thread(hopgate_definitions: ApiServer) -> None:
    with watching(hopgate_definitions) as watch:
        watch.until(lambda built: True, "the first snapshot")
        began = time.monotonic()
    assert time.monotonic() - began < DEADLINE_SECONDS
    names = {thread.name for thread in threading.enumerate()}
    assert not {name for name in names if name.startswith(("watch-", "snapshots", "secrets"))}


def test_a_server_that_falls_silent_is_noticed(own: Objects, own_api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hopgate.kubernetes.client.SILENCE_SECONDS", 2.0)
    with watching(own_api_server) as watch:
        watch.until(lambda built: True, "the first snapshot")
        os.kill(own_api_server.pid, signal.SIGSTOP)
        try:
            eventually(lambda: all(kind.failures > 0 for kind in watch.watcher.state().kinds), "every kind has noticed")
        finally:
            os.kill(own_api_server.pid, signal.SIGCONT)
        own.make("Agent", "planner", {"owner": "team-a"})
        watch.until(lambda built: owner(built, own.namespace) == "team-a", "the agent is in force")


def test_a_list_comes_in_pages_and_has_of_each_object_what_is_kept_of_its_kind(
    objects: Objects, hopgate_definitions: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hopgate.kubernetes.client.PAGE", 3)
    for number in range(8):
        container = {"name": "app", "image": "app:1"}
        pod: Any = {
            "metadata": {"name": f"pod-{number}", "labels": {"a": "b"}},
            "spec": {"serviceAccountName": "planner", "containers": [container]},
        }
        objects.core.create_namespaced_pod(objects.namespace, pod)
    client = Client.connect(hopgate_definitions.admin.kubeconfig)
    listed = client.list(api.PODS)
    identities = client.list(api.POD_IDENTITIES)
    client.close()
    mine = [each for each in identities.items if each["metadata"]["namespace"] == objects.namespace]
    assert sorted(each["metadata"]["name"] for each in mine) == [f"pod-{number}" for number in range(8)]
    assert {tuple(sorted(each["metadata"])) for each in mine} == {("name", "namespace", "uid")}
    assert {tuple(each["spec"]) for each in mine} == {("serviceAccountName",)}
    # Nothing that is read of a pod is lost on the way.
    assert pods.read_all(identities.items) == pods.read_all(listed.items)
    assert identities.revision
    objects.core.delete_collection_namespaced_pod(objects.namespace)
