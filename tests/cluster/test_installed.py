"""hopgate installed by Helm on a real node: the demo of one machine gives the same verdicts, and what goes without the gate is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy.demo import apply as demo
from hopgate.demo.credentials import Issuer
from tests.cluster import governed_pods
from tests.cluster.api_server import ClusterError, eventually
from tests.cluster.installed import Installed
from tests.cluster.node import Node

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

_ASK = "import socket, sys; print(socket.getaddrinfo(sys.argv[1], 443, socket.AF_INET)[0][4][0])"

# What `make demo` shows of one machine: direction, caller, user, action, resource, verdict, reason, policies. In order of their names.
_PLANNER, _RESEARCHER = "demo/planner", "demo/researcher"
_ASKS = ("demo/planner/asks-researcher-for-a-user",)
_AGENT, _TICKETS, _MODEL = 'Agent::"demo/researcher"', 'ToolServer::"demo/tickets"', 'Model::"demo/openai/gpt-4o'
_SEARCH, _DELETE = 'Tool::"demo/tickets/search"', 'Tool::"demo/tickets/delete"'
DECISIONS = sorted(
    [
        ("Outbound", _PLANNER, "ada", "UseProtocol", _AGENT, "Allow", "Permitted", _ASKS),
        ("Inbound", _PLANNER, "ada", "UseProtocol", _AGENT, "Allow", "Permitted", _ASKS),
        ("Outbound", _PLANNER, "ada", "SendMessage", _AGENT, "Allow", "Permitted", _ASKS),
        ("Inbound", _PLANNER, "ada", "SendMessage", _AGENT, "Allow", "Permitted", _ASKS),
        *(
            ("Outbound", caller, "", *decided)
            for caller in (_PLANNER, _RESEARCHER)
            for decided in (
                ("UseProtocol", _TICKETS, "Allow", "Permitted", (f"{caller}/lists-tools", f"{caller}/searches-a-little")),
                ("CallTool", _SEARCH, "Allow", "Permitted", (f"{caller}/searches-a-little",)),
                ("ListTools", _TICKETS, "Allow", "Permitted", (f"{caller}/lists-tools",)),
            )
        ),
        ("Outbound", _PLANNER, "", "CallTool", _SEARCH, "Deny", "NoPermit", ()),
        ("Outbound", _PLANNER, "", "CallTool", _DELETE, "Deny", "NoPermit", ()),
        ("Outbound", _PLANNER, "", "InvokeModel", f'{_MODEL}-mini"', "Allow", "Permitted", ("demo/planner/uses-the-small-model",)),
        ("Outbound", _PLANNER, "", "InvokeModel", f'{_MODEL}"', "Deny", "NoPermit", ()),
    ]
)


def _decision(record: Mapping[str, Any]) -> tuple[Any, ...]:
    named = tuple(record[name] for name in ("direction", "caller", "user", "action"))
    resource = record["resource"].removeprefix("Hopgate::")
    return (*named, resource, record["verdict"], record["reason"], tuple(sorted(record["policies"])))


@pytest.fixture(scope="module")
def issuer(installed: Installed) -> Issuer:
    """The issuer of the demo's users; its services run."""
    made = Issuer()
    demo.services(installed.server.kubectl, made)
    return made


def test_every_part_is_ready(installed: Installed) -> None:
    assert [len(installed.pods(component)) for component in ("authz", "webhooks", "controller")] == [2, 2, 2]


def test_a_pod_finds_a_service_by_its_name(node: Node, installed: Installed) -> None:
    """The cluster's DNS, before anything is governed."""
    del installed
    namespace = node.namespace()
    node.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "asks", "namespace": namespace},
            "spec": {
                "restartPolicy": "Never",
                "containers": [
                    {
                        "name": "app",
                        "image": demo.IMAGE,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["python", "-c", _ASK, "kubernetes.default"],
                    }
                ],
            },
        }
    )
    assert node.wait_ended(namespace, "asks") == "Succeeded"
    assert node.logs(namespace, "asks").strip() == "10.96.0.1"


def test_the_demo_of_one_machine_has_the_same_verdicts(installed: Installed, issuer: Issuer) -> None:
    before = len(installed.decisions(demo.NAMESPACE))
    demo.planner(installed.server.kubectl, issuer)
    assert sorted(_decision(record) for record in installed.decisions(demo.NAMESPACE)[before:]) == DECISIONS


def test_status_tells_of_pods_that_go_without_the_gate(installed: Installed) -> None:
    """One made before the namespace had its label, and one that somebody with the right let out; a governed one is not told of."""
    node, kubectl = installed.node, installed.server.kubectl
    namespace = node.namespace()
    node.apply(governed_pods.pod(namespace, "early", governed_pods.waiting()))
    kubectl("label", "namespace", namespace, "hopgate.dev/inject=enabled")
    eventually(
        lambda: "hopgate-authorities" in kubectl("get", "configmaps", "-n", namespace, "-o", "name"), "the namespace has its authorities"
    )
    node.apply(governed_pods.pod(namespace, "let-out", governed_pods.waiting(), labels={"hopgate.dev/inject": "disabled"}))
    node.apply(governed_pods.pod(namespace, "governed", governed_pods.waiting()))
    node.wait_ready(namespace, "early", "let-out", "governed")
    done = _hopgate(installed, "status", "--namespace", namespace, "--json")
    found = {each["name"]: each["why"] for each in json.loads(done.stdout)["pods"]["rows"]}
    assert (done.returncode, found) == (1, {"early": "MadeBeforeLabel", "let-out": "OptedOut"})


def test_an_opt_out_without_the_right_is_refused(installed: Installed) -> None:
    namespace = installed.node.namespace({"hopgate.dev/inject": "enabled"})
    tenant = installed.server.user("tenant-of-installed")
    installed.server.kubectl("create", "rolebinding", "edits", "-n", namespace, "--clusterrole=edit", f"--user={tenant.name}")
    made = json.dumps(governed_pods.pod(namespace, "out", governed_pods.waiting(), labels={"hopgate.dev/inject": "disabled"}))

    def attempt() -> str:
        try:
            return installed.server.kubectl("create", "-f", "-", stdin=made, user=tenant)
        except ClusterError as error:
            return str(error)

    eventually(lambda: "(OptOut)" in attempt(), "the right to make pods is in force, and the opt-out is refused")


def test_check_pod_is_the_installed_webhooks_answer(installed: Installed) -> None:
    namespace = installed.node.namespace({"hopgate.dev/inject": "enabled"})
    made = json.dumps(governed_pods.pod(namespace, "asked", governed_pods.waiting(), hostNetwork=True))
    done = _hopgate(installed, "check", "pod", "-f", "-", "-n", namespace, stdin=made)
    assert done.returncode == 1
    assert "HostNetwork" in done.stdout + done.stderr


def _hopgate(installed: Installed, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = (str(Path(sys.executable).with_name("hopgate")), *arguments, "--kubeconfig", str(installed.server.admin.kubeconfig))
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
