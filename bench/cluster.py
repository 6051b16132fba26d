"""The Kubernetes side on a real API server: what injection adds to a pod, how soon an edit is in force, and what a large cluster costs.

Everything is the real thing: kube-apiserver and etcd, the processes of webhooks and authz, RBAC tokens, TLS. It takes three minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import cluster_world, edits
from bench.authz_alone import resident_mb
from bench.figures import Figure, percentile
from hopgate.kubernetes.client import Client
from tests.authz.certificates import Mounted
from tests.cluster import api_server
from tests.cluster.api_server import ApiServer
from tests.cluster.conftest import DEFINITIONS
from tests.cluster.installation import ACCOUNT, SYSTEM, Authz, Installation, installed
from tests.cluster.test_identity import Place

PODS_A_SECOND, PODS = 20, 200


def measure() -> list[Figure]:
    binaries = api_server.find_binaries()
    if binaries is None:
        return [Figure(what="left out: needs kube-apiserver and etcd, run `make cluster-binaries` (needs Go)", value="")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ApiServer(binaries, folder / "server") as server, installed(server, folder) as running, _client(server) as client:
            small = [*_injection(running, client), *_in_force(running, client, folder)]
        (folder / "large").mkdir()
        with ApiServer(binaries, folder / "large" / "server") as server, _client(server) as client:
            return [*small, *_large(server, client, folder / "large")]


@contextlib.contextmanager
def _client(server: ApiServer) -> Iterator[Client]:
    client = Client.connect(server.admin.kubeconfig)
    try:
        yield client
    finally:
        client.close()


def _injection(running: Installation, client: Client) -> list[Figure]:
    """Pods of a governed namespace and of another, in turns, 20 a second in all; then the webhook by itself."""
    cluster_world.make_namespaces(client, ["pods-governed"], {"hopgate.dev/inject": "enabled"})
    cluster_world.make_namespaces(client, ["pods-plain"])
    spent: dict[str, list[float]] = {"pods-governed": [], "pods-plain": []}
    began = time.perf_counter()
    for number in range(2 * PODS):
        time.sleep(max(0.0, began + number / (2 * PODS_A_SECOND) - time.perf_counter()))
        namespace = ("pods-governed", "pods-plain")[number % 2]
        body = cluster_world.pod(f"pod-{number}", "default")
        started = time.perf_counter()
        client.call("POST", f"/api/v1/namespaces/{namespace}/pods", body)
        spent[namespace].append((time.perf_counter() - started) * 1000)
    alone = _webhook_alone(running)
    governed, plain = spent["pods-governed"], spent["pods-plain"]
    figures = []
    for share, target in ((0.5, ""), (0.99, "50 ms")):
        one, other = percentile(plain, share), percentile(governed, share)
        shown = f"{one:.1f} / {other:.1f} / {other - one:.1f} ms"
        figures.append(
            Figure(
                what=f"p{share * 100:.0f} of making a pod, {PODS_A_SECOND} a second: plain / injected / added", value=shown, target=target
            )
        )
        figures.append(
            Figure(what=f"p{share * 100:.0f} of the webhook's own answer", value=f"{percentile(alone, share):.1f} ms", target=target)
        )
    return figures


def _webhook_alone(running: Installation) -> list[float]:
    """Milliseconds of each answer, asked as the API server asks, on one connection."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", running.webhooks.port, context=context, timeout=10)
    pod = {**cluster_world.pod("alone", "default", namespace="pods-governed")}
    request: dict[str, Any] = {
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "pods-governed",
        "name": "alone",
        "operation": "CREATE",
        "dryRun": True,
        "userInfo": {"username": "bench", "groups": ["system:authenticated"]},
        "object": pod,
    }
    spent = []
    began = time.perf_counter()
    for number in range(PODS):
        time.sleep(max(0.0, began + number / PODS_A_SECOND / 2 - time.perf_counter()))
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {**request, "uid": str(number)}})
        started = time.perf_counter()
        connection.request("POST", "/inject", body, {"content-type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        spent.append((time.perf_counter() - started) * 1000)
        if not answer["response"].get("patch"):
            raise RuntimeError(f"the pod is not injected: {answer}")
    connection.close()
    return spent


def _in_force(running: Installation, client: Client, folder: Path) -> list[Figure]:
    """Edits of one policy in a small cluster, two processes of authz, without checks beside them and with."""
    cluster_world.make_namespaces(client, ["bench-0", "bench-1"])
    cluster_world.write(client, cluster_world.small(), writers=1)
    token = _token(running.server, "bench-0", "agent-0", "edits-1")
    second = Authz(running.server, folder, running.mounted, "authz-2")
    try:
        second.start()
        ports = (running.authz.ports.listen, second.ports.listen)
        edited = edits.Edited(client=client, ports=ports, mounted=running.mounted, token=token, others=1)
        return asyncio.run(edits.measure(edited, "few objects"))
    finally:
        second.close()


def _token(server: ApiServer, namespace: str, account: str, pod: str) -> str:
    place = Place(server, namespace)
    place.account(account)
    return place.token(place.pod(pod, account), account=account)


def _large(server: ApiServer, client: Client, folder: Path) -> list[Figure]:
    """5,000 pods, 1,000 agents with a policy each, 500 tool servers with a Service each."""
    server.install(DEFINITIONS)
    cluster_world.make_namespaces(client, [SYSTEM, *cluster_world.names()])
    Place(server, SYSTEM).account(ACCOUNT)
    cluster_world.write(client, cluster_world.objects())
    token = _token(server, "bench-0", "agent-0", "edits-1")
    mounted = Mounted(folder / "tls")
    first, second = Authz(server, folder, mounted, "authz-1"), Authz(server, folder, mounted, "authz-2")
    try:
        started = time.perf_counter()
        first.start(settle=2.0)
        ready = time.perf_counter() - started
        memory = _memory(first)
        second.start()
        edited = edits.Edited(client=client, ports=(first.ports.listen, second.ports.listen), mounted=mounted, token=token, others=40)
        figures = asyncio.run(edits.measure(edited, "large"))
        return [
            Figure(what="large cluster: authz from its start to ready", value=f"{ready:.1f} s", target="10 s"),
            Figure(
                what="large cluster: memory when ready, then after edits and checks",
                value=f"{memory:.0f}, {_memory(first):.0f} MB",
                target="250 MB",
            ),
            *figures,
        ]
    finally:
        first.close()
        second.close()


def _memory(authz: Authz) -> float:
    if authz.process is None:
        raise RuntimeError("authz does not run")
    return resident_mb(authz.process.pid)
