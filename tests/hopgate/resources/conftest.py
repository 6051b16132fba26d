"""What the tests of reading resources share: one good manifest of each kind, and a way to change one field of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from hopgate.resources.fields import Path

Manifest = dict[str, Any]


def _manifest(kind: str, spec: Manifest | None, **metadata: str) -> Manifest:
    manifest: Manifest = {"apiVersion": "hopgate.dev/v1alpha1", "kind": kind, "metadata": {"name": "it", **metadata}}
    return manifest if spec is None else {**manifest, "spec": spec}


GOOD: dict[str, Manifest] = {
    "Agent": _manifest("Agent", {"service": {"name": "planner", "port": 8080}}, namespace="demo"),
    "ToolServer": _manifest("ToolServer", {"protocol": "MCP", "hosts": ["tools.example.com"]}, namespace="demo"),
    "ServiceServer": _manifest("ToolServer", {"protocol": "HTTP", "service": {"name": "tickets", "port": 8080}}, namespace="demo"),
    "SealedServer": _manifest("ToolServer", {"protocol": "HTTP", "hosts": ["sealed.example.com"], "tls": "Sealed"}, namespace="demo"),
    "ModelProvider": _manifest("ModelProvider", {"provider": "OpenAI", "hosts": ["api.openai.com"]}, namespace="demo"),
    "Policy": _manifest("Policy", {"cedar": "permit (principal, action, resource);"}, namespace="demo"),
    "ClusterPolicy": _manifest("ClusterPolicy", {"cedar": "permit (principal, action, resource);"}),
    "IdentityProvider": _manifest(
        "IdentityProvider", {"issuer": "https://idp.example.com", "audiences": ["hopgate"], "jwksURI": "https://idp.example.com/keys"}
    ),
    "ShadowAgent": _manifest("ShadowAgent", {"quarantine": True}),
    "Secret": {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "demo"}, "stringData": {"api.key": "x"}},
}

Change = Callable[[str, Path, object], Manifest]


@pytest.fixture
def change() -> Change:
    """A good manifest of a kind with one field set; the value `...` takes the field away. Mappings on the way are made."""

    def apply(kind: str, path: Path, value: object) -> Manifest:
        manifest = copy.deepcopy(GOOD[kind])
        found: Any = manifest
        for step in path[:-1]:
            found = found.setdefault(step, {}) if isinstance(found, dict) else found[step]
        if value is ...:
            del found[path[-1]]
        else:
            found[path[-1]] = copy.deepcopy(value)
        return manifest

    return apply


@pytest.fixture(params=GOOD, ids=list(GOOD))
def good(request: pytest.FixtureRequest) -> Manifest:
    """Each of the good manifests."""
    return copy.deepcopy(GOOD[request.param])
