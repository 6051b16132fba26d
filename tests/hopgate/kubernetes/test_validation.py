"""Which changes are accepted, and what is said of the others: rights are given as a set of what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from hopgate.kubernetes import validation
from hopgate.kubernetes.admission import AdmissionRequest, Allowed, Operation, Refused, Requester
from hopgate.kubernetes.validation import Access, World

ALICE = Requester(name="alice", groups=("dev",))
PERMIT = 'permit (principal, action == Hopgate::Action::"CallTool", resource);'
CREDENTIAL = {"secretRef": {"name": "key", "key": "token"}, "header": "authorization"}


def manifest(kind: str, name: str, spec: Mapping[str, Any], namespace: str = "demo", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "hopgate.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": dict(spec),
    }


def tool(**changes: Any) -> dict[str, Any]:
    return {"protocol": "MCP", "hosts": ["weather.example.com"], "tools": [{"name": "forecast"}], **changes}


WORLD = validation.world_of_objects(
    [manifest("ToolServer", "weather", tool(credential=CREDENTIAL, address="8.8.8.8")), manifest("Agent", "planner", {})], {}
)


def request(new: Mapping[str, Any] | None, old: Mapping[str, Any] | None = None, **changes: Any) -> AdmissionRequest:
    shown: Mapping[str, Any] = new or old or {}
    operation = Operation.DELETE if new is None else Operation.UPDATE if old is not None else Operation.CREATE
    given: dict[str, Any] = {
        "uid": "0b0c-11",
        "operation": operation,
        "group": "hopgate.dev",
        "kind": shown["kind"],
        "resource": shown["kind"].lower() + "s",
        "subresource": "",
        "namespace": shown["metadata"].get("namespace"),
        "name": shown["metadata"]["name"],
        "dry_run": False,
        "requester": ALICE,
        "object": new,
        "old_object": old,
    }
    return AdmissionRequest(**{**given, **changes})


def codes(asked: AdmissionRequest, *rights: Access, world: World = WORLD) -> list[str]:
    return [mistake.code for mistake in validation.find_mistakes(asked, world, lambda who, access: who is ALICE and access in rights)]


@pytest.mark.parametrize(
    ("bad", "code", "good"),
    [
        (manifest("Agent", "a", {"colour": "red"}), "UnknownField", manifest("Agent", "a", {})),
        (manifest("Policy", "p", {"cedar": "permit ("}), "InvalidSyntax", manifest("Policy", "p", {"cedar": PERMIT})),
        (
            manifest("Policy", "p", {"cedar": PERMIT.replace("principal", 'principal == Hopgate::Agent::"demo/nobody"')}),
            "UnknownEntity",
            manifest("Policy", "p", {"cedar": PERMIT.replace("principal", 'principal == Hopgate::Agent::"demo/planner"')}),
        ),
        (
            manifest("Policy", "p", {"cedar": PERMIT.replace("principal", 'principal == Hopgate::Agent::"demo/planner"')}, "other"),
            "OtherNamespace",
            manifest("Policy", "p", {"cedar": PERMIT}, "other"),
        ),
        (
            manifest("ToolServer", "copy", tool(), "other"),
            "DuplicateHost",
            manifest("ToolServer", "copy", tool(hosts=["b.example.com"]), "other"),
        ),
        (
            manifest("ToolServer", "copy", tool(hosts=["b.example.com"], address="8.8.8.8"), "other"),
            "DuplicateAddress",
            manifest("ToolServer", "copy", tool(hosts=["b.example.com"], address="8.8.4.4"), "other"),
        ),
        (
            manifest("Agent", "second", {"serviceAccountName": "planner"}),
            "DuplicateServiceAccount",
            manifest("Agent", "second", {"serviceAccountName": "planner"}, "other"),
        ),
    ],
    ids=["field", "syntax", "never matches", "other namespace", "host", "address", "account"],
)
def test_a_mistake_is_refused_and_its_neighbour_accepted(bad: dict[str, Any], code: str, good: dict[str, Any]) -> None:
    assert codes(request(bad)) == [code]
    assert codes(request(good)) == []


def test_an_object_does_not_stand_against_itself() -> None:
    old = manifest("ToolServer", "weather", tool())
    assert codes(request(manifest("ToolServer", "weather", tool(path="/other")), old)) == []


def test_the_owner_is_named_to_those_who_may_see_it_and_to_nobody_else() -> None:
    asked = request(manifest("ToolServer", "copy", tool(), "other"))
    see = Access(verb="get", resource="toolservers", namespace="demo", name="weather", group="hopgate.dev")

    def said(*rights: Access) -> str:
        return str(validation.find_mistakes(asked, WORLD, lambda _, access: access in rights)[0])

    assert "ToolServer demo/weather" in said(see)
    assert "demo" not in said()


def test_a_credential_needs_the_right_to_get_its_secret_at_each_change_of_the_spec() -> None:
    right = Access(verb="get", resource="secrets", namespace="demo", name="key")
    old = manifest("ToolServer", "weather", tool(credential=CREDENTIAL))
    moved = manifest("ToolServer", "weather", tool(credential=CREDENTIAL, hosts=["evil.example.com"]))

    for asked in (request(old), request(moved, old)):
        assert codes(asked) == ["SecretNotAllowed"]
        assert codes(asked, right) == []
    assert codes(request(manifest("ToolServer", "weather", tool(credential=CREDENTIAL), labels={"a": "b"}), old)) == []
    assert codes(request(manifest("ToolServer", "weather", tool()), old)) == []


def test_an_address_inside_needs_a_right_in_the_cluster_once() -> None:
    right = Access(verb="dial-inside", resource="toolservers", namespace=None, group="hopgate.dev")
    inside = manifest("ToolServer", "x", tool(hosts=["x.example.com"], address="10.96.0.1:443"))
    outside = manifest("ToolServer", "x", tool(hosts=["x.example.com"], address="8.8.4.4:443"))

    for asked in (request(inside), request(inside, outside)):
        assert codes(asked) == ["AddressNotAllowed"]
        assert codes(asked, right) == []
        assert codes(asked, replace(right, namespace="demo")) == ["AddressNotAllowed"]
    assert codes(request(outside)) == []
    assert codes(request(manifest("ToolServer", "x", tool(hosts=["y.example.com"], address="10.96.0.1:443")), inside)) == []


def test_only_what_was_not_claimed_before_is_a_new_claim() -> None:
    old = manifest("ToolServer", "weather", tool())
    new = manifest("ToolServer", "weather", tool(hosts=["weather.example.com", "more.example.com"]))

    def wanted(asked: AdmissionRequest) -> list[tuple[str, ...]]:
        return [claim.wanted for claim in validation.new_claims(asked)]

    assert wanted(request(old)) == [("weather.example.com",)]
    assert wanted(request(new, old)) == [("more.example.com",)]
    assert wanted(request(old, new)) == wanted(request(None, old)) == []


def test_a_deletion_and_what_leaves_the_spec_alone_are_always_accepted() -> None:
    bad = manifest("Agent", "a", {"colour": "red"}, finalizers=["example.com/wait"])
    assert codes(request(None, bad)) == []
    assert codes(request(manifest("Agent", "a", {"colour": "red"}), bad)) == []
    assert codes(request(manifest("Agent", "a", {"colour": "blue"}), bad)) == ["UnknownField"]
    assert codes(request(bad, bad, subresource="status")) == []


def test_what_was_asked_about_is_what_was_sent() -> None:
    assert codes(request(manifest("Agent", "a", {}), name="b")) == ["UnreadableObject"]
    assert codes(request(manifest("Agent", "a", {}), namespace="other")) == ["UnreadableObject"]
    assert codes(request(manifest("Agent", "a", {}), object=None)) == ["UnreadableObject"]


def test_a_refusal_says_all_that_is_wrong_and_is_forbidden_where_only_a_right_is_missing() -> None:
    asked = request(manifest("Policy", "p", {"cedar": f"{PERMIT}\npermit (principal, action, resource) when {{ 1 }};"}))
    refused = validation.verdict(asked, validation.find_mistakes(asked, WORLD, lambda *_: False))
    assert isinstance(refused, Refused)
    assert refused.message.startswith("Policy demo/p: ")
    assert "spec.cedar line 2, column " in refused.message
    assert (refused.status, refused.reason) == (422, "Invalid")

    secret = request(manifest("ToolServer", "x", tool(hosts=["x.example.com"], credential=CREDENTIAL)))
    forbidden = validation.verdict(secret, validation.find_mistakes(secret, WORLD, lambda *_: False))
    assert isinstance(forbidden, Refused)
    assert (forbidden.status, forbidden.reason) == (403, "Forbidden")
    assert validation.verdict(asked, ()) == Allowed()


def test_each_accepted_change_has_a_record() -> None:
    old, new = manifest("Agent", "a", {"owner": "x"}), manifest("Agent", "a", {"owner": "y"}, labels={"l": "v"}, annotations={"n": "note"})
    updated = validation.change(request(new, old), 7)
    assert updated is not None
    assert (updated.who, updated.operation, updated.kind, updated.name) == ("alice (dev)", "Update", "Agent", "demo/a")
    assert (updated.before["spec"], updated.after) == ({"owner": "x"}, {"labels": {"l": "v"}, "spec": {"owner": "y"}})
    deleted = validation.change(request(None, old), 7)
    assert deleted is not None
    assert (deleted.operation, deleted.after) == ("Delete", {})


@pytest.mark.parametrize(
    "asked",
    [
        request(manifest("Agent", "a", {}), dry_run=True),
        request(manifest("Agent", "a", {}), manifest("Agent", "a", {}), subresource="status"),
        request(manifest("Agent", "a", {}, annotations={"n": "1"}), manifest("Agent", "a", {})),
    ],
    ids=["dry run", "status", "annotation"],
)
def test_what_is_no_change_has_none(asked: AdmissionRequest) -> None:
    assert validation.change(asked, 7) is None
    assert validation.change(request(manifest("Agent", "a", {})), 7) is not None
