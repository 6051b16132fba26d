"""The demo on a cluster where hopgate is installed: `python -m deploy.demo.apply`, with `kubectl` as it is set up.

The resources are those of the demo on one machine (`hopgate/demo/resources`), but for the addresses: on a cluster a tool server is found
by its Service, and the model API stands at its Service's address, since there is no such host. An admin's rights are needed.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import time
from pathlib import Path
from string import Template
from typing import Any, Final, Protocol

import yaml

import hopgate
from hopgate.demo import credentials
from hopgate.demo.credentials import Issuer

HERE: Final = Path(__file__).resolve().parent
NAMESPACE: Final = "demo"
IMAGE: Final = f"hopgate-demo:{hopgate.__version__}"
# Where the image has the agents' programs.
AGENTS: Final = "/opt/hopgate/lib/python3.11/site-packages/hopgate/demo/agents"
SERVICES: Final = ("tickets", "model", "researcher")
_READY: Final = "180s"

Manifest = dict[str, Any]


class Kubectl(Protocol):
    """Runs kubectl."""

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """What it wrote."""


def resources(values: dict[str, str], *, model_address: str) -> list[Manifest]:
    """The demo's resources as a cluster has them; `values` are what the templates are told but for the addresses."""
    found: list[Manifest] = []
    for text in credentials.resources({**values, "tickets_address": "", "model_address": model_address}).values():
        found.extend(yaml.safe_load_all(text))
    for manifest in found:
        if not manifest.get("spec", {}).get("address", "-"):
            del manifest["spec"]["address"]
    return found


def services(kubectl: Kubectl, issuer: Issuer) -> None:
    """Apply what the planner works with, and wait until it is ready."""
    model = credentials.new_model(datetime.datetime.now(datetime.UTC))
    _apply(kubectl, _read("workloads.yaml", model_files=json.dumps(model.files())))
    address = kubectl("get", "service", "model", "--namespace", NAMESPACE, "--output", "jsonpath={.spec.clusterIP}").strip()
    values = {**model.values(), "jwks": json.dumps(issuer.jwks())}
    _apply(kubectl, resources(values, model_address=f"{address}:443"))
    waited = ("--for=condition=Available", f"--timeout={_READY}")
    kubectl("wait", *waited, "--namespace", NAMESPACE, *(f"deployment/{name}" for name in SERVICES))


def planner(kubectl: Kubectl, issuer: Issuer) -> str:
    """Let the planner do a round of work; what it said."""
    kubectl("delete", "job", "planner", "--namespace", NAMESPACE, "--ignore-not-found", "--wait")
    _apply(kubectl, _read("planner.yaml", user_token=issuer.user_token(int(time.time()))))
    kubectl("wait", "--for=condition=Complete", f"--timeout={_READY}", "--namespace", NAMESPACE, "job/planner")
    return kubectl("logs", "--namespace", NAMESPACE, "job/planner", "--container", "planner")


def _read(name: str, **values: str) -> list[Manifest]:
    text = Template((HERE / name).read_text()).substitute(image=IMAGE, agents=AGENTS, **values)
    return list(yaml.safe_load_all(text))


def _apply(kubectl: Kubectl, manifests: list[Manifest]) -> None:
    kubectl("apply", "--filename", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))


def _kubectl(program: str) -> Kubectl:
    def run(*arguments: str, stdin: str | None = None) -> str:
        return subprocess.run((program, *arguments), input=stdin or "", stdout=subprocess.PIPE, text=True, check=True).stdout

    return run


def main() -> int:
    """Exit code 1 when kubectl failed, which says why."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo.apply", description="Run the demo on a cluster with hopgate.")
    parser.add_argument("--kubectl", default="kubectl", help="the program (default: %(default)s)")
    kubectl, issuer = _kubectl(parser.parse_args().kubectl), Issuer()
    try:
        services(kubectl, issuer)
        sys.stdout.write(planner(kubectl, issuer))
    except subprocess.CalledProcessError as error:
        return int(error.returncode != 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
