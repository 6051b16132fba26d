"""A whole pod without a cluster: captured, with a real Envoy as the proxy's user, an app, and an authz over TLS elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from hopgate.kubernetes import sidecar
from hopgate.kubernetes.sidecar import PlannedProbe, ProbeKind
from hopgate.proxy.pod_bootstrap import PodFiles
from tests.envoys import ScriptedAuthz, allowing, eventually
from tests.hopgate.proxy import pods
from tests.hopgate.proxy.pods import AUTHZ_NAME, NODE4, POD4, Pod
from tests.http_ends import Response, Upstream, parse_response
from tokenmint.authority import Authority

pytestmark = [pytest.mark.root, pytest.mark.envoy]

AUTHZ = "10.96.0.20"
VIRTUAL = "198.19.0.7"
ELSEWHERE = "203.0.113.9"
APP_PORT = 8080
HTTP_PROBE = PlannedProbe(
    name="app/readinessProbe", kind=ProbeKind.HTTP, port=APP_PORT, action={"path": "/healthz"}, period_seconds=1, timeout_seconds=1
)
TCP_PROBE = PlannedProbe(name="app/livenessProbe", kind=ProbeKind.TCP, port=APP_PORT, action={}, period_seconds=1, timeout_seconds=1)


@dataclass(kw_only=True)
class Running:
    """A pod that runs. `authority` vouches for authz."""

    pod: Pod
    files: PodFiles
    authz: ScriptedAuthz
    authority: Authority
    envoy: subprocess.Popen[bytes]

    async def request(self, inside: bool, address: str, port: int, target: str = "/", headers: str = "") -> Response:
        """One request from inside the pod (as its app), or from outside it."""
        with (self.pod.inside if inside else self.pod.outside).socket() as connection:
            async with asyncio.timeout(20):
                loop = asyncio.get_running_loop()
                await loop.sock_connect(connection, (address, port))
                sent = f"GET {target} HTTP/1.1\r\nhost: tickets.demo.svc\r\n{headers}connection: close\r\n\r\n"
                await loop.sock_sendall(connection, sent.encode())
                data = b""
                while received := await loop.sock_recv(connection, 1 << 16):
                    data += received
        return parse_response(data)

    async def probe(self, path: str) -> int:
        """As the kubelet asks."""
        return (await self.request(False, POD4, sidecar.HEALTH_PORT, path)).status

    async def serve(self, *, inside: bool, address: str, port: int) -> Upstream:
        listener = (self.pod.inside if inside else self.pod.outside).socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        upstream = Upstream(address=address)
        await upstream.start(listener)
        return upstream


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    # A folder that the proxy's user may enter.
    with tempfile.TemporaryDirectory(prefix="pod-") as name, pods.made() as pod:
        folder = Path(name)
        folder.chmod(0o755)  # noqa: ASYNC240 - before anything runs
        authority = Authority.create(int(time.time()))
        files = pods.files_below(folder, authz_pem=authority.certificate_pem)
        files.system_roots.write_bytes(authority.certificate_pem)
        pod.capture(pods.plan(HTTP_PROBE, TCP_PROBE), files)
        leaf = authority.issue(AUTHZ_NAME, int(time.time()))
        tls = grpc.ssl_server_credentials([(leaf.private_key_pem.reveal(), leaf.certificate_pem)])
        authz = ScriptedAuthz(f"{AUTHZ}:{pods.AUTHZ_PORT}", tls)
        with pod.outside.entered():
            await authz.start()
        made = Running(pod=pod, files=files, authz=authz, authority=authority, envoy=pods.start_envoy(pod, files))
        try:
            await eventually(_ready(made))
            yield made
        finally:
            made.envoy.kill()
            made.envoy.wait()
            await authz.stop()


def _ready(made: Running) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        assert made.envoy.poll() is None, pods.log_of(made.files).read_text()
        with contextlib.suppress(OSError):
            return await made.probe(sidecar.READY_PATH) == 200
        return False

    return asked


async def test_a_hop_of_the_app_is_checked_with_the_pods_token_and_dialled_where_authz_says(running: Running) -> None:
    upstream = await running.serve(inside=False, address=ELSEWHERE, port=9000)
    assert (await running.request(True, VIRTUAL, 80)).status == 403
    assert upstream.requests == []
    running.authz.script = allowing(f"{ELSEWHERE}:9000")
    assert (await running.request(True, VIRTUAL, 80)).body == b"ok"
    assert len(upstream.requests) == 1
    assert {asked.metadata["authorization"] for asked in running.authz.asked} == {"Bearer the-pods-token"}
    assert {asked.metadata["x-hopgate-direction"] for asked in running.authz.asked} == {"outbound"}
    assert b"the-pods-token" not in upstream.requests[0]
    await upstream.stop()


async def test_a_token_that_the_kubelet_renews_is_used(running: Running) -> None:
    async def renewed() -> bool:
        await running.request(True, VIRTUAL, 80)
        return running.authz.asked[-1].metadata["authorization"] == "Bearer the-next-token"

    assert not await renewed()
    new = running.files.token.with_name("..new")
    new.write_text("the-next-token")
    new.rename(running.files.token)
    await eventually(renewed)


async def test_an_authz_that_the_gates_authority_does_not_vouch_for_is_not_asked(running: Running) -> None:
    running.authz.script = allowing(f"{ELSEWHERE}:9000")
    upstream = await running.serve(inside=False, address=ELSEWHERE, port=9000)
    assert (await running.request(True, VIRTUAL, 80)).status == 200
    await running.authz.stop()
    other = Authority.create(int(time.time())).issue(AUTHZ_NAME, int(time.time()))
    false = ScriptedAuthz(
        f"{AUTHZ}:{pods.AUTHZ_PORT}", grpc.ssl_server_credentials([(other.private_key_pem.reveal(), other.certificate_pem)])
    )
    false.script = running.authz.script
    with running.pod.outside.entered():
        await false.start()
    assert (await running.request(True, VIRTUAL, 80)).status == 503
    assert (false.asked, len(upstream.requests)) == ([], 1)
    await false.stop()
    await upstream.stop()


async def test_authorities_that_change_are_used_without_a_new_start(running: Running) -> None:
    await running.authz.stop()
    following = Authority.create(int(time.time()))
    leaf = following.issue(AUTHZ_NAME, int(time.time()))
    running.authz = ScriptedAuthz(
        f"{AUTHZ}:{pods.AUTHZ_PORT}", grpc.ssl_server_credentials([(leaf.private_key_pem.reveal(), leaf.certificate_pem)])
    )
    with running.pod.outside.entered():
        await running.authz.start()
    assert (await running.request(True, VIRTUAL, 80)).status == 503
    bundle = running.files.authorities / sidecar.AUTHZ_AUTHORITY_KEY
    new = bundle.with_name("..new")
    new.write_bytes(running.authority.certificate_pem + following.certificate_pem)
    new.rename(bundle)

    async def asked() -> bool:
        return (await running.request(True, VIRTUAL, 80)).status == 403

    await eventually(asked)
    await running.authz.stop()


async def test_what_others_send_is_checked_as_inbound_and_reaches_the_app_only_when_allowed(running: Running) -> None:
    app = await running.serve(inside=True, address="0.0.0.0", port=APP_PORT)  # noqa: S104 - of the pod
    assert (await running.request(False, POD4, APP_PORT, "/work")).status == 403
    assert not any(b"/work" in request for request in app.requests)
    running.authz.script = allowing(None)
    assert (await running.request(False, POD4, APP_PORT, "/work", "x-hopgate-token: theirs\r\n")).body == b"ok"
    (reached,) = [request for request in app.requests if b"/work" in request]
    assert b"theirs" not in reached
    assert {asked.metadata["x-hopgate-direction"] for asked in running.authz.asked} == {"inbound"}
    await app.stop()


@pytest.mark.parametrize("port", [15001, 15006, 15053])
async def test_the_gates_own_ports_lead_nowhere_from_outside(running: Running, port: int) -> None:
    running.authz.script = allowing(None)
    try:
        status = (await running.request(False, POD4, port)).status
    except (AssertionError, OSError):
        status = 0
    assert status in (0, 503)
    assert len(running.authz.asked) <= 1


@pytest.mark.parametrize("port", [15001, 15006])
@pytest.mark.parametrize("address", ["127.0.0.1", POD4])
async def test_the_gates_own_ports_lead_nowhere_from_inside(running: Running, address: str, port: int) -> None:
    running.authz.script = allowing(None)
    with pytest.raises((AssertionError, OSError)):
        await running.request(True, address, port)
    assert running.authz.asked == []


async def test_the_kubelets_probes_are_answered_by_what_the_app_answers(running: Running) -> None:
    assert (await running.probe(HTTP_PROBE.path), await running.probe(TCP_PROBE.path)) == (503, 503)
    app = await running.serve(inside=True, address="0.0.0.0", port=APP_PORT)  # noqa: S104 - of the pod

    async def healthy() -> bool:
        return (await running.probe(HTTP_PROBE.path), await running.probe(TCP_PROBE.path)) == (200, 200)

    await eventually(healthy)
    assert {request.split(b"\r\n")[0] for request in app.requests} == {b"GET /healthz HTTP/1.1"}
    assert {line for request in app.requests for line in request.split(b"\r\n") if line.startswith(b"host:")} == {
        f"host: {POD4}:{APP_PORT}".encode()
    }
    assert await running.probe("/anything-else") == 404
    assert running.authz.asked == []
    await app.stop()

    async def unhealthy() -> bool:
        return (await running.probe(HTTP_PROBE.path), await running.probe(TCP_PROBE.path)) == (503, 503)

    await eventually(unhealthy)


@pytest.mark.parametrize("asked", [ELSEWHERE, "127.0.0.1"])
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["UDP", "TCP"])
async def test_a_dns_question_comes_to_the_resolver_and_its_answer_back(running: Running, kind: int, asked: str) -> None:
    resolver = running.pod.outside.socket(socket.AF_INET, kind)
    resolver.bind((AUTHZ, pods.RESOLVER_PORT))
    loop = asyncio.get_running_loop()
    with resolver, running.pod.inside.socket(socket.AF_INET, kind) as asker:
        async with asyncio.timeout(20):
            if kind == socket.SOCK_STREAM:
                resolver.listen()
                await loop.sock_connect(asker, (asked, 53))
                await loop.sock_sendall(asker, b"question")
                accepted, sender = await loop.sock_accept(resolver)
                with accepted:
                    question = await loop.sock_recv(accepted, 100)
                    await loop.sock_sendall(accepted, b"answer to " + question)
                    assert await loop.sock_recv(asker, 100) == b"answer to question"
            else:
                asker.connect((asked, 53))
                await loop.sock_sendall(asker, b"question")
                question, sender = await loop.sock_recvfrom(resolver, 100)
                await loop.sock_sendto(resolver, b"answer to " + question, sender)
                assert await loop.sock_recv(asker, 100) == b"answer to question"
    assert sender[0] == POD4


async def test_a_drain_turns_callers_away_and_lets_the_app_go_on(running: Running) -> None:
    app = await running.serve(inside=True, address="0.0.0.0", port=APP_PORT)  # noqa: S104 - of the pod
    upstream = await running.serve(inside=False, address=ELSEWHERE, port=9000)
    running.authz.script = allowing(f"{ELSEWHERE}:9000")
    drain = f"import pathlib; from hopgate.proxy import drain; drain.drain(pathlib.Path({str(running.files.admin_socket)!r}))"
    assert await (await asyncio.create_subprocess_exec(sys.executable, "-c", drain)).wait() == 0
    connection = running.pod.outside.socket()
    await asyncio.get_running_loop().sock_connect(connection, (POD4, APP_PORT))
    reader, writer = await asyncio.open_connection(sock=connection)

    async def told_to_go() -> bool:
        writer.write(b"GET /work HTTP/1.1\r\nhost: a\r\n\r\n")
        return b"connection: close" in await reader.readuntil(b"ok")

    await eventually(told_to_go)
    writer.close()
    assert (await running.request(True, VIRTUAL, 80)).status == 200
    assert running.envoy.poll() is None
    for server in (app, upstream):
        await server.stop()


def test_a_drain_without_an_envoy_says_so(tmp_path: Path) -> None:
    drain = f"import pathlib; from hopgate.proxy import drain; drain.drain(pathlib.Path({str(tmp_path / 'none.sock')!r}))"
    done = subprocess.run((sys.executable, "-c", drain), capture_output=True, text=True, check=False)
    assert "DrainError" in done.stderr


async def test_the_app_can_not_reach_the_nodes_network_past_the_gate(running: Running) -> None:
    """Neither by the address of the node nor by link-local ones: all of it is asked about, and goes nowhere."""
    node = await running.serve(inside=False, address=NODE4, port=10250)
    running.authz.script = allowing(f"{NODE4}:10250")
    for address in (NODE4, "169.254.169.254", "10.96.0.1"):
        assert (await running.request(True, address, 10250)).status == 503
    assert node.requests == []
    assert len(running.authz.asked) == 3
    await node.stop()
