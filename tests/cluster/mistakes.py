"""The mistakes that the tests of `hopgate.resources` know, as whole manifests: each beside one that differs in one fact and is allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from hopgate.resources import fields, network
from hopgate.resources.fields import Path
from tests.cluster.verdicts import DEFINITIONS, Manifest, changed
from tests.hopgate.resources import test_destinations, test_governance, test_network, test_parse
from tests.hopgate.resources.conftest import GOOD

Table = Callable[..., None]

UPSTREAMS = ("ToolServer", "ModelProvider")
CREDENTIAL: Path = ("spec", "credential")
BUNDLE: Path = ("spec", "caBundle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """`kind` is the definition's; `allowed` differs from `bad` in one fact."""

    id: str
    kind: str
    bad: Manifest
    allowed: Manifest


def all_mistakes() -> list[Mistake]:
    """Every mistake, with an id of its own."""
    found = [*_fields(), *_names(), *_hosts(), *_addresses(), *_credentials(), *_bundles(), *_policies(), *_identity_providers()]
    assert len({mistake.id for mistake in found}) == len(found)
    return found


def _rows(table: Table) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a parametrised test, by id."""
    (mark,) = [mark for mark in table.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]  # pytest's
    arguments, values = mark.args
    single = isinstance(arguments, str)
    names = [arguments] if single else list(arguments)
    ids = mark.kwargs.get("ids")
    for position, row in enumerate(values):
        parameters = pytest.param(row) if single else row if isinstance(row, type(pytest.param())) else pytest.param(*row)
        own_id = str(parameters.id or (ids[position] if isinstance(ids, list) else ascii(parameters.values[0])[:40]))
        yield own_id, dict(zip(names, parameters.values, strict=True))


def _mistake(called: str, good: str, path: Path, bad: object, allowed: object) -> Mistake:
    """`allowed` `...`: the good manifest itself."""
    manifest = GOOD[good]
    neighbour = manifest if allowed is ... else changed(manifest, path, allowed)
    return Mistake(id=f"{good}: {called}", kind=manifest["kind"], bad=changed(manifest, path, bad), allowed=neighbour)


def _fields() -> Iterator[Mistake]:
    for module in (test_parse, test_destinations, test_governance):
        for called, row in _rows(module.test_a_mistake_names_its_field):
            if row["kind"] != "Secret":
                yield _mistake(called, row["kind"], row["path"], row["bad"], row["allowed"])
    for _, row in _rows(test_parse.test_an_unknown_field_is_refused_at_every_level):
        yield _mistake(f"unknown field {fields.show(row['path'])}", "Agent", row["path"], "x", ...)
    for called, row in _rows(test_destinations.test_an_item_twice_in_a_list_is_refused):
        kind = "Agent" if called == "protocols" else "ModelProvider"
        yield _mistake(f"{called} twice", kind, row["path"], row["value"], row["allowed"])
    for called, row in _rows(test_destinations.test_what_needs_sight_is_refused_for_sealed_and_allowed_for_open):
        allowed = changed(GOOD[row["kind"]], ("spec", row["field"]), row["value"])
        bad = changed(allowed, ("spec", "tls"), "Sealed")
        yield Mistake(id=f"{row['kind']}: sealed with {called}", kind=row["kind"], bad=bad, allowed=allowed)
    for called, row in _rows(test_destinations.test_a_tools_name_is_printable_and_short):
        if not row["accepted"]:
            yield _mistake(f"tool's name {called}", "ToolServer", ("spec", "tools"), [{"name": row["name"]}], [{"name": "a"}])
            yield _mistake(f"model's name {called}", "ModelProvider", ("spec", "models"), [row["name"]], ["a"])
    yield _mistake("service and hosts", "ToolServer", ("spec", "service"), {"name": "a", "port": 80}, ...)
    yield _mistake(
        "path where there is no A2A", "Agent", ("spec",), {"protocols": ["HTTP"], "path": "/"}, {"protocols": ["A2A"], "path": "/"}
    )
    yield _mistake("path with a dot for a part", "ToolServer", ("spec", "path"), "/a/./b", "/a/.b")
    for kind in UPSTREAMS:
        allowed = changed(changed(GOOD[kind], BUNDLE, test_destinations.CERTIFICATE), ("spec", "tls"), "Open")
        yield Mistake(id=f"{kind}: plain with caBundle", kind=kind, bad=changed(allowed, ("spec", "tls"), "Disabled"), allowed=allowed)


def _names() -> Iterator[Mistake]:
    for kind, definition in DEFINITIONS.items():
        yield _mistake("label of 64 in its name", kind, ("metadata", "name"), f"a.{'a' * 64}", f"a.{'a' * 63}")
        if not definition.namespaced:
            yield _mistake("in a namespace", kind, ("metadata", "namespace"), "demo", ...)


def _hosts() -> Iterator[Mistake]:
    for kind in UPSTREAMS:
        for called, row in _rows(test_network.test_a_host_is_one_spelling_of_an_outside_name):
            yield _mistake(f"host: {called}", kind, ("spec", "hosts"), [row["bad"]], [row["allowed"]])
        for suffix in network.INSIDE_SUFFIXES:
            yield _mistake(f"host: end of a label, {suffix}", kind, ("spec", "hosts"), [f"a.{suffix}"], [f"a{suffix}"])


def _addresses() -> Iterator[Mistake]:
    allowed = [row["text"] for _, row in _rows(test_network.test_an_address_may_be_any_machine_that_its_author_names)]
    for kind in UPSTREAMS:
        table = _rows(test_network.test_an_address_that_no_hop_may_go_to_is_refused_with_the_reason)
        for position, (called, row) in enumerate(table):
            yield _mistake(f"address: {called}", kind, ("spec", "address"), row["bad"], allowed[position % len(allowed)])


def _credentials() -> Iterator[Mistake]:
    good = test_destinations.CREDENTIAL
    for kind in UPSTREAMS:
        for called, row in _rows(test_destinations.test_a_credential_refers_to_one_key_of_a_secret_of_its_namespace):
            bad = changed({"credential": good}, ("credential", *row["path"]), row["bad"])["credential"]
            yield _mistake(f"credential: {called}", kind, CREDENTIAL, bad, good)
        for _, row in _rows(test_network.test_a_header_that_http_or_the_gate_uses_carries_no_credential):
            yield _mistake(f"header {row['bad']!a:.40}", kind, CREDENTIAL, {**good, "header": row["bad"]}, {**good, "header": "X-Api-Key"})
        for _, row in _rows(test_network.test_a_prefix_can_not_break_a_header):
            yield _mistake(f"prefix {row['bad']!a:.40}", kind, CREDENTIAL, {**good, "prefix": row["bad"]}, {**good, "prefix": "Bearer "})


def _bundles() -> Iterator[Mistake]:
    good = test_destinations.CERTIFICATE
    two_lines = good.replace("MIIB\n", f"MIIB{'A' * 300}\n")
    too_long = two_lines * 1000
    for kind in UPSTREAMS:
        for called, row in _rows(test_network.test_a_bundle_is_certificates_and_nothing_else):
            yield _mistake(f"caBundle: {called}", kind, BUNDLE, row["bad"], f"\n  {good}\r\n\t\n{good}")
        yield _mistake("caBundle: two in one line", kind, BUNDLE, good.rstrip() + good, good + good)
        yield _mistake("caBundle: a key beside", kind, BUNDLE, good + test_destinations.PRIVATE_KEY, good)
        yield _mistake("caBundle: too long", kind, BUNDLE, too_long, two_lines * 600)


def _policies() -> Iterator[Mistake]:
    good = test_governance.TEST
    for kind in ("Policy", "ClusterPolicy"):
        for called, row in _rows(test_governance.test_a_policys_test_names_its_mistake):
            bad, allowed = [{**good, row["field"]: row["bad"]}], [{**good, row["field"]: row["allowed"]}]
            yield _mistake(f"test: {called}", kind, ("spec", "tests"), bad, allowed)
        for name in ("name", "principal", "action", "resource", "expect"):
            bad = [{key: value for key, value in good.items() if key != name}]
            yield _mistake(f"test without {name}", kind, ("spec", "tests"), bad, [good])


def _identity_providers() -> Iterator[Mistake]:
    kind, good = "IdentityProvider", GOOD["IdentityProvider"]["spec"]
    key = test_governance.KEY
    without = {name: value for name, value in good.items() if name != "jwksURI"}
    for called, row in _rows(test_governance.test_a_key_set_holds_public_keys_only):
        yield _mistake(called, kind, ("spec",), {**without, "jwks": {"keys": row["keys"]}}, {**without, "jwks": {"keys": [key]}})
    for member in ("d", "p", "q", "dp", "dq", "qi", "oth", "k"):
        bad, allowed = {**key, member: "MARKER"}, {**key, "x5t": "MARKER"}
        yield _mistake(
            f"key with {member}", kind, ("spec",), {**without, "jwks": {"keys": [bad]}}, {**without, "jwks": {"keys": [allowed]}}
        )
    yield _mistake("two sources of keys", kind, ("spec", "jwks"), {"keys": [key]}, ...)
    for refused, accepted in (
        ("https://a:65536/k", "https://a:65535/k"),
        ("http://localhost.a/k", "http://LOCALHOST/k"),
        ("http://[::2]/k", "http://[::1]:80"),
        ("https://a/#k", "https://a/k?k=%20"),
        ("https://@a/k", "https://a/@k"),
        ("https://a%20b/k", "https://a-b/k"),
        ("https://a\\b/k", "HTTPS://A_b/k"),
        ("https://a b/k", "https://a"),
        ("https://a/" + "k" * 2039, "https://a/" + "k" * 2038),
        ("//a/k", "https://1.2.3.4/k"),
    ):
        yield _mistake(f"jwksURI {refused[:40]}", kind, ("spec", "jwksURI"), refused, accepted)
