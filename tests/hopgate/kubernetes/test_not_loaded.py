"""One machine needs no cluster: nothing that its gate, its authz or its command loads brings the Kubernetes client along."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "loaded"),
    [
        ("hopgate.cli.main", False),
        ("hopgate.local.gate", False),
        ("hopgate.local.run", False),
        ("authz.process", False),
        ("hopgate.kubernetes.watcher", False),
        ("hopgate.kubernetes.client", True),
    ],
)
def test_the_client_is_loaded_by_its_one_module(module: str, loaded: bool) -> None:
    asks = f"import sys, {module}; sys.exit(10 + ('kubernetes' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", asks], check=False, timeout=60).returncode == 10 + loaded
