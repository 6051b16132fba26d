"""Real Helm installs, upgrades, rolls back and uninstalls hopgate while its processes run, and nothing but CRDs is left behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import chart_processes
from tests.cluster.api_server import ApiServer, eventually
from tests.cluster.helm import CHART, NAMESPACE, RELEASE, Helm
from tests.cluster.node import Programs
from tests.cluster.test_webhook_pods import GOVERNED
from tests.cluster.values import nested

# The node's issuer is not the default of clusters made by kubeadm.
VALUES = {"authz.tokenIssuer": "https://kubernetes.default.svc"}
PROCESSES = ("hopgate-controller", "hopgate-webhooks", "hopgate-authz")
CONFIGURATIONS = "validatingwebhookconfigurations/hopgate-webhooks,mutatingwebhookconfigurations/hopgate-webhooks"


class Installed:
    """The chart on an API server, and its processes as long as they run."""

    def __init__(self, server: ApiServer, helm: Helm, folder: Path) -> None:
        self.server, self.helm, self.folder = server, helm, folder
        server.kubectl("create", "namespace", NAMESPACE)
        self.governed = server.namespace(GOVERNED)
        self.before = chart_processes.listing(server)

    def run(self, command: str, *arguments: str, values: dict[str, Any] | None = None) -> None:
        given = None if values is None else nested({**VALUES, **values})
        self.helm.run(command, RELEASE, *arguments, "--namespace", NAMESPACE, user=self.server.admin, values=given)

    def made(self) -> dict[str, Any]:
        """What the processes have made and what must outlive an upgrade; empty while something is missing."""
        get = self.server.kubectl
        secrets = [
            json.loads(found)["data"]
            for name in ("hopgate-webhooks", "hopgate-authz", "hopgate-open-tls")
            if (found := get("get", "secret", name, "-n", NAMESPACE, "-o", "json", "--ignore-not-found"))
        ]
        config_map = get("get", "configmap", "hopgate-authorities", "-n", self.governed, "-o", "json", "--ignore-not-found")
        bundles = get("get", *CONFIGURATIONS.split(","), "-o", "jsonpath={.items[*].webhooks[*].clientConfig.caBundle}").split()
        holder = get("get", "lease", "hopgate-controller", "-n", NAMESPACE, "-o", "jsonpath={.spec.holderIdentity}")
        keys = get("get", "lease", "hopgate-keys-hopgate-authz-1", "-n", NAMESPACE, "-o", "name", "--ignore-not-found")
        complete = len(secrets) == 3 and config_map and len(bundles) == 3 and holder and keys
        return {"secrets": secrets, "trust": json.loads(config_map)["data"], "bundles": bundles, "holder": holder} if complete else {}

    def replicas(self) -> dict[str, int]:
        found = json.loads(self.server.kubectl("get", "deployments", "-n", NAMESPACE, "-o", "json"))["items"]
        return {each["metadata"]["name"]: each["spec"]["replicas"] for each in found}

    def left(self) -> dict[tuple[str, str, str], dict[str, Any]]:
        """What is there now, was not before, and is neither a definition nor the group that the API server serves for it."""
        found = chart_processes.listing(self.server)
        return {
            key: metadata
            for key, metadata in found.items()
            if key not in self.before
            and not (key[0] == "CustomResourceDefinition" and key[2].endswith(".hopgate.dev"))
            and not (key[0] == "APIService" and key[2].endswith(".hopgate.dev"))
        }


def live(installed: Installed) -> None:
    """From the installation to its end, with every process as its service account."""
    server = installed.server
    installed.run("install", str(CHART), values={})
    assert installed.replicas() == dict.fromkeys(PROCESSES, 2)
    with chart_processes.running(server, installed.folder, PROCESSES) as processes:
        made = eventually(installed.made, "the processes have made what they make")
        installed.run("upgrade", str(CHART), values={"authz.replicas": 3, "webhooks.replicas": 1, "networkPolicies.enabled": False})
        assert installed.replicas() == {"hopgate-authz": 3, "hopgate-controller": 2, "hopgate-webhooks": 1}
        assert installed.made() == made
        assert server.kubectl("get", "networkpolicies", "-n", NAMESPACE, "-o", "name") == ""
        installed.run("rollback", "1")
        assert installed.replicas() == dict.fromkeys(PROCESSES, 2)
        assert installed.made() == made
        assert len(server.kubectl("get", "networkpolicies", "-n", NAMESPACE, "-o", "name").split()) == 3
        for process in processes.values():
            eventually(process.ready, f"{process.name} is ready")
        # Its processes are still there: what they would make now, they may not.
        installed.run("uninstall")
    # Deployments have no controller here that would remove their pods.
    server.kubectl("delete", "pods", "--all", "-n", NAMESPACE, "--wait=false")


def test_nothing_is_left_that_no_owner_takes_along(own_api_server: ApiServer, helm: Helm, tmp_path: Path) -> None:
    """Without a garbage collector: what is left belongs to what is gone, and so would be collected."""
    installed = Installed(own_api_server, helm, tmp_path)
    live(installed)
    uids = {metadata["uid"] for metadata in chart_processes.listing(own_api_server).values()}
    left = installed.left()
    assert {key[2] for key in left} == {
        "hopgate-webhooks",
        "hopgate-authz",
        "hopgate-open-tls",
        "hopgate-authorities",
        "hopgate-keys-hopgate-authz-1",
    }
    for key, metadata in left.items():
        owners = {owner["uid"] for owner in metadata.get("ownerReferences", ())}
        assert owners, key
        assert not owners & uids, key


def test_the_cluster_is_as_it_was(node_programs: Programs, own_api_server: ApiServer, helm: Helm, tmp_path: Path) -> None:
    """With Kubernetes' own garbage collector."""
    server = own_api_server
    server.spawn(
        "kube-controller-manager",
        (
            str(node_programs.node / "kube-controller-manager"),
            f"--kubeconfig={server.admin.kubeconfig}",
            "--leader-elect=false",
            "--use-service-account-credentials=false",
            f"--cert-dir={tmp_path}",
            "--controllers=garbage-collector-controller",
        ),
    )
    installed = Installed(server, helm, tmp_path)
    live(installed)
    eventually(lambda: not installed.left(), "the garbage collector has removed what belonged to hopgate")


@pytest.mark.parametrize("release", ["team"])
def test_another_name_is_installed_as_well(own_api_server: ApiServer, helm: Helm, release: str) -> None:
    own_api_server.kubectl("create", "namespace", NAMESPACE)
    before = chart_processes.listing(own_api_server)
    helm.run("install", release, str(CHART), "--namespace", NAMESPACE, user=own_api_server.admin, values={})
    made = {key[2] for key in chart_processes.listing(own_api_server) if key not in before}
    assert {f"{release}-hopgate-{component}" for component in ("authz", "webhooks", "controller")} <= made
    helm.run("uninstall", release, "--namespace", NAMESPACE, user=own_api_server.admin)
    left = {key for key in chart_processes.listing(own_api_server) if key not in before}
    assert {kind for kind, _, _ in left} == {"CustomResourceDefinition", "APIService"}
