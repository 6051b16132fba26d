"""The CustomResourceDefinitions of others, as `build.sh` took them from their modules: cert-manager, Istio, Gateway API, Envoy Gateway."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hopgate import cache

_MODULES = ("istio", "gateway_api", "envoy_gateway", "cert_manager")


def find() -> Path:
    """Their folder. Skips the test where it is not."""
    script = (Path(__file__).parent / "build.sh").read_text()
    versions = [re.search(rf"^{name}_version=v(\S+)", script, re.MULTILINE) for name in _MODULES]
    folder = cache.folder() / "-".join(["definitions", *(found[1] for found in versions if found is not None)])
    if not (folder / ".complete").exists():
        pytest.skip("needs the resource definitions of others: run `make cluster-binaries` (needs Go)")
    return folder
