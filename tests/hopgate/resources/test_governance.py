"""Policy, ClusterPolicy, IdentityProvider, ShadowAgent: what is kept, and each field's mistakes with an allowed neighbour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hopgate.resources.fields import Path
from hopgate.resources.kinds import Expectation, IdentityProvider, Policy, PolicyMode, PolicyTest, ShadowAgent
from hopgate.resources.parse import parse

Manifest = dict[str, Any]
Change = Callable[[str, Path, object], Manifest]

CEDAR = "permit (principal, action, resource);"
TEST = {
    "name": "planner may search",
    "principal": 'Hopgate::Agent::"demo/planner"',
    "action": "CallTool",
    "resource": 'Hopgate::Tool::"demo/tickets/search"',
    "expect": "Allow",
}
KEY = {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}


def test_a_policy_enforces_unless_it_says_otherwise(change: Change) -> None:
    assert parse(change("Policy", ("metadata", "labels"), {})).resource == Policy(
        namespace="demo", name="it", cedar=CEDAR, mode=PolicyMode.ENFORCE
    )


def test_a_cluster_policy_has_no_namespace(change: Change) -> None:
    assert parse(change("ClusterPolicy", ("spec", "mode"), "Observe")).resource == Policy(
        namespace=None, name="it", cedar=CEDAR, mode=PolicyMode.OBSERVE
    )


def test_a_policys_tests_are_kept_with_their_context(change: Change) -> None:
    context = {"arguments": {"limit": 5, "tags": ["a"]}}
    policy = parse(change("Policy", ("spec", "tests"), [{**TEST, "context": context}, {**TEST, "name": "b", "expect": "Deny"}])).resource

    assert isinstance(policy, Policy)
    first, second = policy.tests
    assert first == PolicyTest(
        name="planner may search",
        principal='Hopgate::Agent::"demo/planner"',
        action="CallTool",
        resource='Hopgate::Tool::"demo/tickets/search"',
        expect=Expectation.ALLOW,
        context=context,
    )
    assert (second.expect, second.context) == (Expectation.DENY, {})


def test_an_identity_provider_keeps_all_that_is_written(change: Change) -> None:
    spec = {
        "issuer": "https://idp.example.com",
        "audiences": ["a", "b"],
        "jwks": {"keys": [KEY]},
        "userClaim": "email",
        "groupsClaim": "groups",
    }

    assert parse(change("IdentityProvider", ("spec",), spec)).resource == IdentityProvider(
        name="it",
        issuer="https://idp.example.com",
        audiences=("a", "b"),
        jwks={"keys": [KEY]},
        user_claim="email",
        groups_claim="groups",
    )


def test_a_shadow_agent_is_free_unless_it_is_quarantined(change: Change) -> None:
    assert parse(change("ShadowAgent", ("spec",), ...)).resource == ShadowAgent(name="it", quarantine=False)
    assert parse(change("ShadowAgent", ("spec", "quarantine"), True)).resource == ShadowAgent(name="it", quarantine=True)


@pytest.mark.parametrize(
    ("kind", "path", "bad", "code", "allowed"),
    [
        pytest.param("Policy", ("spec", "cedar"), ..., "MissingField", CEDAR, id="cedar missing"),
        pytest.param("Policy", ("spec", "cedar"), " \n", "InvalidValue", CEDAR, id="cedar empty"),
        pytest.param("Policy", ("spec", "cedar"), [CEDAR], "WrongType", CEDAR, id="cedar a list"),
        pytest.param("Policy", ("spec", "mode"), "enforce", "InvalidValue", "Enforce", id="mode in lower case"),
        pytest.param("Policy", ("spec", "tests"), TEST, "WrongType", [TEST], id="tests not a list"),
        pytest.param("Policy", ("spec", "tests"), [TEST, {**TEST, "expect": "Deny"}], "Repeated", [TEST], id="two tests of one name"),
        pytest.param("ClusterPolicy", ("spec", "modes"), "Observe", "UnknownField", ..., id="field misspelt"),
        pytest.param("IdentityProvider", ("spec", "issuer"), ..., "MissingField", "x", id="issuer missing"),
        pytest.param("IdentityProvider", ("spec", "issuer"), "https://a/#b", "InvalidValue", "https://a/b", id="issuer with a fragment"),
        pytest.param("IdentityProvider", ("spec", "issuer"), "a\nb", "InvalidValue", "a", id="issuer of two lines"),
        pytest.param("IdentityProvider", ("spec", "audiences"), [], "InvalidValue", ["a"], id="no audience"),
        pytest.param("IdentityProvider", ("spec", "audiences"), ..., "MissingField", ["a"], id="audiences missing"),
        pytest.param("IdentityProvider", ("spec", "jwksURI"), ..., "MissingField", "https://a/k", id="no keys"),
        pytest.param("IdentityProvider", ("spec", "jwksURI"), "http://a/k", "InvalidValue", "http://127.0.0.1:1/k", id="keys in the clear"),
        pytest.param("IdentityProvider", ("spec", "jwksURI"), "https://u:p@a/k", "InvalidValue", "https://a/k", id="keys with a password"),
        pytest.param("IdentityProvider", ("spec", "jwksURI"), "https://[a/k", "InvalidValue", "https://[::1]/k", id="broken IPv6"),
        pytest.param("IdentityProvider", ("spec", "jwksURI"), "https://a:b/k", "InvalidValue", "https://a:1/k", id="port no number"),
        pytest.param("IdentityProvider", ("spec", "jwksURI"), "file:///k", "InvalidValue", "https://k/", id="a file"),
        pytest.param(
            "IdentityProvider",
            ("spec", "jwksURI"),
            "https://a:65536/k",
            "InvalidValue",
            "https://a:65535/k",
            id="keys at a port beyond 16 bits",
        ),
        pytest.param(
            "IdentityProvider",
            ("spec", "jwksURI"),
            "http://localhost.a/k",
            "InvalidValue",
            "http://LOCALHOST/k",
            id="keys in the clear, of a name like this machine's",
        ),
        pytest.param(
            "IdentityProvider", ("spec", "jwksURI"), "http://[::2]/k", "InvalidValue", "http://[::1]:80", id="keys in the clear, over IPv6"
        ),
        pytest.param(
            "IdentityProvider", ("spec", "jwksURI"), "https://a/#k", "InvalidValue", "https://a/k?k=%20", id="keys with a fragment"
        ),
        pytest.param("IdentityProvider", ("spec", "jwksURI"), "https://@a/k", "InvalidValue", "https://a/@k", id="keys with an empty user"),
        pytest.param("IdentityProvider", ("spec", "jwksURI"), "https://a%20b/k", "InvalidValue", "https://a-b/k", id="escape in the host"),
        pytest.param(
            "IdentityProvider", ("spec", "jwksURI"), "https://a\\b/k", "InvalidValue", "HTTPS://A_b/k", id="backslash in the host"
        ),
        pytest.param("IdentityProvider", ("spec", "jwksURI"), "https://a b/k", "InvalidValue", "https://a", id="blank in the host"),
        pytest.param("IdentityProvider", ("spec", "jwksURI"), "//a/k", "InvalidValue", "https://1.2.3.4/k", id="no scheme"),
        pytest.param(
            "IdentityProvider", ("spec", "jwksURI"), "https://a/" + "k" * 2039, "InvalidValue", "https://a/" + "k" * 2038, id="too long"
        ),
        pytest.param("IdentityProvider", ("spec", "userClaim"), "", "InvalidValue", "sub", id="user claim empty"),
        pytest.param("ShadowAgent", ("spec", "quarantine"), "yes", "WrongType", True, id="quarantine a word"),
        pytest.param("Agent", ("spec", "quarantine"), "yes", "WrongType", True, id="an agent's quarantine a word"),
    ],
)
def test_a_mistake_names_its_field(change: Change, kind: str, path: Path, *, bad: object, code: str, allowed: object) -> None:
    refused = parse(change(kind, path, bad))

    assert [(mistake.path, mistake.code) for mistake in refused.mistakes] == [(path, code)]
    neighbour = change(kind, ("metadata", "labels"), {}) if allowed is ... else change(kind, path, allowed)
    assert parse(neighbour).mistakes == ()


@pytest.mark.parametrize(
    ("field", "bad", "code", "allowed"),
    [
        pytest.param("name", "", "InvalidValue", "x", id="name empty"),
        pytest.param("principal", "demo/planner", "InvalidValue", 'Agent::"demo/planner"', id="principal no entity"),
        pytest.param("principal", 'Agent::"a"b"', "InvalidValue", 'Agent::"ab"', id="quote within an id"),
        pytest.param("resource", 'Tool::"a"; permit', "InvalidValue", 'Tool::"a; permit"', id="more than an entity"),
        pytest.param("action", 'Action::"Call Tool"', "InvalidValue", 'Hopgate::Action::"CallTool"', id="action no word"),
        pytest.param("expect", "allow", "InvalidValue", "Allow", id="expect in lower case"),
        pytest.param("context", [], "WrongType", {}, id="context a list"),
    ],
)
def test_a_policys_test_names_its_mistake(change: Change, field: str, bad: object, code: str, allowed: object) -> None:
    refused = parse(change("Policy", ("spec", "tests"), [{**TEST, field: bad}]))

    assert [(mistake.path, mistake.code) for mistake in refused.mistakes] == [(("spec", "tests", 0, field), code)]
    assert parse(change("Policy", ("spec", "tests"), [{**TEST, field: allowed}])).mistakes == ()


@pytest.mark.parametrize("field", ["name", "principal", "action", "resource", "expect"])
def test_a_policys_test_needs_everything_but_a_context(change: Change, field: str) -> None:
    refused = parse(change("Policy", ("spec", "tests"), [{key: value for key, value in TEST.items() if key != field}]))

    assert [(mistake.path, mistake.code) for mistake in refused.mistakes] == [(("spec", "tests", 0, field), "MissingField")]


def test_two_sources_of_keys_contradict(change: Change) -> None:
    refused = parse(change("IdentityProvider", ("spec", "jwks"), {"keys": [KEY]}))

    assert [(mistake.path, mistake.code) for mistake in refused.mistakes] == [(("spec", "jwksURI"), "Contradiction")]


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        pytest.param([], ("keys",), id="no key"),
        pytest.param([KEY] * 4097, ("keys",), id="more keys than anybody has"),
        pytest.param("x", ("keys",), id="not a list"),
        pytest.param([1], ("keys", 0), id="a key that is a number"),
        pytest.param([KEY, {**KEY, "d": "MARKER"}], ("keys", 1), id="a private key"),
        pytest.param([{"kty": "oct", "k": "MARKER"}], ("keys", 0), id="a shared key"),
        pytest.param([{"kty": "oct"}], ("keys", 0), id="a kind of key that can't be public"),
    ],
)
def test_a_key_set_holds_public_keys_only(change: Change, keys: object, path: Path) -> None:
    manifest = change("IdentityProvider", ("spec", "jwks"), {"keys": keys})
    del manifest["spec"]["jwksURI"]
    refused = parse(manifest)

    assert [mistake.path for mistake in refused.mistakes] == [("spec", "jwks", *path)]
    assert "MARKER" not in repr(refused)
