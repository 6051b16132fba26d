"""Who has what, where objects of many people claim the same."""

from __future__ import annotations

from typing import Any

from hopgate.identity.names import ObjectName
from hopgate.kubernetes.secrets import Found
from hopgate.kubernetes.snapshots import Built
from tests.hopgate.kubernetes.cluster_objects import build, manifest, reasons, secret

HOST = "api.example.com"


def server(name: str, *hosts: str, **metadata: Any) -> dict[str, Any]:
    return manifest("ToolServer", name, {"protocol": "HTTP", "hosts": list(hosts)}, **metadata)


def owners(built: Built) -> dict[str, str]:
    return {host: str(endpoint.destination.name.name) for host, endpoint in built.snapshot.registry.by_host.items()}


def test_of_two_new_objects_the_older_has_the_host() -> None:
    old = server("zzz", HOST, created="2026-01-01T00:00:00Z")
    new = server("aaa", HOST, namespace="attacker", created="2026-01-02T00:00:00Z")
    built = build([new, old])
    assert owners(built) == {HOST: "demo/zzz"}
    assert reasons(built) == {"ToolServer attacker/aaa": ("DuplicateHost", "Nothing")}


def test_what_others_wrote_is_not_held_up_by_a_conflict() -> None:
    built = build([server("a", HOST), server("b", HOST), server("c", "other.example.com")])
    assert owners(built) == {HOST: "demo/a", "other.example.com": "demo/c"}


def test_an_older_object_does_not_take_over_by_an_edit_what_a_newer_one_has() -> None:
    old, owner = server("old", "old.example.com"), server("owner", HOST, created="2026-02-01T00:00:00Z")
    first = build([old, owner])
    edited = server("old", HOST, generation=2)
    second = build([edited, owner], before=first)
    assert owners(second) == {HOST: "demo/owner", "old.example.com": "demo/old"}
    assert reasons(second) == {"ToolServer demo/old": ("DuplicateHost", "LastGood")}


def test_nor_while_the_owner_is_edited_in_the_same_moment() -> None:
    old, owner = server("old", "old.example.com"), server("owner", HOST, created="2026-02-01T00:00:00Z")
    first = build([old, owner])
    both = [server("old", HOST, generation=2), server("owner", HOST, "more.example.com", generation=2, created="2026-02-01T00:00:00Z")]
    assert owners(build(both, before=first)) == {HOST: "demo/owner", "more.example.com": "demo/owner", "old.example.com": "demo/old"}


def test_nor_by_a_restart_of_the_process() -> None:
    """The controller gave the name to the owner: its status says so, and nobody else can write one."""
    owner = server("owner", HOST, "more.example.com", created="2026-02-01T00:00:00Z", addresses={HOST: "198.18.0.9"})
    built = build([server("old", HOST, addresses={"old.example.com": "198.18.0.8"}), owner])
    assert owners(built)[HOST] == "demo/owner"


def test_what_an_object_gives_up_another_gets_in_the_same_moment() -> None:
    first = build([server("a", HOST), server("b", "b.example.com")])
    built = build([server("a", "a.example.com", generation=2), server("b", HOST, generation=2)], before=first)
    assert owners(built) == {"a.example.com": "demo/a", HOST: "demo/b"}
    assert built.problems == ()
    other_way = build([server("b", "a.example.com", generation=2), server("a", "b.example.com", generation=2)], before=first)
    assert owners(other_way) == {"a.example.com": "demo/b", "b.example.com": "demo/a"}
    assert other_way.problems == ()


def test_what_nobody_has_goes_to_the_object_that_was_there_before() -> None:
    there = {"created": "2026-02-01T00:00:00Z"}
    first = build([server("b", "b.example.com", **there)])
    built = build([server("a", HOST), server("b", HOST, generation=2, **there)], before=first)
    assert owners(built) == {HOST: "demo/b"}


def test_a_left_out_object_gets_its_host_when_the_owner_is_gone() -> None:
    first = build([server("a", HOST), server("b", HOST)])
    assert owners(build([server("b", HOST)], before=first)) == {HOST: "demo/b"}


def test_a_mistake_leaves_the_last_good_form_in_force() -> None:
    first = build([server("a", HOST)])
    wrong = manifest("ToolServer", "a", {"protocol": "HTTP", "hosts": [HOST], "colour": "red"}, generation=2)
    second = build([wrong], before=first)
    assert owners(second) == {HOST: "demo/a"}
    [problem] = second.problems
    assert (problem.reason, problem.field, problem.generation, problem.kept.value) == ("UnknownField", "spec.colour", 2, "LastGood")
    assert build([server("a", HOST, generation=3)], before=second).problems == ()


def test_an_object_made_anew_under_a_name_has_no_last_good_form() -> None:
    first = build([server("a", HOST)])
    wrong = manifest("ToolServer", "a", {"protocol": "HTTP", "hosts": [HOST], "colour": "red"}, uid="another")
    second = build([wrong], before=first)
    assert owners(second) == {}
    assert reasons(second) == {"ToolServer demo/a": ("UnknownField", "Nothing")}


def test_one_service_account_is_one_agent() -> None:
    account = {"serviceAccountName": "planner"}
    built = build([manifest("Agent", "a", account), manifest("Agent", "b", account, created="2026-01-02T00:00:00Z")])
    assert [str(name) for name in built.snapshot.registry.agents] == ["demo/a"]
    assert reasons(built) == {"Agent demo/b": ("DuplicateServiceAccount", "Nothing")}


def credential(name: str) -> dict[str, Any]:
    return {"secretRef": {"name": name, "key": "apiKey"}, "header": "x-api-key"}


def keyed(secret_name: str, **metadata: Any) -> dict[str, Any]:
    return manifest("ToolServer", "a", {"protocol": "HTTP", "hosts": [HOST], "credential": credential(secret_name)}, **metadata)


def test_a_credential_whose_secret_is_there_is_in_the_snapshot() -> None:
    built = build([keyed("one")], secrets=[secret("one", apiKey="sk-marker", other="sk-not-named")])
    assert built.problems == ()
    assert [value.reveal() for value in built.snapshot.secrets.values()] == [b"sk-marker"]
    assert "sk-" not in repr(built)


def test_a_missing_secret_is_a_mistake_of_the_resource_whose_hops_are_then_denied() -> None:
    built = build([keyed("one")], secrets=[(ObjectName("demo", "one"), Found(secret=None))])
    assert reasons(built) == {"ToolServer demo/a": ("MissingSecret", "InForce")}
    assert owners(built) == {HOST: "demo/a"}
    assert built.snapshot.secrets == {}


def test_a_secret_of_another_namespace_is_not_taken() -> None:
    built = build([keyed("one")], secrets=[secret("one", "other", apiKey="sk-marker")])
    assert reasons(built) == {"ToolServer demo/a": ("MissingSecret", "InForce")}
    assert built.snapshot.secrets == {}


def test_an_edit_to_a_secret_that_is_missing_leaves_the_last_good_form() -> None:
    secrets = [secret("one", apiKey="sk-one"), (ObjectName("demo", "two"), Found(secret=None))]
    first = build([keyed("one")], secrets=secrets)
    second = build([keyed("two", generation=2)], before=first, secrets=secrets)
    assert reasons(second) == {"ToolServer demo/a": ("MissingSecret", "LastGood")}
    assert [key.secret.name for key in second.snapshot.secrets] == ["one"]
    third = build([keyed("two", generation=2)], before=second, secrets=[secret("two", apiKey="sk-two")])
    assert third.problems == ()
    assert [key.secret.name for key in third.snapshot.secrets] == ["two"]


def test_a_secret_that_was_deleted_is_not_used_any_more() -> None:
    first = build([keyed("one")], secrets=[secret("one", apiKey="sk-one")])
    second = build([keyed("one")], before=first, secrets=[(ObjectName("demo", "one"), Found(secret=None))])
    assert second.snapshot.secrets == {}
    assert reasons(second) == {"ToolServer demo/a": ("MissingSecret", "InForce")}


def test_a_secret_that_may_not_be_read_is_told_apart_from_one_that_is_not_there() -> None:
    built = build([keyed("one")], secrets=[(ObjectName("demo", "one"), Found(secret=None, denied=True, error="forbidden"))])
    [problem] = built.problems
    assert problem.reason == "UnreadableSecret"
    assert "grant `get`" in problem.message
