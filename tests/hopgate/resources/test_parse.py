"""What every manifest has: kind, version, metadata, no unknown field; and that no value makes the parser raise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopgate.identity.names import ObjectName
from hopgate.resources import fields
from hopgate.resources.fields import Path
from hopgate.resources.kinds import Agent, Policy, SecretValue
from hopgate.resources.parse import parse

Manifest = dict[str, Any]
Change = Callable[[str, Path, object], Manifest]

SERVER_WRITTEN = {
    "uid": "u",
    "resourceVersion": "7",
    "generation": 3,
    "creationTimestamp": None,
    "deletionTimestamp": "2026-01-01T00:00:00Z",
    "deletionGracePeriodSeconds": 0,
    "managedFields": [{"manager": "kubectl"}],
    "finalizers": ["hopgate.dev/x"],
    "ownerReferences": [{}],
}


def test_a_good_manifest_of_each_kind_has_no_mistake(good: Manifest) -> None:
    result = parse(good)

    assert result.mistakes == ()
    assert result.resource is not None
    assert result.reference is not None
    assert result.reference.kind == good["kind"]


@pytest.mark.parametrize(
    ("kind", "path", "bad", "code", "allowed"),
    [
        pytest.param("Agent", ("kind",), "Agnet", "UnknownKind", "Agent", id="kind misspelt"),
        pytest.param("Agent", ("kind",), "", "UnknownKind", "Agent", id="kind empty"),
        pytest.param("Agent", ("kind",), 5, "WrongType", "Agent", id="kind not a string"),
        pytest.param("Agent", ("kind",), ..., "MissingField", "Agent", id="kind missing"),
        pytest.param("Agent", ("apiVersion",), "v1", "UnknownVersion", "hopgate.dev/v1alpha1", id="apiVersion of another group"),
        pytest.param("Agent", ("apiVersion",), ..., "MissingField", "hopgate.dev/v1alpha1", id="apiVersion missing"),
        pytest.param("Secret", ("apiVersion",), "hopgate.dev/v1alpha1", "UnknownVersion", "v1", id="secret with our apiVersion"),
        pytest.param("Agent", ("metadata",), ..., "MissingField", {"name": "a"}, id="metadata missing"),
        pytest.param("Agent", ("metadata",), ["a"], "WrongType", {"name": "a"}, id="metadata a list"),
        pytest.param("Agent", ("metadata", "name"), ..., "MissingField", "a", id="name missing"),
        pytest.param("Agent", ("metadata", "name"), "Planner", "InvalidName", "planner", id="name in upper case"),
        pytest.param("Agent", ("metadata", "name"), "plan\n", "InvalidName", "plan", id="name with a line break"),
        pytest.param("Agent", ("metadata", "name"), "a/b", "InvalidName", "a.b", id="name with a slash"),
        pytest.param("Agent", ("metadata", "name"), "", "InvalidName", "x", id="name empty"),
        pytest.param("Agent", ("metadata", "name"), "a" * 254, "InvalidName", "a" * 63, id="name too long"),
        pytest.param("Agent", ("metadata", "namespace"), "a.b", "InvalidName", "a-b", id="namespace with a dot"),
        pytest.param("Agent", ("metadata", "namespace"), "a" * 64, "InvalidName", "a" * 63, id="namespace too long"),
        pytest.param("Agent", ("metadata", "namespace"), None, "WrongType", "demo", id="namespace null"),
        pytest.param("Agent", ("metadata", "labels", "a"), 1, "WrongType", "1", id="label a number"),
        pytest.param("Agent", ("metadata", "annotations"), [], "WrongType", {}, id="annotations a list"),
        pytest.param("Agent", ("spec",), [], "WrongType", {}, id="spec a list"),
        pytest.param("Policy", ("spec",), ..., "MissingField", {"cedar": "x"}, id="spec missing"),
    ],
)
def test_a_mistake_names_its_field(change: Change, kind: str, path: Path, *, bad: object, code: str, allowed: object) -> None:
    refused = parse(change(kind, path, bad))

    assert refused.resource is None
    assert [(mistake.path, mistake.code) for mistake in refused.mistakes] == [(path, code)]
    assert parse(change(kind, path, allowed)).mistakes == ()


@pytest.mark.parametrize(
    "path",
    [("specs",), ("metadata", "generateName"), ("metadata", "nmae"), ("spec", "ownr"), ("spec", "service", "ports")],
    ids=fields.show,
)
def test_an_unknown_field_is_refused_at_every_level(change: Change, path: Path) -> None:
    refused = parse(change("Agent", path, "x"))

    assert [(mistake.path, mistake.code) for mistake in refused.mistakes] == [(path, "UnknownField")]


def test_an_unknown_field_that_is_nearly_a_known_one_is_told_which(change: Change) -> None:
    (mistake,) = parse(change("ToolServer", ("spec", "host"), ["x.example.com"])).mistakes

    assert mistake.message == "unknown field `host`; did you mean `hosts`?"


@pytest.mark.parametrize("kind", ["ClusterPolicy", "IdentityProvider", "ShadowAgent"])
def test_a_cluster_scoped_kind_has_no_namespace(change: Change, kind: str) -> None:
    refused = parse(change(kind, ("metadata", "namespace"), "demo"))

    assert [(mistake.path, mistake.code) for mistake in refused.mistakes] == [(("metadata", "namespace"), "ClusterScoped")]


def test_without_a_namespace_it_is_default(change: Change) -> None:
    agent = parse(change("Agent", ("metadata", "namespace"), ...)).resource
    policy = parse(change("Policy", ("metadata", "namespace"), ...)).resource

    assert isinstance(agent, Agent)
    assert agent.name == ObjectName("default", "it")
    assert isinstance(policy, Policy)
    assert policy.namespace == "default"


def test_what_a_cluster_writes_is_accepted_and_not_read(change: Change) -> None:
    manifest = change("Agent", ("status",), {"anything": [1, 2.5, None]})
    manifest["metadata"].update(SERVER_WRITTEN, labels={"a": "b"}, annotations={"a/b": "c"})

    assert parse(manifest).mistakes == ()
    assert parse(manifest).resource == parse(change("Agent", ("metadata", "labels"), {})).resource


def test_all_mistakes_of_a_manifest_come_at_once() -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "ToolServer",
        "metadata": {"name": "X", "namespace": "Y"},
        "spec": {"protocol": "mcp", "hosts": ["A.example.com", "1.2.3.4"], "port": 0, "extra": 1},
    }

    assert {fields.show(mistake.path) for mistake in parse(manifest).mistakes} == {
        "apiVersion",
        "metadata.name",
        "metadata.namespace",
        "spec.protocol",
        "spec.hosts[0]",
        "spec.hosts[1]",
        "spec.port",
        "spec.extra",
    }


@pytest.mark.parametrize("manifest", [None, [], "text", 5, True, {}, {1: 2}, {"kind": {}}], ids=repr)
def test_what_is_no_manifest_is_a_mistake_and_no_exception(manifest: object) -> None:
    result = parse(manifest)

    assert result.resource is None
    assert result.mistakes


def test_no_message_speaks_of_python(change: Change) -> None:
    values: tuple[object, ...] = (None, [], {}, 1, 1.5, True, "x\n")
    for value in values:
        for path in (("metadata",), ("spec",), ("spec", "hosts"), ("spec", "port"), ("spec", "credential"), ("spec", "protocol")):
            for mistake in parse(change("ToolServer", path, value)).mistakes:
                assert not any(word in mistake.message for word in ("NoneType", "dict", "str ", "int ", "float", "bool", "'", "object"))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.sampled_from(["name", "spec", "hosts"]), inner, max_size=4)
    ),
    max_leaves=12,
)
_kinds = st.sampled_from(["Agent", "ToolServer", "ModelProvider", "Policy", "ClusterPolicy", "IdentityProvider", "ShadowAgent", "Secret"])
_SPEC_FIELDS = [
    *("protocol", "hosts", "service", "port", "address", "tls", "caBundle", "tools", "credential", "provider", "models", "cedar", "mode"),
    *("tests", "issuer", "audiences", "jwksURI", "jwks", "userClaim", "groupsClaim", "quarantine", "serviceAccountName", "protocols"),
]


@given(manifest=_json)
def test_any_value_gives_a_resource_or_mistakes(manifest: object) -> None:
    result = parse(manifest)

    assert (result.resource is None) == bool(result.mistakes)


@given(kind=_kinds, metadata=_json, spec=st.dictionaries(st.sampled_from(_SPEC_FIELDS), _json, max_size=6), data=_json)
def test_any_field_of_any_kind_gives_a_resource_or_mistakes(kind: str, metadata: object, spec: object, data: object) -> None:
    version = "v1" if kind == "Secret" else "hopgate.dev/v1alpha1"
    manifest = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec, "data": data, "stringData": data}

    result = parse(manifest)

    assert (result.resource is None) == bool(result.mistakes)


MARKER = "sk-marker-7f3a"


@pytest.mark.parametrize(
    "manifest_part",
    [
        {"stringData": {"key": [MARKER]}},
        {"stringData": MARKER},
        {"stringData": {"key": {"inner": MARKER}}},
        {"data": {"key": MARKER}},
        {"data": {"key": MARKER.encode().hex() + "="}},
        {"data": MARKER},
    ],
    ids=["in a list", "not a mapping", "in a mapping", "not base64", "bad padding", "data not a mapping"],
)
def test_no_mistake_of_a_secret_shows_its_value(manifest_part: Manifest) -> None:
    result = parse({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, **manifest_part})

    assert result.mistakes
    assert MARKER not in repr(result)
    assert MARKER not in "".join(str(mistake) for mistake in result.mistakes)


@pytest.mark.parametrize(
    "path",
    [("header",), ("prefix",), ("secretRef", "name"), ("secretRef", "key"), ("secretRef",), ("prefix", "x")],
    ids=fields.show,
)
def test_a_secret_written_where_its_reference_belongs_is_not_shown(change: Change, path: Path) -> None:
    manifest = change("ToolServer", ("spec", "credential"), {"secretRef": {"name": "keys", "key": "k"}, "header": "authorization"})
    found = manifest["spec"]["credential"]
    for step in path[:-1]:
        found = found.setdefault(step, {})
    found[path[-1]] = f"{MARKER}/ \n"

    result = parse(manifest)

    assert result.mistakes
    assert MARKER not in repr(result)


def test_a_resource_with_a_secret_does_not_print_it() -> None:
    result = parse({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"key": MARKER}})

    assert result.resource is not None
    assert MARKER not in repr(result)
    assert SecretValue(MARKER.encode()) in getattr(result.resource, "data", {}).values()
