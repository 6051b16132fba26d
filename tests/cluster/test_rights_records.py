"""A row of `changes` says what was written and who wrote it, whatever the writer does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kubernetes.client import ApiException, V1DeleteOptions, V1Preconditions

from tests.cluster.api_server import ClusterError, User, eventually, message_of
from tests.cluster.installation import Installation, Tenant
from tests.cluster.watching import Objects
from tests.cluster.webhooks import try_apply


@pytest.fixture
def mine(installation: Installation) -> Tenant:
    return installation.tenant()


def rows(installation: Installation, tenant: Tenant) -> list[tuple[str, str, str]]:
    """Operation, kind and name of each row of the tenant's namespace, in order."""
    found = [each for each in installation.webhooks.changes() if each.get("name", "").startswith(f"{tenant.namespace}/")]
    return [(each["operation"], each["kind"], each["name"].partition("/")[2]) for each in found]


def last(installation: Installation) -> dict[str, Any]:
    return installation.webhooks.changes()[-1]


def test_a_creation_that_fails_is_no_row(installation: Installation, mine: Tenant) -> None:
    """The API server asks before it looks whether there is such an object already."""
    assert mine.make("Agent", "planner", {"owner": "team-a"}) == ""
    creator = installation.server.user("only-creates")
    installation.grant(creator, mine.namespace, (("hopgate.dev", "agents", "create"),))
    objects = Objects(installation.server.client(creator), mine.namespace)

    def create(name: str) -> int:
        try:
            objects.make("Agent", name, {"owner": "somebody-else"})
        except ApiException as error:
            return int(error.status)
        return 201

    eventually(lambda: create("planner") == 409, "the right is in force")
    assert create("planner") == 409
    assert rows(installation, mine) == [("Create", "Agent", "planner")]
    assert create("second") == 201
    assert rows(installation, mine)[1:] == [("Create", "Agent", "second")]


def test_an_update_of_another_version_is_no_row(installation: Installation, mine: Tenant) -> None:
    assert mine.make("Agent", "planner", {"owner": "team-a"}) == ""
    given = ("hopgate.dev", "v1alpha1", mine.namespace, "agents", "planner")
    stale: Any = mine.objects._custom.get_namespaced_custom_object(*given)
    assert mine.edit("Agent", "planner", {"owner": "team-b"}) == ""
    stale["spec"]["owner"] = "never"
    with pytest.raises(ApiException, match="Conflict"):
        mine.objects._custom.replace_namespaced_custom_object(*given, stale)
    with pytest.raises(ApiException, match="Conflict"):
        mine.objects._custom.delete_namespaced_custom_object(
            *given, body=V1DeleteOptions(preconditions=V1Preconditions(resource_version=stale["metadata"]["resourceVersion"]))
        )
    assert rows(installation, mine) == [("Create", "Agent", "planner"), ("Update", "Agent", "planner")]
    mine.objects.delete("Agent", "planner")
    assert rows(installation, mine)[2:] == [("Delete", "Agent", "planner")]


def test_a_row_has_what_was_written_and_not_what_the_writer_says_of_it(installation: Installation, mine: Tenant) -> None:
    body = {
        "apiVersion": "hopgate.dev/v1alpha1",
        "kind": "Agent",
        "metadata": {
            "name": "planner",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": '{"spec": {"owner": "never"}}', "user": "admin"},
            "managedFields": [
                {"manager": "admin", "operation": "Apply", "apiVersion": "hopgate.dev/v1alpha1", "fieldsType": "FieldsV1", "fieldsV1": {}}
            ],
            "creationTimestamp": "2001-01-01T00:00:00Z",
            "uid": "11111111-1111-1111-1111-111111111111",
        },
        "spec": {"owner": "team-a"},
        "status": {"observedGeneration": 7},
    }
    mine.objects._custom.create_namespaced_custom_object("hopgate.dev", "v1alpha1", mine.namespace, "agents", body)
    row = last(installation)
    assert row["who"] == f"{mine.user.name} (system:authenticated)"
    assert (row["before"], row["after"]["labels"], row["after"]["spec"]["owner"]) == ({}, {}, "team-a")
    assert "never" not in json.dumps(row)
    made: Any = mine.objects._custom.get_namespaced_custom_object("hopgate.dev", "v1alpha1", mine.namespace, "agents", "planner")
    # Nobody makes their object older than it is.
    assert not made["metadata"]["creationTimestamp"].startswith("2001")
    assert "status" not in made


def test_nobody_writes_in_anothers_name_without_the_right(installation: Installation, mine: Tenant) -> None:
    server = installation.server
    manifest = json.dumps(
        {"apiVersion": "hopgate.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "as", "namespace": mine.namespace}, "spec": {}}
    )
    other = server.user("somebody-else")
    installation.grant(other, mine.namespace, (("hopgate.dev", "agents", "get,create,patch"),))

    def write_as(user: User) -> str:
        try:
            return server.kubectl("create", "--validate=false", "--as", other.name, "-f", "-", stdin=manifest, user=user)
        except ClusterError as error:
            return str(error)

    assert "cannot impersonate" in write_as(mine.user)
    assert rows(installation, mine) == []
    installation.grant(mine.user, None, (("", "users", "impersonate"),))
    eventually(lambda: "created" in write_as(mine.user), "the right is in force")
    assert last(installation)["who"] == f"{other.name} (system:authenticated)"


def test_what_changes_nothing_is_no_row_and_each_of_many_is_one(installation: Installation, mine: Tenant) -> None:
    for name in ("one", "two"):
        assert mine.make("Agent", name, {}) == ""
    assert try_apply(mine.server, mine.namespace, "Agent", "one", {"owner": "never"}, dry_run=True, user=mine.user) == ""
    mine.server.kubectl("annotate", "agent.hopgate.dev", "one", "-n", mine.namespace, "a=b", user=mine.user)
    assert rows(installation, mine) == [("Create", "Agent", "one"), ("Create", "Agent", "two")]
    mine.objects.delete_all("Agent")
    assert sorted(rows(installation, mine)[2:]) == [("Delete", "Agent", "one"), ("Delete", "Agent", "two")]


def test_a_refusal_is_no_row(installation: Installation, mine: Tenant) -> None:
    assert mine.make("Policy", "bad", {"cedar": "permit ("}) != ""
    elsewhere = Objects(mine.server.client(mine.user), "default")
    with pytest.raises(ApiException) as refused:
        elsewhere.make("Agent", "planner", {})
    assert "forbidden" in message_of(refused.value)
    assert rows(installation, mine) == []
    assert mine.make("Policy", "good", {"cedar": "permit (principal, action, resource);"}) == ""
    assert rows(installation, mine) == [("Create", "Policy", "good")]
