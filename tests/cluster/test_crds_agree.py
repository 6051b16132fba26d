"""The API server and the reader of a folder say the same of a manifest: whatever is wrong in it, and whatever its fields are.

What only one of them can know is listed here with the reason. Nothing that the server takes, and no webhook refuses, can be unreadable
for the gate.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hopgate.kubernetes import crds
from hopgate.manifests import document
from hopgate.resources import fields, parse
from hopgate.resources.fields import FieldError
from tests.cluster import mistakes
from tests.cluster.mistakes import Mistake
from tests.cluster.verdicts import DEFINITIONS, Manifest, Verdict, Verdicts, changed, paths
from tests.hopgate.resources.conftest import GOOD
from tests.hopgate.resources.test_destinations import CERTIFICATE, CREDENTIAL
from tests.hopgate.resources.test_governance import KEY, TEST

# Mistakes of the reader that the server takes, by id.
READER_ALONE = {
    "Agent: namespace null": "the server takes the namespace from the request's path",
    "Agent: agent: port a float": "JSON has one kind of number: the server keeps 80.0 as 80",
    **{f"{kind}: in a namespace": "the server leaves it out" for kind, found in DEFINITIONS.items() if not found.namespaced},
    "Agent: unknown field metadata.generateName": "the server makes a name from it before it keeps the object",
}
# Of every type, and at the edges of every form; each is put at every place of every example. Numbers beyond 64 bits are in no folder:
# reading YAML refuses them.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 80, 65535, 65536, 2**31, 2**63 - 1, -(2**63), 1.5, 80.0),
    *("", " ", "a", "A", "a b", " a", "a ", "a\n", "\n", "a\tb", "é", "\u202e", "\u00a0", "\u2028", "\ue000", "80", "true"),
    *("a" * 63, "a" * 64, "a." * 126 + "a", "a." * 126 + "aa", "a" * 256, "a" * 257),
    *("/", "/a", "/a/", "/a/../b", "127.0.0.1", "[::1]:80", "[::ffff:1.2.3.4]", "1.2.3.4.", "http://a/", "https://a/", "HTTP", "Open"),
    *([], ["a"], ["a", "a"], [None], [[]], ["a", 1], {}, {"name": "a"}, [{}], [{"name": "a"}], {"a": None}, {"a": 1.5}),
)


def examples() -> list[Manifest]:
    """Those of the reference page: every field of every kind stands in one of them."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "resources.md").read_text()
    texts = re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    found = [part.value for part in document.read("---\n".join(texts).encode()).documents]
    return [manifest for manifest in found if isinstance(manifest, dict) and manifest["kind"] in DEFINITIONS]


def _server_takes(mistake: FieldError, manifest: Manifest) -> bool:
    """Whether this mistake of the reader is one that the server makes good, or that the admission webhook alone can tell."""
    found: Any = manifest
    for step in mistake.path:
        found = found[step]
    if "context" in mistake.path:
        return True  # OpenAPI can't say that a free value has no fractions and nulls in it, at any depth
    return found is None or (isinstance(found, float) and found.is_integer())


def _require_agreement(verdict: Verdict, manifest: Manifest) -> None:
    shown = json.dumps(manifest["spec"])[:300]
    if verdict.answer is None:
        assert verdict.read.mistakes, f"only the server refuses {shown}: {verdict.refusal}"
        return
    unknown = [str(mistake) for mistake in verdict.read.mistakes if not _server_takes(mistake, manifest)]
    assert not unknown, f"only the reader refuses {shown}"
    kept = parse.parse(verdict.answer)
    if not any("context" in mistake.path for mistake in verdict.read.mistakes):
        assert kept.mistakes == (), f"what the server made of {shown} can't be read"
    if not verdict.read.mistakes:
        assert kept.resource == verdict.read.resource, f"the server made something else of {shown}"


@pytest.mark.parametrize("mistake", mistakes.all_mistakes(), ids=lambda mistake: mistake.id)
def test_a_mistake_is_refused_by_both_and_its_neighbour_by_neither(verdicts: Verdicts, mistake: Mistake) -> None:
    refused, allowed = verdicts.of(mistake.kind, mistake.bad), verdicts.of(mistake.kind, mistake.allowed)

    assert refused.read.mistakes
    assert (refused.answer is not None) == (mistake.id in READER_ALONE)
    if refused.answer is None and mistake.bad.get("spec") != mistake.allowed.get("spec"):
        assert any(fields.show(found.path) in refused.refusal for found in refused.read.mistakes), refused.refusal
    assert (allowed.read.mistakes, allowed.refusal) == ((), "")
    assert allowed.answer is not None
    assert parse.parse(allowed.answer).resource == allowed.read.resource


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_every_rule_refuses_something_and_takes_its_neighbour(verdicts: Verdicts, kind: str) -> None:
    """The neighbours are accepted in the test above."""
    refusals = "\n".join(verdicts.of(kind, mistake.bad).refusal for mistake in mistakes.all_mistakes() if mistake.kind == kind)
    messages = [rule["message"] for rule in _rules(crds.manifest(DEFINITIONS[kind]))]

    assert messages
    assert [message for message in messages if message not in refusals] == []


def _rules(value: object) -> Iterator[Manifest]:
    if isinstance(value, dict):
        yield from value.get("x-kubernetes-validations", ())
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _rules(inner)


@pytest.mark.parametrize("example", examples(), ids=lambda example: f"{example['kind']} {example['metadata']['name']}")
def test_any_value_at_any_place_is_judged_alike(verdicts: Verdicts, example: Manifest) -> None:
    for path in paths(example["spec"]):
        for value in (*VALUES, *([...] if path else [])):
            manifest = changed(example, ("spec", *path), value)
            _require_agreement(verdicts.of(example["kind"], manifest), manifest)


@pytest.mark.parametrize("example", examples(), ids=lambda example: f"{example['kind']} {example['metadata']['name']}")
def test_an_unknown_field_anywhere_is_refused_alike(verdicts: Verdicts, example: Manifest) -> None:
    for path in paths(example["spec"]):
        found: Any = example["spec"]
        for step in path:
            found = found[step]
        if isinstance(found, dict):
            manifest = changed(example, ("spec", *path, "unknownField"), "x")
            _require_agreement(verdicts.of(example["kind"], manifest), manifest)


def _combinations(choices: dict[str, tuple[object, ...]]) -> Iterator[Manifest]:
    """Every spec that takes one of each field's choices; `...`: the field is not there."""
    for values in itertools.product(*choices.values()):
        yield {name: value for name, value in zip(choices, values, strict=True) if value is not ...}


@pytest.mark.parametrize(
    ("kind", "choices"),
    [
        ("Agent", {"protocols": (..., ["A2A"], ["HTTP"], ["A2A", "HTTP"]), "path": (..., "/"), "service": (..., {"name": "a", "port": 1})}),
        (
            "ToolServer",
            {
                "protocol": ("MCP", "HTTP"),
                "hosts": (..., ["a.example.com"]),
                "service": (..., {"name": "a", "port": 1}),
                "tls": (..., "Open", "Sealed", "Disabled"),
                "port": (..., 8080),
                "path": (..., "/mcp"),
                "caBundle": (..., CERTIFICATE),
                "tools": (..., [{"name": "a"}]),
                "credential": (..., CREDENTIAL),
            },
        ),
        (
            "ModelProvider",
            {
                "provider": ("OpenAI",),
                "hosts": (["a.example.com"],),
                "tls": (..., "Open", "Sealed", "Disabled"),
                "port": (..., 8080),
                "caBundle": (..., CERTIFICATE),
                "models": (..., ["a"]),
                "credential": (..., CREDENTIAL),
            },
        ),
    ],
    ids=["Agent", "ToolServer", "ModelProvider"],
)
def test_any_fields_together_contradict_each_other_alike(verdicts: Verdicts, kind: str, choices: dict[str, tuple[object, ...]]) -> None:
    accepted = 0
    for spec in _combinations(choices):
        manifest = {"apiVersion": "hopgate.dev/v1alpha1", "kind": kind, "metadata": {"name": "it"}, "spec": spec}
        verdict = verdicts.of(kind, manifest)
        _require_agreement(verdict, manifest)
        accepted += verdict.answer is not None
    assert accepted > 1


@pytest.mark.parametrize(
    ("kind", "path", "item"),
    [
        ("ModelProvider", ("spec", "hosts"), lambda number: f"{number}{'a' * 50}.{'b' * 60}.{'c' * 60}.example.com"),
        ("ModelProvider", ("spec", "models"), lambda number: f"{number}{'m' * 240}"),
        ("ToolServer", ("spec", "tools"), lambda number: {"name": f"{number}{'t' * 240}", "inputSchema": {}}),
        ("Policy", ("spec", "tests"), lambda number: {**TEST, "name": f"test {number}"}),
        ("IdentityProvider", ("spec", "audiences"), lambda number: f"audience {number}"),
        ("IdentityProvider", ("spec", "jwks", "keys"), lambda number: {**KEY, "kid": f"{number}"}),
    ],
    ids=["hosts", "models", "tools", "tests", "audiences", "keys"],
)
def test_the_longest_list_is_taken_and_one_more_is_refused(
    verdicts: Verdicts, kind: str, path: tuple[str, ...], item: Callable[[int], object]
) -> None:
    """With long items too: what the rules cost stays within the server's budget."""
    good = changed(GOOD[kind], ("spec", "jwksURI"), ...) if "jwks" in path else GOOD[kind]
    longest, longer = (changed(good, path, [item(number) for number in range(fields.MAX_ITEMS + more)]) for more in (0, 1))
    taken, refused = verdicts.of(kind, longest), verdicts.of(kind, longer)

    assert (taken.read.mistakes, taken.refusal) == ((), "")
    assert refused.read.mistakes
    assert "must have at most" in refused.refusal


def test_a_schema_beyond_all_reason_is_known_to_the_reader_alone(verdicts: Verdicts) -> None:
    """OpenAPI has no limit of depth for free values; the webhook refuses it."""
    schema: Manifest = {}
    for _ in range(60):
        schema = {"properties": schema}
    spec = {"protocol": "MCP", "hosts": ["a.example.com"], "tools": [{"name": "a", "inputSchema": schema}]}
    verdict = verdicts.of(
        "ToolServer", {"apiVersion": "hopgate.dev/v1alpha1", "kind": "ToolServer", "metadata": {"name": "it"}, "spec": spec}
    )

    assert [mistake.path for mistake in verdict.read.mistakes] == [("spec", "tools", 0, "inputSchema")]
    assert verdict.answer is not None


MARKER = "sk-marker-7f3a"


@pytest.mark.parametrize("kind", mistakes.UPSTREAMS)
@pytest.mark.parametrize(
    "written", [f"{MARKER}/ \n", f"{MARKER}/ \n" * 40, [f"{MARKER}/"], {"value": f"{MARKER}/"}], ids=["text", "long", "list", "map"]
)
@pytest.mark.parametrize("path", [("header",), ("prefix",), ("secretRef", "name"), ("secretRef", "key"), ("secretRef",)], ids="-".join)
def test_a_secret_written_where_its_reference_belongs_is_not_shown(
    verdicts: Verdicts, kind: str, path: tuple[str, ...], written: object
) -> None:
    (example,) = [found for found in examples() if found["kind"] == kind and "credential" in found["spec"]]
    verdict = verdicts.of(kind, changed(example, ("spec", "credential", *path), written))

    assert verdict.refusal
    assert MARKER not in verdict.refusal


def test_a_private_key_is_not_shown(verdicts: Verdicts) -> None:
    hidden = [mistake for mistake in mistakes.all_mistakes() if "MARKER" in json.dumps(mistake.bad)]
    assert len(hidden) > 8
    for mistake in hidden:
        assert "MARKER" not in verdicts.of(mistake.kind, mistake.bad).refusal
    (example,) = [found for found in examples() if found["kind"] == "IdentityProvider"]
    verdict = verdicts.of("IdentityProvider", changed(example, ("spec", "jwksURI"), f"https://u:{MARKER}@a/k"))
    assert verdict.refusal
    assert MARKER not in verdict.refusal
    key = f"-----BEGIN EC PRIVATE KEY-----\n{MARKER}\n-----END EC PRIVATE KEY-----\n"
    (server,) = [found for found in examples() if found["kind"] == "ToolServer" and "caBundle" in found["spec"]]
    verdict = verdicts.of("ToolServer", changed(server, ("spec", "caBundle"), key))
    assert verdict.refusal
    assert MARKER not in verdict.refusal
