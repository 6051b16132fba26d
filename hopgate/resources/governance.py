"""Readers of the kinds that rule: Policy, ClusterPolicy, IdentityProvider, ShadowAgent.

A policy's Cedar text is not read here (`hopgate.policy` does), only that there is some.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from hopgate.identity.names import ObjectName
from hopgate.resources import fields
from hopgate.resources.fields import Code, Field, Fields
from hopgate.resources.kinds import Expectation, IdentityProvider, Policy, PolicyMode, PolicyTest, ShadowAgent

# Cedar's entity literal: a path of identifiers and a string, such as `Hopgate::Agent::"demo/planner"`.
ENTITY = re.compile(r'[A-Za-z_][A-Za-z0-9_]*(?:::[A-Za-z_][A-Za-z0-9_]*)*::"(?:[^"\\\n]|\\["\\])*"')
ACTION = re.compile(r'[A-Za-z]+|(?:Hopgate::)?Action::"[A-Za-z]+"')
# JWK members that hold a private or symmetric key (RFC 7518 sections 6.2.2, 6.3.2 and 6.4; RFC 8037 section 2).
PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
KEY_TYPES: Final = ("RSA", "EC", "OKP")
# As many characters as browsers and servers are known to take.
MAX_URL_CHARACTERS: Final = 2048
LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def policy(name: ObjectName, manifest: Fields) -> Policy:
    """A `Policy`, which binds only callers and destinations of its own namespace."""
    return _policy(name.namespace, name.name, manifest)


def cluster_policy(name: str, manifest: Fields) -> Policy:
    """A `ClusterPolicy`."""
    return _policy(None, name, manifest)


def _policy(namespace: str | None, name: str, manifest: Fields) -> Policy:
    empty = Policy(namespace=namespace, name=name, cedar="")

    def read(field: Field) -> Policy:
        spec = Fields(field)
        result = Policy(
            namespace=namespace,
            name=name,
            cedar=spec.required("cedar", _cedar, ""),
            mode=spec.optional("mode", fields.choice(PolicyMode), empty.mode),
            tests=spec.optional("tests", fields.items(_policy_test), ()),
        )
        names = [test.name for test in result.tests if test.name]
        for repeated in sorted({test for test in names if names.count(test) > 1}):
            spec.refuse(
                "tests", Code.REPEATED, f"expected each test's name once, got {fields.quote(repeated)} {names.count(repeated)} times"
            )
        spec.close()
        return result

    return manifest.required("spec", read, empty)


def _cedar(field: Field) -> str:
    value = fields.text(field)
    if not value.strip():
        raise field.refusal(Code.INVALID_VALUE, "expected at least one Cedar policy, got an empty text")
    return value


def _policy_test(field: Field) -> PolicyTest:
    test = Fields(field)
    result = PolicyTest(
        name=test.required("name", fields.phrase, ""),
        principal=test.required("principal", _entity, ""),
        action=test.required("action", _action, ""),
        resource=test.required("resource", _entity, ""),
        expect=test.required("expect", fields.choice(Expectation), Expectation.DENY),
        context=test.optional("context", fields.cedar_mapping, {}),
    )
    test.close()
    return result


def _entity(field: Field) -> str:
    value = fields.text(field)
    if ENTITY.fullmatch(value) is None:
        raise field.refusal(Code.INVALID_VALUE, f'expected an entity such as `Hopgate::Agent::"demo/planner"`, got {fields.quote(value)}')
    return value


def _action(field: Field) -> str:
    value = fields.text(field)
    if ACTION.fullmatch(value) is None:
        raise field.refusal(
            Code.INVALID_VALUE, f'expected an action such as `CallTool` or `Hopgate::Action::"CallTool"`, got {fields.quote(value)}'
        )
    return value


def identity_provider(name: str, manifest: Fields) -> IdentityProvider:
    """An `IdentityProvider`."""
    empty = IdentityProvider(name=name, issuer="", audiences=())

    def read(field: Field) -> IdentityProvider:
        spec = Fields(field)
        result = IdentityProvider(
            name=name,
            issuer=spec.required("issuer", _issuer, ""),
            audiences=spec.required("audiences", fields.items(fields.phrase, at_least=1), ()),
            jwks_uri=spec.optional("jwksURI", _key_url, None),
            jwks=spec.optional("jwks", _key_set, None),
            user_claim=spec.optional("userClaim", fields.phrase, empty.user_claim),
            groups_claim=spec.optional("groupsClaim", fields.phrase, None),
        )
        if spec.has("jwksURI") == spec.has("jwks"):
            both = spec.has("jwks")
            code = Code.CONTRADICTION if both else Code.MISSING_FIELD
            spec.refuse("jwksURI", code, f"expected exactly one of `jwksURI` and `jwks`, got {'both' if both else 'neither'}")
        spec.close()
        return result

    return manifest.required("spec", read, empty)


def _issuer(field: Field) -> str:
    """OpenID Connect Discovery section 3 allows no fragment; the gate names a user `ISSUER#SUBJECT`."""
    value = fields.phrase(field)
    if "#" in value:
        raise field.refusal(Code.INVALID_VALUE, f"expected an issuer without `#`, got {fields.quote(value)}")
    return value


def _key_url(field: Field) -> str:
    value = fields.phrase(field)
    if len(value) > MAX_URL_CHARACTERS:
        raise field.refusal(Code.INVALID_VALUE, f"expected at most {MAX_URL_CHARACTERS} characters, got {len(value)}")
    try:
        url = urlsplit(value)
        host, _ = url.hostname, url.port
    except ValueError:
        host, url = None, None
    if url is None or not host or url.username is not None or "#" in value or not value.isascii() or " " in value:
        raise field.refusal(Code.INVALID_VALUE, "expected an address such as `https://idp.example.com/keys`")
    if url.scheme != "https" and not (url.scheme == "http" and host in LOOPBACK_HOSTS):
        raise field.refusal(Code.INVALID_VALUE, "expected an `https://` address (`http://` only for this machine's own)")
    return value


def _key_set(field: Field) -> Mapping[str, Any]:
    """A JWK Set (RFC 7517 section 5) of public keys; a key that could sign is refused, and not shown."""
    value = fields.json_mapping(field)
    keys = value.get("keys")
    if not isinstance(keys, list | tuple) or not keys:
        raise field.child("keys", keys).refusal(Code.INVALID_VALUE, "expected a list of at least one public key (RFC 7517)")
    if len(keys) > fields.MAX_ITEMS:
        raise field.child("keys", keys).refusal(Code.INVALID_VALUE, f"expected at most {fields.MAX_ITEMS} keys, got {len(keys)}")
    for position, key in enumerate(keys):
        item = Field(key, (*field.path, "keys", position), [])
        if not isinstance(key, dict):
            raise item.wrong_type("a mapping")
        if PRIVATE_MEMBERS & key.keys():
            raise item.refusal(Code.INVALID_VALUE, "expected a public key, got one with private or shared parts: take them out")
        if key.get("kty") not in KEY_TYPES:
            raise item.refusal(
                Code.INVALID_VALUE, f"expected a key whose `kty` is one of {', '.join(fields.quote(known) for known in KEY_TYPES)}"
            )
    return value


def shadow_agent(name: str, manifest: Fields) -> ShadowAgent:
    """A `ShadowAgent`."""

    def read(field: Field) -> ShadowAgent:
        spec = Fields(field)
        result = ShadowAgent(name=name, quarantine=spec.optional("quarantine", fields.boolean, False))  # noqa: FBT003 - the field's default
        spec.close()
        return result

    return manifest.optional("spec", read, ShadowAgent(name=name))
