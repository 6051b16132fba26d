"""Real Helm, and hopgate's chart."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from hopgate import cache
from tests.cluster.api_server import User

CHART = Path(__file__).resolve().parents[2] / "deploy" / "charts" / "hopgate"
RELEASE, NAMESPACE = "hopgate", "hopgate-system"
# On a machine that is busy; an installation takes 2 s.
SECONDS = 120.0

Values = Mapping[str, Any]


class HelmError(Exception):
    """Helm failed; the message is what it said."""


def find() -> Path | None:
    """The program that `build.sh` made; None: not there."""
    version = re.search(r"^helm_version=v(\S+)$", (Path(__file__).parent / "build.sh").read_text(), re.MULTILINE)
    assert version is not None
    folder = cache.folder() / f"helm-{version[1]}"
    return folder / "helm" if (folder / ".complete").exists() else None


class Helm:
    """The program, with settings of its own."""

    def __init__(self, program: Path) -> None:
        self._program = program

    def run(self, *arguments: str, user: User | None = None, values: Values | None = None, seconds: float = SECONDS) -> str:
        """What it wrote; `values` are given to it as a file. Raises HelmError."""
        with tempfile.TemporaryDirectory() as home:
            given = Path(home) / "values.json"
            given.write_text(json.dumps(values or {}))
            kubeconfig = {} if user is None else {"KUBECONFIG": str(user.kubeconfig)}
            done = subprocess.run(
                (str(self._program), *arguments, *(() if values is None else ("--values", str(given)))),
                env={"PATH": os.environ["PATH"], "HOME": home, **kubeconfig},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        if done.returncode != 0:
            raise HelmError(done.stderr.strip())
        return done.stdout

    def template(self, values: Values | None = None, *, release: str = RELEASE, namespace: str = NAMESPACE) -> str:
        """The manifests of the chart without its CRDs. Raises HelmError."""
        return self.run("template", release, str(CHART), "--namespace", namespace, values=values or {})

    def manifests(self, values: Values | None = None, *, release: str = RELEASE, namespace: str = NAMESPACE) -> list[dict[str, Any]]:
        """The same, read."""
        return [found for found in yaml.safe_load_all(self.template(values, release=release, namespace=namespace)) if found]


def of_this_machine() -> Helm:
    """Skips the test where there is none."""
    program = find()
    if program is None:
        pytest.skip("needs helm: run `make cluster-binaries` (needs Go)")
    return Helm(program)


def of_kind(manifests: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    """Those of these kinds."""
    return [found for found in manifests if found["kind"] in kinds]


def rights(manifests: list[dict[str, Any]], *components: str) -> list[dict[str, Any]]:
    """Who these components' processes are, and what they may do; the controller's Lease, which it may not make."""
    found = of_kind(manifests, "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Lease")
    return [each for each in found if each["metadata"]["labels"]["app.kubernetes.io/component"] in components]


def of_controller(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The controller's rights, and the ClusterRole that owns what it makes for authz."""
    owner = [each for each in rights(manifests, "authz") if each["kind"] == "ClusterRole"]
    return [*rights(manifests, "controller"), *owner]


def policies(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the API server judges by itself."""
    return of_kind(manifests, "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


def as_list(manifests: list[dict[str, Any]]) -> str:
    """As kubectl takes them."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
