"""The validating webhook, asked by a real API server: what people are told, who may what, what is recorded, and what an outage means."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator

import pytest

from hopgate.kubernetes.certificates import PUBLISH_SECONDS
from tests.cluster.api_server import ApiServer, User, eventually
from tests.cluster.webhooks import Webhooks, try_apply, webhooks

GOOD = 'permit (principal, action == Hopgate::Action::"CallTool", resource);\n'
WEATHER = {"protocol": "MCP", "hosts": ["weather.example.com"], "tools": [{"name": "forecast"}]}


@pytest.fixture
def running(hopgate_definitions: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhooks]:
    with webhooks(hopgate_definitions, tmp_path_factory.mktemp("webhook") / "tls") as found:
        yield found
    for kind in ("policies", "toolservers", "agents", "modelproviders"):
        hopgate_definitions.kubectl("delete", kind, "-A", "--all")


def may(server: ApiServer, user: User, namespace: str, resources: str, verbs: str = "get,create,update,patch") -> None:
    role = f"{user.name}-{resources.split(',', maxsplit=1)[0].split('.', maxsplit=1)[0]}"
    server.kubectl("create", "role", role, "-n", namespace, f"--verb={verbs}", f"--resource={resources}")
    server.kubectl("create", "rolebinding", role, "-n", namespace, f"--role={role}", f"--user={user.name}")


def test_a_policy_with_a_mistake_is_refused_at_its_line_and_its_neighbour_is_accepted(running: Webhooks) -> None:
    server, namespace = running.server, running.server.namespace()
    refused = try_apply(server, namespace, "Policy", "demo", {"cedar": GOOD + "permit (principal, action, resource) when { context.x };"})

    assert "admission webhook" in refused
    assert f"Policy {namespace}/demo" in refused
    assert "spec.cedar line 2, column" in refused
    assert "(InvalidPolicy)" in refused
    assert try_apply(server, namespace, "Policy", "demo", {"cedar": GOOD}) == ""


def test_a_rule_that_can_never_match_is_refused(running: Webhooks) -> None:
    server, namespace = running.server, running.server.namespace()
    tool = f'Hopgate::Tool::"{namespace}/weather/forecast"'
    cedar = f'permit (principal, action == Hopgate::Action::"CallTool", resource == {tool});'

    assert "(UnknownEntity)" in try_apply(server, namespace, "Policy", "demo", {"cedar": cedar})
    assert try_apply(server, namespace, "ToolServer", "weather", WEATHER) == ""
    # At once: the list is asked where the watch has not brought it yet.
    assert try_apply(server, namespace, "Policy", "demo", {"cedar": cedar}) == ""


def test_a_policy_that_breaks_its_own_test_is_refused(running: Webhooks) -> None:
    server, namespace = running.server, running.server.namespace()
    assert try_apply(server, namespace, "ToolServer", "weather", WEATHER) == ""
    assert try_apply(server, namespace, "Agent", "planner", {}) == ""
    test = {
        "name": "planner may",
        "principal": f'Hopgate::Agent::"{namespace}/planner"',
        "action": "CallTool",
        "resource": f'Hopgate::Tool::"{namespace}/weather/forecast"',
    }

    refused = try_apply(server, namespace, "Policy", "demo", {"cedar": GOOD, "tests": [{**test, "expect": "Deny"}]})
    assert "`planner may` expects Deny" in refused
    assert "(TestFailed)" in refused
    assert try_apply(server, namespace, "Policy", "demo", {"cedar": GOOD, "tests": [{**test, "expect": "Allow"}]}) == ""


def test_a_policy_of_one_namespace_does_not_reach_another(running: Webhooks) -> None:
    server, namespace, other = running.server, running.server.namespace(), running.server.namespace()
    user = server.user("policy-author")
    may(server, user, namespace, "policies.hopgate.dev")
    for each in (namespace, other):
        assert try_apply(server, each, "Agent", "planner", {}) == ""

    def rule(whose: str) -> dict[str, str]:
        return {"cedar": f'permit (principal == Hopgate::Agent::"{whose}/planner", action, resource);'}

    assert "(OtherNamespace)" in try_apply(server, namespace, "Policy", "reach", rule(other), user=user)
    assert try_apply(server, namespace, "Policy", "reach", rule(namespace), user=user) == ""


def test_a_host_is_taken_over_by_nobody_and_its_owner_is_named_only_to_those_who_may_see_it(running: Webhooks) -> None:
    server, mine, theirs = running.server, running.server.namespace(), running.server.namespace()
    user = server.user("tool-author")
    may(server, user, mine, "toolservers.hopgate.dev")
    assert try_apply(server, theirs, "ToolServer", "weather", WEATHER) == ""

    def copy() -> str:
        return try_apply(server, mine, "ToolServer", "copy", WEATHER, user=user, dry_run=True)

    eventually(lambda: "(DuplicateHost)" in copy(), "the other's host is seen")
    refused = try_apply(server, mine, "ToolServer", "copy", WEATHER, user=user)
    assert "spec.hosts[0]: the host `weather.example.com` belongs to an object already that you may not see (DuplicateHost)" in refused
    assert theirs not in refused
    may(server, user, theirs, "toolservers.hopgate.dev", "get")
    eventually(
        lambda: f"belongs to ToolServer {theirs}/weather already" in try_apply(server, mine, "ToolServer", "copy", WEATHER, user=user),
        "the right to get is in force",
    )
    assert try_apply(server, mine, "ToolServer", "copy", {**WEATHER, "hosts": ["other.example.com"]}, user=user) == ""


def test_an_address_of_another_namespace_is_taken_over_by_nobody(running: Webhooks) -> None:
    server, mine, theirs = running.server, running.server.namespace(), running.server.namespace()
    tool = {"protocol": "MCP", "hosts": ["one.example.com"], "address": "203.0.113.7:9100"}
    assert try_apply(server, theirs, "ToolServer", "one", tool) == ""

    two = {**tool, "hosts": ["two.example.com"]}
    seen = "the other's address is seen"
    eventually(lambda: "(DuplicateAddress)" in try_apply(server, mine, "ToolServer", "two", two, dry_run=True), seen)
    assert "(DuplicateAddress)" in try_apply(server, mine, "ToolServer", "two", two)
    assert try_apply(server, mine, "ToolServer", "two", {**tool, "hosts": ["two.example.com"], "address": "203.0.113.8:9100"}) == ""


def test_a_credential_names_only_a_secret_that_its_writer_may_get(running: Webhooks) -> None:
    server, namespace = running.server, running.server.namespace()
    user = server.user("credential-author")
    may(server, user, namespace, "toolservers.hopgate.dev")
    server.kubectl("create", "secret", "generic", "payroll", "-n", namespace, "--from-literal=token=hush-hush")
    tool = {**WEATHER, "credential": {"secretRef": {"name": "payroll", "key": "token"}, "header": "authorization"}}

    refused = try_apply(server, namespace, "ToolServer", "weather", tool, user=user)
    assert "spec.credential.secretRef.name" in refused
    assert "(SecretNotAllowed)" in refused
    missing = {**tool, "credential": {"secretRef": {"name": "nothing", "key": "token"}, "header": "authorization"}}
    same = try_apply(server, namespace, "ToolServer", "weather", missing, user=user)
    assert same == refused.replace("payroll", "nothing")
    assert try_apply(server, namespace, "ToolServer", "weather", WEATHER, user=user) == ""
    may(server, user, namespace, "secrets", "get")
    eventually(lambda: try_apply(server, namespace, "ToolServer", "weather", tool, user=user) == "", "the right to get is in force")
    assert "hush-hush" not in repr(running.changes)


def test_a_credential_is_not_led_elsewhere_by_somebody_who_may_not_get_its_secret(running: Webhooks) -> None:
    server, namespace = running.server, running.server.namespace()
    user = server.user("host-changer")
    may(server, user, namespace, "toolservers.hopgate.dev")
    tool = {**WEATHER, "credential": {"secretRef": {"name": "payroll", "key": "token"}, "header": "authorization"}}
    assert try_apply(server, namespace, "ToolServer", "weather", tool) == ""

    refused = try_apply(server, namespace, "ToolServer", "weather", {**tool, "hosts": ["evil.example.com"]}, user=user)
    assert "(SecretNotAllowed)" in refused
    labelled = server.kubectl("label", "toolserver", "weather", "-n", namespace, "seen=yes", user=user)
    assert "labeled" in labelled


def test_every_accepted_change_is_recorded_once_and_a_dry_run_or_a_refusal_is_not(running: Webhooks) -> None:
    server, namespace = running.server, running.server.namespace()
    user = server.user("recorded", "team-a")
    may(server, user, namespace, "policies.hopgate.dev", "get,create,patch,delete")
    running.changes.clear()
    assert try_apply(server, namespace, "Policy", "demo", {"cedar": GOOD}, dry_run=True, user=user) == ""
    assert "InvalidSyntax" in try_apply(server, namespace, "Policy", "demo", {"cedar": "nothing"}, user=user)
    assert running.changes == []

    assert try_apply(server, namespace, "Policy", "demo", {"cedar": GOOD}, user=user) == ""
    assert try_apply(server, namespace, "Policy", "demo", {"cedar": GOOD, "mode": "Observe"}, user=user) == ""
    server.kubectl("patch", "policy", "demo", "-n", namespace, "--subresource=status", "--type=merge", "-p", '{"status":{"digest":"0"}}')
    server.kubectl("delete", "policy", "demo", "-n", namespace, user=user)

    made = [(change.operation, change.kind, change.name) for change in running.changes]
    assert made == [(operation, "Policy", f"{namespace}/demo") for operation in ("Create", "Update", "Delete")]
    assert {change.who for change in running.changes} == {"recorded (team-a, system:authenticated)"}
    created, updated, deleted = running.changes
    assert (created.before, created.after["spec"]) == ({}, {"cedar": GOOD, "mode": "Enforce"})
    assert (updated.before["spec"]["mode"], updated.after["spec"]["mode"]) == ("Enforce", "Observe")
    assert (deleted.before["spec"]["mode"], deleted.after) == ("Observe", {})


def test_without_the_webhook_changes_are_refused_and_deletions_go_on(running: Webhooks) -> None:
    server, namespace = running.server, running.server.namespace()
    assert try_apply(server, namespace, "Policy", "one", {"cedar": GOOD}) == ""
    running.serving.stop()

    assert "failed calling webhook" in try_apply(server, namespace, "Policy", "two", {"cedar": GOOD})
    server.kubectl("delete", "policy", "one", "-n", namespace)
    running.restart()
    assert try_apply(server, namespace, "Policy", "two", {"cedar": GOOD}) == ""


def test_an_authority_is_replaced_under_load_without_a_failed_call(running: Webhooks) -> None:
    """The authority in use is one that was made 310 days ago; from there on only the wait for the API servers is shortened."""
    server, namespace = running.server, running.server.namespace()
    certificates = running.certificates
    failures: list[str] = []
    calls = [0]
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            calls[0] += 1
            said = try_apply(server, namespace, "Agent", f"agent-{calls[0] % 7}", {"purpose": f"call {calls[0]}"})
            failures.extend([said] if said else [])

    def go_on(what: str) -> None:
        before = calls[0]
        eventually(lambda: calls[0] >= before + 3, f"calls go on after {what}")

    loaded = threading.Thread(target=load)
    loaded.start()
    try:
        go_on("the start")
        old = certificates.age(310 * 86_400, lambda: go_on("an older authority is trusted, too"))
        go_on("an authority that is near its end")
        certificates.now -= PUBLISH_SECONDS
        announced = certificates.step()
        assert announced.successor is not None
        assert announced.authority == old.authority
        assert announced.successor[0] in running.ca_bundle()
        certificates.await_in_force()
        go_on("the successor is announced")
        certificates.step()
        certificates.now += PUBLISH_SECONDS - 1
        assert certificates.step().handed == old.handed
        certificates.now += 1
        promoted = certificates.step()
        assert promoted.authority == announced.successor
        served = ssl.PEM_cert_to_DER_cert(promoted.handed[0].decode())
        eventually(lambda: running.served() == served, "the new certificate is served")
        go_on("the new authority serves")
    finally:
        stop.set()
        loaded.join()
    assert failures == []
    assert old.authority[0] in running.ca_bundle()
