"""`python -m authz cluster` as it runs in a pod: resources, tokens, keys and names from a real API server, and an orderly end."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import dns.message
import grpc
import grpc.aio
import pytest
from kubernetes.client import V1Namespace, V1ObjectMeta

from authz import server
from authz.pb import health_pb2
from hopgate.manifests import snapshots
from hopgate.resources.registry import Registry
from tests.authz import requests
from tests.authz.certificates import HOST, Mounted
from tests.authz.requests import http, tool_call
from tests.authz.test_check import encoded
from tests.authz.test_open_tls import Asking
from tests.cluster.api_server import ApiServer, free_ports
from tests.cluster.conftest import DEFINITIONS
from tests.cluster.test_identity import AUDIENCE, ISSUER, Place, PodName
from tests.cluster.test_identity_process import ask, is_allowed, reason, scrape
from tokenmint import authority

DEADLINE_SECONDS = 60.0
WORLD = Path(__file__).parent.parent / "world" / "resources.yaml"
UNREACHABLE = json.dumps(
    {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the process answers."""

    listen: int
    health: int
    resolver: int
    metrics: int


def given(api_server: ApiServer, namespace: str, pod: PodName, ports: Ports, mounted: Mounted, spool: Path) -> list[str]:
    """The arguments of the process that runs as a pod."""
    settings = {
        "kubeconfig": api_server.admin.kubeconfig,
        "namespace": namespace,
        "pod": pod.name,
        "pod-uid": pod.uid,
        "service-account": "hopgate-authz",
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "certificate": mounted.certificate,
        "private-key": mounted.private_key,
        "spool": spool,
        "listen": f"127.0.0.1:{ports.listen}",
        "health": f"127.0.0.1:{ports.health}",
        "resolver": f"127.0.0.1:{ports.resolver}",
        "metrics": f"127.0.0.1:{ports.metrics}",
        "connection-seconds": 0.5,
        "notice-seconds": 0.1,
        "settle-seconds": 0.1,
    }
    return [f"--{name}={value}" for name, value in settings.items()]


@asynccontextmanager
async def command(
    api_server: ApiServer, place: Place, mounted: Mounted, folder: Path
) -> AsyncIterator[tuple[subprocess.Popen[bytes], Ports]]:
    pod = await asyncio.to_thread(place.pod, "authz-1", "hopgate-authz")
    ports = Ports(*free_ports(4))
    ca, root = Mounted(folder / "ca"), authority.create_root(int(time.time()))
    ca.write(root[0], root[1].reveal())
    opened = (f"--open-tls-certificate={ca.certificate}", f"--open-tls-key={ca.private_key}")
    arguments = [*given(api_server, place.namespace, pod, ports, mounted, folder / "spool"), *opened]
    process = subprocess.Popen([sys.executable, "-m", "authz", "cluster", *arguments], stdin=subprocess.DEVNULL)  # noqa: ASYNC220
    try:
        yield process, ports
    finally:
        process.kill()
        process.wait()


async def status(port: int) -> int:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = health_pb2.HealthCheckRequest().SerializeToString()
        answer = await channel.unary_unary(server.HEALTH_METHOD)(request, timeout=DEADLINE_SECONDS, wait_for_ready=True)
    return health_pb2.HealthCheckResponse.FromString(answer).status


async def ready(port: int, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await status(port) != health_pb2.HealthCheckResponse.SERVING:
            assert process.poll() is None
            await asyncio.sleep(0.02)  # between two looks at the condition


async def question(port: int, name: str) -> str:
    """The address that a datagram brings."""
    asked = dns.message.make_query(name, "A")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendto(asker, asked.to_wire(), ("127.0.0.1", port))
        async with asyncio.timeout(DEADLINE_SECONDS):
            reply = dns.message.from_wire(await loop.sock_recv(asker, 4096))
    return str(reply.answer[0][0])


def registry() -> Registry:
    """The same resources from a folder: addresses are a hash of the names, so they are the cluster's too."""
    return snapshots.load(WORLD.parent, previous=None, now=int(time.time())).registry


async def test_the_process_serves_a_cluster_and_ends_in_order(own_api_server: ApiServer, tmp_path: Path) -> None:
    await asyncio.to_thread(own_api_server.install, DEFINITIONS)
    demo, system = Place(own_api_server, "demo"), Place(own_api_server, "hopgate")
    for name in ("demo", "hopgate", "other"):
        demo.core.create_namespace(V1Namespace(metadata=V1ObjectMeta(name=name)))
    demo.account("planner")
    system.account("hopgate-authz")
    await asyncio.to_thread(own_api_server.kubectl, "apply", "-f", str(WORLD))
    mounted = Mounted(tmp_path / "tls")
    async with command(own_api_server, system, mounted, tmp_path) as (process, ports):
        await ready(ports.health, process)
        pod = await asyncio.to_thread(demo.pod, "planner-1")
        own_address = {"status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}}
        await asyncio.to_thread(demo.core.patch_namespaced_pod_status, "planner-1", "demo", own_address)
        token = await asyncio.to_thread(demo.token, pod)
        known = registry()
        assert await question(ports.resolver, "tickets.demo.svc") == known.by_host["tickets.demo.svc"].address
        snapshot = snapshots.load(WORLD.parent, previous=None, now=int(time.time()))
        body = tool_call("search", {"limit": 10})
        request = encoded(requests.outbound(snapshot, http(host="tickets.demo.svc:9000", path="/mcp", body=body)))
        credentials = grpc.ssl_channel_credentials(mounted.authority.certificate_pem)
        override = (("grpc.ssl_target_name_override", HOST),)
        async with grpc.aio.secure_channel(f"127.0.0.1:{ports.listen}", credentials, options=override) as channel:
            assert is_allowed(await ask(channel, request, token))
            assert "CredentialMissing" in reason(await ask(channel, request, None))
            held = Asking(channel, token)
            assert (await held.ask("api.openai.com")).resources
            await asyncio.to_thread(own_api_server.kubectl, "delete", "agent.hopgate.dev", "planner", "-n", "demo")
            gone = time.monotonic()
            while is_allowed(answer := await ask(channel, request, token)):
                assert time.monotonic() - gone < 5
            assert "AgentUnknown" in reason(answer)
        told = await scrape(ports.metrics)
        assert told["hopgate_authz_decisions_total", "Permitted"] >= 1
        assert told["hopgate_authz_snapshot_builds_total", ""] >= 2
        assert told["hopgate_authz_watch_age_seconds", "ToolServer"] >= 0
        assert told["hopgate_authz_resolver_messages_total", "answered"] == 1
        process.terminate()
        assert await asyncio.to_thread(process.wait, DEADLINE_SECONDS) == 0
    files = (file for file in (tmp_path / "spool").rglob("*.jsonl"))
    written = [json.loads(line)["record"] for file in files for line in file.read_bytes().splitlines()]
    assert [record.get("verdict") for record in written if "verdict" in record][:2] == ["Allow", "Deny"]
    assert [record["agent"] for record in written if "verdict" not in record] == ["demo/planner"]


@pytest.mark.parametrize(
    ("missing", "code"),
    [("kubeconfig", "ClusterNotConfigured"), ("certificate", "TlsFilesUnusable"), ("open-tls-certificate", "TlsFilesUnusable")],
)
def test_says_what_keeps_it_from_starting(tmp_path: Path, missing: str, code: str) -> None:
    mounted = Mounted(tmp_path / "tls")
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(UNREACHABLE)
    given = {
        "kubeconfig": kubeconfig,
        "certificate": mounted.certificate,
        "private-key": mounted.private_key,
        "open-tls-certificate": mounted.certificate,
        "open-tls-key": mounted.private_key,
        "namespace": "hopgate",
        "pod": "authz-1",
        "pod-uid": "u",
        "service-account": "hopgate-authz",
        "spool": tmp_path / "spool",
        "listen": "127.0.0.1:0",
        "health": "127.0.0.1:0",
        "resolver": "127.0.0.1:0",
    }
    given[missing] = tmp_path / "nowhere"
    arguments = [f"--{name}={value}" for name, value in given.items()]
    ended = subprocess.run(
        [sys.executable, "-m", "authz", "cluster", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
        env=dict(os.environ),
    )
    assert ended.returncode == 1
    assert code in ended.stderr
    assert "nowhere" in ended.stderr
    assert "Traceback" not in ended.stderr


MESH = {
    "--mesh-listen": "127.0.0.1:0",
    "--mesh-authorities": "authorities.pem",
    "--mesh-trust-domain": "example.org",
    "--mesh-envoy": "spiffe://example.org/ns/demo/sa/tickets",
}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([f"{name}={value}" for name, value in MESH.items() if name != "--mesh-envoy"], "none of --mesh-envoy"),
        ([f"{name}={value}" for name, value in MESH.items() if name != "--mesh-authorities"], "none of --mesh-authorities"),
        ([*(f"{name}={value}" for name, value in MESH.items()), "--mesh-envoy=spiffe://example.org/gateway"], "=NAMESPACE"),
        ([*(f"{name}={value}" for name, value in MESH.items()), f"--mesh-envoy={MESH['--mesh-envoy']}=*"], "several times"),
        ([*(f"{name}={value}" for name, value in MESH.items()), "--mesh-trust-domain=Example.org"], "trust domain"),
        ([f"{name}={value}" for name, value in MESH.items()], "authorities.pem"),
    ],
    ids=["no Envoy", "no authorities", "no namespace", "an Envoy twice", "no trust domain", "no such file"],
)
def test_half_a_mesh_is_refused(tmp_path: Path, more: list[str], said: str) -> None:
    mounted = Mounted(tmp_path / "tls")
    (tmp_path / "kubeconfig").write_text(UNREACHABLE)
    needed = {"namespace": "hopgate", "pod": "authz-1", "pod-uid": "u", "service-account": "hopgate-authz", "spool": tmp_path / "spool"}
    files = {"kubeconfig": tmp_path / "kubeconfig", "certificate": mounted.certificate, "private-key": mounted.private_key}
    addresses = dict.fromkeys(("listen", "health", "resolver"), "127.0.0.1:0")
    arguments = [f"--{name}={value}" for name, value in {**needed, **files, **addresses}.items()]
    ended = subprocess.run(
        [sys.executable, "-m", "authz", "cluster", *arguments, *more],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert ended.returncode != 0
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
