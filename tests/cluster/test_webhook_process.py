"""`python -m hopgate.cluster webhooks` on a real API server, with the rights that it needs and no others."""

from __future__ import annotations

import http.client
import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hopgate.audit import verify
from hopgate.kubernetes import sidecar
from hopgate.kubernetes import webhook_configurations as configurations
from tests.cluster import helm as helms
from tests.cluster.api_server import ApiServer, eventually, free_ports
from tests.cluster.conftest import DEFINITIONS
from tests.cluster.test_webhook_pods import GOVERNED, make, starts_with_gate
from tests.cluster.webhooks import try_apply

NAME, NAMESPACE = "hopgate-webhooks", "hopgate-system"


def chart() -> list[dict[str, Any]]:
    return helms.of_this_machine().manifests(namespace=NAMESPACE)


def make_authz_service(server: ApiServer) -> str:
    """The chart's, and its address."""
    [service] = [found for found in helms.of_kind(chart(), "Service") if found["metadata"]["name"] == "hopgate-authz"]
    server.kubectl("apply", "-f", "-", stdin=json.dumps(service))
    return server.kubectl("get", "service", "hopgate-authz", "-n", NAMESPACE, "-o", "jsonpath={.spec.clusterIP}")


class Process:
    """The command."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self.server = server
        self.port = free_ports(1)[0]
        self.spool = folder / "spool"
        self._certificates = folder / "certificates"
        user = server.user("system:serviceaccount:hopgate-system:hopgate-webhooks")
        server.kubectl("apply", "-f", "-", stdin=helms.as_list(helms.rights(chart(), "webhooks")))
        self._log = folder / "log"
        options = {
            "--kubeconfig": user.kubeconfig,
            "--namespace": NAMESPACE,
            "--name": NAME,
            "--listen": f"127.0.0.1:{self.port}",
            "--server-name": "127.0.0.1",
            "--certificates": self._certificates,
            "--spool": self.spool,
            "--proxy-image": "proxy:1",
            "--authz-service": f"{NAMESPACE}/hopgate-authz",
        }
        self._given = [str(part) for option in options.items() for part in option]
        self.process = self.start()

    def start(self, before: tuple[str, ...] = (sys.executable, "-m", "hopgate.cluster")) -> subprocess.Popen[bytes]:
        """Run it; `before` is what stands before its arguments."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen((*before, "webhooks", *self._given), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        return self.process

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def await_certificate(self, before: bytes = b"") -> None:
        """Wait until it has a certificate, and another than `before`."""

        def made() -> bool:
            assert self.process.poll() is None, self._log.read_text()
            return self.certificate() not in {b"", before}

        eventually(made, "the process has a certificate")

    def certificate(self) -> bytes:
        """What it serves with; nothing while it has none."""
        file = self._certificates / "tls.crt"
        return file.read_bytes() if file.exists() else b""

    def register(self) -> None:
        """As the chart does: without a `caBundle`, which is the process's to write."""
        client = {"url": f"https://127.0.0.1:{self.port}"}
        for made in (
            configurations.validating(NAME, {"url": client["url"] + configurations.VALIDATE_PATH}),
            configurations.mutating(NAME, {"url": client["url"] + configurations.INJECT_PATH}, NAMESPACE),
        ):
            self.server.kubectl("create", "-f", "-", stdin=json.dumps(made))

    def changes(self) -> list[dict[str, Any]]:
        lines = [line for file in sorted(self.spool.rglob("*.jsonl")) for line in file.read_bytes().splitlines()]
        return [json.loads(line)["record"] for line in lines]


@contextmanager
def started(server: ApiServer, folder: Path) -> Iterator[Process]:
    running = Process(server, folder)
    try:
        yield running
    finally:
        running.kill()


@pytest.fixture
def server(own_api_server: ApiServer) -> ApiServer:
    own_api_server.install(DEFINITIONS)
    own_api_server.kubectl("create", "namespace", NAMESPACE)
    make_authz_service(own_api_server)
    return own_api_server


def test_it_serves_both_webhooks_with_certificates_of_its_own_and_records_what_was_accepted(server: ApiServer, tmp_path: Path) -> None:
    with started(server, tmp_path) as running:
        running.register()
        running.await_certificate()
        bad = {"cedar": "permit (\n  principal,"}
        eventually(lambda: "spec.cedar line 2" in try_apply(server, "default", "Policy", "bad", bad, dry_run=True), "a mistake is refused")
        assert "(InvalidSyntax)" in try_apply(server, "default", "Policy", "bad", bad)
        assert try_apply(server, "default", "Agent", "planner", {"owner": "team-a"}) == ""
        governed, other = server.namespace(GOVERNED), server.namespace()
        eventually(lambda: starts_with_gate(make(server, governed, "probe", dry_run=True)), "pods are asked about")
        pod = make(server, governed, "one")
        assert starts_with_gate(pod)
        assert pod["spec"]["initContainers"][0]["image"] == "proxy:1"
        assert not starts_with_gate(make(server, other, "one"))
        assert "(HostNetwork)" in make(server, governed, "two", spec={"hostNetwork": True})
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
        assert [(change["operation"], change["kind"], change["name"]) for change in running.changes()] == [
            ("Create", "Agent", "default/planner")
        ]
        assert verify.verify(running.spool).faults == ()
        # Nobody answers: what was governed stays shut, and a deletion goes on.
        assert "failed calling webhook" in try_apply(server, "default", "Agent", "other", {})
        assert "failed calling webhook" in make(server, governed, "three")
        assert "initContainers" not in make(server, other, "two")["spec"]
        server.kubectl("delete", "agent.hopgate.dev", "planner", "-n", "default")


def test_two_processes_keep_one_certificate(server: ApiServer, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with started(server, tmp_path / "one") as one, started(server, tmp_path / "two") as two:
        one.register()
        for each in (one, two):
            each.await_certificate()
        first = server.kubectl("get", "secret", NAME, "-n", NAMESPACE, "-o", "jsonpath={.data}")

        def trusted() -> bool:
            path = "jsonpath={.webhooks[*].clientConfig.caBundle}"
            found = server.kubectl("get", "validatingwebhookconfiguration", NAME, "-o", path).split()
            return len(found) == 2 and len(set(found)) == 1

        eventually(trusted, "the configuration has the authority")
        eventually(lambda: try_apply(server, "default", "Agent", "planner", {}) == "", "the first answers")
        assert server.kubectl("get", "secret", NAME, "-n", NAMESPACE, "-o", "jsonpath={.data}") == first
        assert two.process.poll() is None


def test_pods_are_told_where_authz_is_at_that_moment(server: ApiServer, tmp_path: Path) -> None:
    """Without authz's Service no pod is injected, and none goes ungoverned; changes of resources are judged all the same."""
    service = ("service", "hopgate-authz", "-n", NAMESPACE)
    server.kubectl("delete", *service)
    with started(server, tmp_path) as running:
        running.register()
        running.await_certificate()
        eventually(
            lambda: "spec.cedar line" in try_apply(server, "default", "Policy", "bad", {"cedar": "permit ("}, dry_run=True), "judged"
        )
        governed = server.namespace(GOVERNED)
        eventually(lambda: "which does not exist: install authz" in make(server, governed, "zero"), "the pod is refused with the reason")
        assert readiness(running) == 503

        first = make_authz_service(server)
        eventually(lambda: readiness(running) == 200, "the process is ready")
        assert authz_addresses(make(server, governed, "one")) == [first]
        server.kubectl("delete", *service)
        headless = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hopgate-authz", "namespace": NAMESPACE}}
        server.kubectl("apply", "-f", "-", stdin=json.dumps({**headless, "spec": {"clusterIP": "None", "ports": [{"port": 8443}]}}))
        assert "to have a cluster address, which it has not" in make(server, governed, "two")
        assert readiness(running) == 200
        server.kubectl("delete", *service)
        # So that the next has another address.
        taken = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "other", "namespace": "default"}}
        server.kubectl("apply", "-f", "-", stdin=json.dumps({**taken, "spec": {"clusterIP": first, "ports": [{"port": 80}]}}))
        second = make_authz_service(server)
        assert second != first
        assert authz_addresses(make(server, governed, "two")) == [second]


def readiness(running: Process) -> int:
    connection = http.client.HTTPSConnection("127.0.0.1", running.port, timeout=10, context=ssl._create_unverified_context())  # noqa: S323
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status
    finally:
        connection.close()


def authz_addresses(pod: Any) -> list[str]:
    """Those that a governed pod was told."""
    assert starts_with_gate(pod), pod
    [plan] = [each["value"] for each in pod["spec"]["initContainers"][0]["env"] if each["name"] == sidecar.PLAN_VARIABLE]
    return list(sidecar.parse(plan).authz_addresses)
