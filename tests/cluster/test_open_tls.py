"""TLS of a pod's program to an opened name: from the authorities at the API server to the handshake, with real Envoy and real tokens."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cryptography import x509

from hopgate.kubernetes.sidecar import AUTHZ_AUTHORITY_KEY, OPEN_TLS_AUTHORITY_KEY
from hopgate.proxy.pod_bootstrap import PodFiles
from tests.authz.certificates import Mounted
from tests.authz.test_open_tls import Asking
from tests.cluster.api_server import ApiServer, eventually
from tests.cluster.authorities import RELEASE, SYSTEM, Installation
from tests.cluster.test_identity import PodName
from tests.cluster.test_identity_process import LATEST_SECONDS, Process, World, scrape, server_of_module, until, world
from tests.envoys import OUTSIDE, server_context
from tests.hopgate.proxy import pods
from tests.http_ends import Response, Upstream, parse_response

pytestmark = [pytest.mark.root, pytest.mark.envoy]
__all__ = ["server_of_module", "world"]

DAY = 86_400
AUTHZ = "10.96.0.20"
OPENED, OTHER_OPENED, SEALED = "api.openai.com", "weather.example.com", "vault.example.com"
QUESTION = b'{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}'


@pytest.fixture(scope="module")
def installed(server_of_module: ApiServer) -> Installation:
    """The authorities as they are 353 days after they were made: the next one of opened TLS is trusted and does not sign yet."""
    found = Installation(server_of_module)
    server_of_module.kubectl("create", "serviceaccount", "nobody", "-n", "demo")
    server_of_module.kubectl("label", "namespace", "demo", "hopgate.dev/inject=enabled")
    today = found.now
    found.now = today - 353 * DAY
    eventually(lambda: found.refused() == 0, "the rights are in force")
    for ago in (169, 168, 46, 44, 23):
        found.now = today - ago * DAY
        found.keeper.step()
        found.keeper.step()
    found.now = today
    return found


@dataclass(kw_only=True)
class Running:
    """A pod's network with its Envoy, and authz as its Service leads to it. `certificates` and `open_tls` are authz's mounted Secrets."""

    world: World
    installed: Installation
    pod: pods.Pod
    name: PodName
    files: PodFiles
    certificates: Mounted
    open_tls: Mounted
    envoy: subprocess.Popen[bytes] | None = None
    failures: list[str] = field(default_factory=list)

    def mount(self) -> None:
        """What kubelets do with a Secret and a ConfigMap."""
        for mounted, secret in ((self.certificates, "authz"), (self.open_tls, "open-tls")):
            found = self.installed.secret(secret)
            mounted.write(found["tls.crt"], found["tls.key"])
        data = self.installed.config_map("demo")["data"]
        for key in (AUTHZ_AUTHORITY_KEY, OPEN_TLS_AUTHORITY_KEY):
            new = self.files.authorities / f"..{key}"
            new.write_text(data[key])
            new.rename(self.files.authorities / key)

    def process(self, name: str) -> contextlib.AbstractAsyncContextManager[Process]:
        return self.world.process(
            name,
            where=self.pod.outside.entered(),
            listen=f"{AUTHZ}:{pods.AUTHZ_PORT}",
            certificate=self.certificates.certificate,
            private_key=self.certificates.private_key,
            open_tls=(self.open_tls.certificate, self.open_tls.private_key),
        )

    def listens(self) -> bool:
        assert self.envoy is not None
        assert self.envoy.poll() is None, pods.log_of(self.files).read_text()
        with self.pod.inside.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((AUTHZ, 443)) == 0

    async def connect(self, name: str = OPENED, seconds: float = 20.0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """TLS to the name's address from inside the pod, that trusts the bundle which the capture program wrote."""
        context = ssl.create_default_context(cafile=str(self.files.trust_bundle))
        connection = self.pod.inside.socket()
        try:
            async with asyncio.timeout(seconds):
                address = self.world.snapshot.registry.by_host[name].address
                await asyncio.get_running_loop().sock_connect(connection, (address, 443))
                return await asyncio.open_connection(sock=connection, ssl=context, server_hostname=name)
        except BaseException:
            connection.close()
            raise

    async def shown(self, name: str = OPENED, seconds: float = 20.0) -> x509.Certificate:
        """The certificate of a handshake that succeeded. Raises OSError."""
        _, writer = await self.connect(name, seconds)
        der: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return x509.load_der_x509_certificate(der)

    async def is_shown(self, name: str = OPENED, seconds: float = 20.0) -> bool:
        try:
            await self.shown(name, seconds)
        except OSError:
            return False
        return True

    async def ask(self, method: str, target: str, body: bytes) -> Response:
        reader, writer = await self.connect()
        head = f"{method} {target} HTTP/1.1\r\nhost: {OPENED}\r\nconnection: close\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
        return parse_response(answer)

    async def shake_hands(self, over: asyncio.Event) -> None:
        """Handshakes one after another, each with the time to fail."""
        while not over.is_set():
            try:
                await self.shown()
            except OSError as error:
                self.failures.append(repr(error))


@pytest.fixture
async def running(world: World, installed: Installation) -> AsyncIterator[Running]:
    # A folder that the proxy's user may enter.
    with tempfile.TemporaryDirectory(prefix="pod-") as folder_name, pods.made() as pod:
        folder = Path(folder_name)
        folder.chmod(0o755)  # noqa: ASYNC240 - before anything runs
        name = await asyncio.to_thread(world.demo.pod, "planner-1")
        files = pods.files_below(folder)
        files.system_roots.write_bytes(OUTSIDE.certificate_pem)
        files.token.write_text(await asyncio.to_thread(world.demo.token, name))
        made = Running(
            world=world,
            installed=installed,
            pod=pod,
            name=name,
            files=files,
            certificates=Mounted(world.folder / "certificates"),
            open_tls=Mounted(world.folder / "open-tls"),
        )
        await asyncio.to_thread(made.mount)
        pod.capture(replace(pods.plan(), authz_name=f"{RELEASE}-authz.{SYSTEM}.svc"), files)
        made.envoy = pods.start_envoy(pod, files)
        try:
            await until(made.listens, "Envoy listens")
            yield made
        finally:
            made.envoy.kill()
            made.envoy.wait()


def issuer_of(secret: dict[str, bytes]) -> x509.Name:
    return x509.load_pem_x509_certificate(secret["tls.crt"]).subject


async def serving(running: Running) -> Upstream:
    """The provider, as the world's record has it: at a fixed address."""
    listener = running.pod.inside.socket()
    listener.bind(("127.0.0.1", 9200))
    upstream = Upstream(address="127.0.0.1", tls=server_context(OUTSIDE.issue(OPENED, int(time.time())), running.files.token.parent.parent))
    await upstream.start(listener)
    return upstream


async def test_a_program_is_shown_a_certificate_that_its_bundle_trusts_and_what_is_inside_is_judged(running: Running) -> None:
    async with running.process("authz-1") as process:
        await process.ready()
        certificate = await running.shown()
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [OPENED]
        assert certificate.issuer == issuer_of(running.installed.secret("open-tls"))
        upstream = await serving(running)
        assert (await running.ask("POST", "/v1/chat/completions", QUESTION)).status == 200
        assert (await running.ask("POST", "/v1/chat/completions", QUESTION.replace(b"gpt-4o-mini", b"gpt-4o"))).status == 403
        assert len(upstream.requests) == 1
        told = await scrape(process.running.metrics_port)
        assert told["hopgate_authz_certificate_streams", ""] >= 1
        assert told["hopgate_authz_open_tls_ca_not_after_seconds", ""] > time.time()
        await upstream.stop()


async def test_a_token_of_nobody_gets_no_certificate_and_the_right_one_does(running: Running) -> None:
    right = running.files.token.read_text()
    put(running.files.token, await asyncio.to_thread(running.world.demo.token, running.name, audience="other"))
    async with running.process("authz-1") as process:
        await process.ready()
        assert not await running.is_shown(seconds=3)
        put(running.files.token, right)
        await until_shown(running)


async def test_a_pods_stream_of_certificates_ends_with_the_pod(world: World, installed: Installation) -> None:
    secret = await asyncio.to_thread(installed.secret, "open-tls")
    ca = Mounted(world.folder / "open-tls")
    ca.write(secret["tls.crt"], secret["tls.key"])
    pod = await asyncio.to_thread(world.demo.pod, "planner-1")
    stranger = await asyncio.to_thread(world.demo.pod, "nobody-1", "nobody")
    token = await asyncio.to_thread(world.demo.token, pod)
    others = [
        ("TokenAudience", await asyncio.to_thread(world.demo.token, pod, audience="other")),
        ("TokenUnbound", await asyncio.to_thread(world.demo.token, None)),
        ("AgentUnknown", await asyncio.to_thread(world.demo.token, stranger, account="nobody")),
        ("CredentialMissing", None),
    ]
    # A connection that lives: what ends the stream is the pod's end.
    async with world.process("authz-1", open_tls=(ca.certificate, ca.private_key), connection_seconds=10.0) as process:
        await process.ready()
        async with world.channel(process.running.port) as channel:
            for code, presented in others:
                assert code in await Asking(channel, presented).ended()
            held = Asking(channel, token)
            assert (await held.ask(OPENED)).resources
            await asyncio.to_thread(world.demo.core.delete_namespaced_pod, "planner-1", "demo")
            async with asyncio.timeout(LATEST_SECONDS):
                assert "PodUnknown" in await held.ended()


async def until_shown(running: Running, name: str = OPENED) -> None:
    async with asyncio.timeout(60):
        while not await running.is_shown(name, 5):
            pass


def put(token: Path, text: str) -> None:
    new = token.with_name("..new")
    new.write_text(text)
    new.rename(token)


async def test_authz_is_restarted_and_certificates_change_without_a_failed_handshake(running: Running) -> None:
    installed = running.installed
    before = await asyncio.to_thread(installed.secret, "open-tls")
    over = asyncio.Event()
    async with running.process("authz-1") as first:
        await first.ready()
        old = await running.shown()
        load = [asyncio.create_task(running.shake_hands(over)) for _ in range(4)]
        await asyncio.to_thread(installed.keeper.step)
        after = await asyncio.to_thread(installed.secret, "open-tls")
        assert after["tls.crt"] != before["tls.crt"]
        await asyncio.to_thread(running.mount)
        async with asyncio.timeout(60):
            while (latest := await running.shown()).issuer != issuer_of(after):
                pass
        assert latest.issuer != old.issuer
    # Nobody answers now: what was handed out goes on.
    assert (await running.shown()).public_key() == latest.public_key()
    async with running.process("authz-2") as second:
        await second.ready()
        async with asyncio.timeout(60):
            while (latest := await running.shown()).public_key() == old.public_key():
                pass
        await until_shown(running, OTHER_OPENED)
        over.set()
        await asyncio.gather(*load)
    assert running.failures == []
