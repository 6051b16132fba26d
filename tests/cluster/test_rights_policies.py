"""What a person of one namespace can't do to another with policies and credentials, tried as that person on a real API server."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.cluster.api_server import eventually
from tests.cluster.installation import Installation, Tenant, tool_call
from tests.cluster.webhooks import try_apply

EVERYTHING = "permit (principal, action, resource);"


def rule(effect: str, principal: str = "principal", resource: str = "resource") -> dict[str, str]:
    return {"cedar": f'{effect} ({principal}, action == Hopgate::Action::"CallTool", {resource});'}


def agent(namespace: str) -> str:
    return f'principal == Hopgate::Agent::"{namespace}/planner"'


def tool(namespace: str, name: str) -> str:
    return f'resource == Hopgate::Tool::"{namespace}/tickets/{name}"'


@dataclass(frozen=True)
class Neighbours:
    """Two namespaces with an agent and a tool server each, and the one's owner, who is after the other."""

    installation: Installation
    mine: Tenant
    theirs: Tenant
    my_token: str
    their_token: str

    def allows(self, whose: str, namespace: str, name: str = "search") -> bool:
        return self.installation.authz.allows(tool_call(namespace, name), whose)


@pytest.fixture(scope="module")
def neighbours(installation: Installation) -> Neighbours:
    """Their agent may search, and nothing else is permitted."""
    mine, theirs = installation.tenant(), installation.tenant()
    tokens = []
    for each in (mine, theirs):
        tokens.append(each.agent("planner")[1])
        each.tool_server()
    assert theirs.attempt("Policy", "planner", rule("permit", agent(theirs.namespace), tool(theirs.namespace, "search"))) == ""
    found = Neighbours(installation, mine, theirs, *tokens)
    eventually(lambda: found.allows(found.their_token, theirs.namespace), "their policy is in force")
    return found


def test_a_policy_names_only_what_is_of_its_own_namespace(neighbours: Neighbours) -> None:
    mine, theirs = neighbours.mine, neighbours.theirs.namespace
    for principal, resource in ((agent(theirs), "resource"), ("principal", tool(theirs, "search"))):
        for effect in ("permit", "forbid"):
            assert "(OtherNamespace)" in mine.attempt("Policy", "reach", rule(effect, principal, resource))
    assert mine.attempt("Policy", "reach", rule("permit", agent(mine.namespace), tool(mine.namespace, "search"))) == ""


def test_a_policy_that_names_nobody_reaches_nobody_else(neighbours: Neighbours) -> None:
    mine, theirs = neighbours.mine, neighbours.theirs.namespace
    assert mine.attempt("Policy", "everything", {"cedar": EVERYTHING}) == ""
    eventually(lambda: neighbours.allows(neighbours.my_token, mine.namespace, "delete"), "it is in force where it may be")
    assert not neighbours.allows(neighbours.my_token, theirs)
    assert not neighbours.allows(neighbours.their_token, mine.namespace)
    assert not neighbours.allows(neighbours.their_token, theirs, "delete")
    # And it takes nothing away from them.
    assert mine.attempt("Policy", "everything", {"cedar": "forbid (principal, action, resource);"}) == ""
    eventually(lambda: not neighbours.allows(neighbours.my_token, mine.namespace), "it forbids where it may")
    assert neighbours.allows(neighbours.their_token, theirs)
    assert mine.attempt("Policy", "everything", rule("permit")) == ""


def test_a_policy_is_not_written_in_another_namespace(neighbours: Neighbours) -> None:
    mine, theirs = neighbours.mine, neighbours.theirs.namespace
    assert "is forbidden" in mine.attempt("Policy", "mine", rule("permit"), namespace=theirs)
    assert mine.attempt("Policy", "mine", rule("permit")) == ""


def test_a_cluster_policy_needs_a_right_in_the_cluster(neighbours: Neighbours) -> None:
    mine, theirs = neighbours.mine, neighbours.theirs.namespace
    reach = rule("permit", agent(mine.namespace), tool(theirs, "search"))
    assert "is forbidden" in mine.attempt("ClusterPolicy", mine.namespace, reach)
    right = (("hopgate.dev", "clusterpolicies", "get,create,update,patch"),)
    # A Role gives no right to what has no namespace.
    neighbours.installation.grant(mine.user, mine.namespace, right)
    assert "is forbidden" in mine.attempt("ClusterPolicy", mine.namespace, reach)
    assert not neighbours.allows(neighbours.my_token, theirs)
    neighbours.installation.grant(mine.user, None, right)
    eventually(lambda: mine.attempt("ClusterPolicy", mine.namespace, reach) == "", "the right is in force")
    eventually(lambda: neighbours.allows(neighbours.my_token, theirs), "the policy is in force")
    mine.server.kubectl("delete", "clusterpolicy", mine.namespace)
    eventually(lambda: not neighbours.allows(neighbours.my_token, theirs), "it is gone")


def test_nobody_is_an_agent_of_another_namespace(neighbours: Neighbours) -> None:
    """Their service account's name in one's own namespace is another account."""
    mine = neighbours.mine
    mine.place.account("impostor")
    token = mine.place.token(mine.place.pod("impostor-1", "impostor"), account="impostor")
    assert "is forbidden" in mine.attempt("Agent", "impostor", {}, namespace=neighbours.theirs.namespace)
    account = f"{neighbours.theirs.namespace}/planner"
    assert "serviceAccountName" in mine.attempt("Agent", "impostor", {"serviceAccountName": account})
    request = tool_call(neighbours.theirs.namespace)
    assert "AgentUnknown" in neighbours.installation.authz.denies(request, token)
    assert mine.attempt("Agent", "impostor", {}) == ""
    eventually(lambda: "AgentUnknown" not in neighbours.installation.authz.denies(request, token), "it is an agent of its own namespace")


def credential(name: str, **more: str) -> dict[str, object]:
    return {
        "protocol": "MCP",
        "hosts": ["credential.example.com"],
        "credential": {"secretRef": {"name": name, "key": "token", **more}, "header": "authorization"},
    }


def test_a_credential_is_of_a_secret_that_its_author_may_read(neighbours: Neighbours) -> None:
    installation, mine, theirs = neighbours.installation, neighbours.mine, neighbours.theirs
    for each in (mine, theirs):
        each.server.kubectl("create", "secret", "generic", "payroll", "-n", each.namespace, "--from-literal=token=hush-hush")
    # Theirs can't be named.
    assert 'unknown field "spec.credential.secretRef.namespace"' in mine.attempt(
        "ToolServer", "leak", credential("payroll", namespace=theirs.namespace)
    )
    assert mine.attempt("ToolServer", "leak", credential(f"{theirs.namespace}/payroll")) != ""
    # One's own namespace's only with the right, and what is said tells nothing of it.
    refused = mine.attempt("ToolServer", "leak", credential("payroll"))
    assert "(SecretNotAllowed)" in refused
    assert mine.attempt("ToolServer", "leak", credential("nothing")) == refused.replace("payroll", "nothing")
    installation.grant(mine.user, mine.namespace, (("", "secrets", "get"),))
    eventually(lambda: mine.attempt("ToolServer", "leak", credential("payroll")) == "", "the right is in force")
    mine.server.kubectl("delete", "toolserver", "leak", "-n", mine.namespace)


def test_a_credential_is_not_led_elsewhere_by_an_edit(neighbours: Neighbours) -> None:
    other = neighbours.installation.tenant(namespace=neighbours.theirs.namespace)
    spec = {**credential("payroll"), "hosts": ["led.example.com"]}
    assert try_apply(other.server, other.namespace, "ToolServer", "led", spec) == ""
    for change in ({"hosts": ["elsewhere.example.com"]}, {"address": "8.8.8.8"}, {"port": 8443}, {"tls": "Disabled"}):
        assert "(SecretNotAllowed)" in other.edit("ToolServer", "led", change), change
    assert "labeled" in other.server.kubectl("label", "toolserver", "led", "-n", other.namespace, "seen=yes", user=other.user)
    other.server.kubectl("delete", "toolserver", "led", "-n", other.namespace)
