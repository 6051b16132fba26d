"""100,000 generated manifests: each gives resources or mistakes, never another exception, and no mistake shows a Secret's value.

Half are bytes of good manifests changed at random, half are good manifests with parts of their structure exchanged; a seed makes a
failure repeatable.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hopgate.manifests import document
from hopgate.manifests.document import Reading
from hopgate.resources import parse, registry
from hopgate.resources.kinds import Resource

HALF = 50_000
MARKER = "k7Qmarker"

TEXTS = [
    b"apiVersion: hopgate.dev/v1alpha1\nkind: Agent\nmetadata: {name: planner, namespace: demo, labels: {a: b}}\nspec:\n"
    b"  owner: team-a\n  protocols: [A2A, HTTP]\n  service: {name: planner, port: 8080}\n",
    b"apiVersion: hopgate.dev/v1alpha1\nkind: ToolServer\nmetadata: {name: tickets}\nspec:\n  protocol: MCP\n  hosts:\n  - t.example.com\n"
    b"  port: 443\n  address: '[::1]:80'\n  tools:\n  - name: search\n    inputSchema: {type: object, maximum: 1.5, required: [a]}\n"
    b'  credential: {secretRef: {name: s, key: k}, header: x-api-key, prefix: "Bearer "}\n',
    b"apiVersion: hopgate.dev/v1alpha1\nkind: ModelProvider\nmetadata: {name: m}\nspec: {provider: OpenAI, hosts: [api.example.com],\n"
    b"  address: 127.0.0.1:80, tls: Open, models: [a, b]}\n",
    b"apiVersion: hopgate.dev/v1alpha1\nkind: Policy\nmetadata: {name: p}\nspec:\n  mode: Observe\n  cedar: |\n    permit (principal,\n"
    b"      action, resource);\n  tests:\n  - {name: t, principal: 'Agent::\"a/b\"', action: CallTool, resource: 'Tool::\"a/b/c\"',\n"
    b"     expect: Allow, context: {n: 1, l: [true, x]}}\n",
    b"apiVersion: hopgate.dev/v1alpha1\nkind: IdentityProvider\nmetadata: {name: i}\nspec:\n  issuer: https://i\n  audiences: [a]\n"
    b"  jwks: {keys: [{kty: OKP, crv: Ed25519, x: AAAA}]}\n  groupsClaim: groups\n",
    b"apiVersion: hopgate.dev/v1alpha1\nkind: ShadowAgent\nmetadata: {name: s}\nspec: {quarantine: true}\n",
    b"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {j: azdRbWFya2Vy}\nstringData:\n  k: k7Qmarker\n",
]
PIECES = [
    *(bytes([byte]) for byte in b":-?[]{}&*!|>'\"%@`#,\n \t~<=0.\\\0\x7f\xff\x80"),
    *(
        b"---\n",
        b"...\n",
        b"<<: ",
        b"&a ",
        b"*a ",
        b"!!str ",
        b"!!binary ",
        b"|\n",
        b"? ",
        b": ",
        b"- ",
        b"\r\n",
        b"\xef\xbb\xbf",
        b"\xc2\x85",
    ),
    *(
        b"1e999",
        b".nan",
        b"-.inf",
        b"9" * 30,
        b"[" * 80,
        b"{a: " * 80,
        b"\\ud800",
        b"\\x00",
        b"null",
        b"true",
        b"2026-01-01",
        b"%YAML 9.9\n",
    ),
]
VALUES: list[object] = [
    *(None, True, False, 0, -1, 443, 65536, 2**63, -(2**70), 1.5, float("nan"), float("inf")),
    *(
        "",
        " ",
        "a",
        "A",
        "a.b",
        "a/b",
        "1.2.3.4",
        "[::1]:80",
        "[fe80::1%x]",
        "localhost",
        "\0",
        "\n",
        "\ud800",
        "\u202e",
        "x" * 300,
        "é",
        "host",
    ),
    *([], [[]], {}, {"": ""}, ["a", "a"], {"name": "a"}, {"keys": [1]}, [None], [{}], {1: 2}, {"a": {1: 2}}, [{"kty": ["x"]}], {"kty": {}}),
]
KEYS = ["name", "spec", "hosts", "service", "port", "tls", "kind", "data", "jwks", "keys", "kty", "metadata", "x", "", "\n", "<<", "status"]


def _mutated(rng: random.Random) -> bytes:
    data = bytearray(rng.choice(TEXTS))
    for _ in range(rng.randint(1, 2)):
        at, until = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
        match rng.randrange(6):
            case 0:
                data[at:at] = rng.choice(PIECES)
            case 1:
                del data[at : min(until, at + rng.randint(1, 12))]
            case 2:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 3:
                data[at:at] = data[at : min(until, at + 40)]
            case 4:
                data[at : at + rng.randint(1, 8)] = rng.choice(PIECES)
            case _:
                other = rng.choice(TEXTS)
                data[at:] = b"---\n" * rng.randrange(2) + other[rng.randint(0, len(other)) :]
    return bytes(data)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container below `value` with each of its keys or positions."""
    entries = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    for key, found in entries:
        yield value, key
        yield from _places(found)


def _restructured(rng: random.Random, manifests: list[Any]) -> Any:
    manifest = copy.deepcopy(rng.choice(manifests))
    for _ in range(rng.randint(1, 3)):
        places = list(_places(manifest))
        if not places:
            break
        container, key = rng.choice(places)
        match rng.randrange(5):
            case 0 | 1:
                container[key] = copy.deepcopy(rng.choice(VALUES))
            case 2:
                del container[key]
            case 3 if isinstance(container, dict):
                container[rng.choice(KEYS)] = container[key]
            case _:
                container[key] = copy.deepcopy(rng.choice(manifests))
    return manifest


def _require_answers(reading: Reading, collected: list[Resource]) -> None:
    for found in reading.documents:
        result = parse.parse(found.value)
        assert (result.resource is None) == bool(result.mistakes)
        for mistake in result.mistakes:
            assert found.layout.locate(mistake.path).line >= 1
        assert MARKER not in repr(result) or not _is_the_markers_place(found.value)
        if result.resource is not None:
            collected.append(result.resource)


def _is_the_markers_place(value: Any) -> bool:
    """Whether the marker stands where a Secret has its values, and nowhere else."""
    if not isinstance(value, dict) or value.get("kind") != "Secret":
        return False
    values = [value.pop("data", None), value.pop("stringData", None)]
    keys = [key for found in values if isinstance(found, dict) for key in found]
    return MARKER not in repr(value) + repr(keys)


def _register(collected: list[Resource]) -> None:
    """What was accepted, all together, gives a registry or conflicts."""
    result = registry.build(collected)
    assert (result.registry is None) == bool(result.conflicts)
    collected.clear()


def _each(count: int, one: Callable[[random.Random, list[Resource]], None]) -> int:
    """Run `one` for `count` seeds; how many resources were accepted on the way."""
    collected: list[Resource] = []
    accepted = 0
    for seed in range(count):
        one(random.Random(seed), collected)
        if len(collected) >= 50:
            accepted += len(collected)
            _register(collected)
    return accepted + len(collected)


@pytest.mark.slow
def test_any_change_of_bytes_gives_resources_or_mistakes() -> None:
    def one(rng: random.Random, collected: list[Resource]) -> None:
        _require_answers(document.read(_mutated(rng)), collected)

    # So many get through that what is behind the reader is tested too.
    assert HALF * 0.02 < _each(HALF, one) < HALF


@pytest.mark.slow
def test_any_change_of_structure_gives_resources_or_mistakes() -> None:
    manifests = [document.read(text).documents[0].value for text in TEXTS]

    def one(rng: random.Random, collected: list[Resource]) -> None:
        manifest = _restructured(rng, manifests)
        result = parse.parse(manifest)
        assert (result.resource is None) == bool(result.mistakes)
        if rng.randrange(4) == 0:
            _require_answers(document.read(json.dumps(manifest, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")), [])
        if result.resource is not None:
            collected.append(result.resource)

    assert HALF * 0.02 < _each(HALF, one) < HALF
