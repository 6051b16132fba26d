"""A real Envoy as the sidecar has it: its token on every check, over TLS to processes that come and go, and no request lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from authz import wire
from authz.server import Call, Server, TlsListener
from hopgate.local import envoy_process
from hopgate.tls_files import TlsFiles
from tests.authz.certificates import HOST, Mounted
from tests.authz.test_server_tls import Front, started, until
from tests.cluster.api_server import free_ports

pytestmark = pytest.mark.envoy

TYPES = "type.googleapis.com/envoy.extensions"


def bootstrap(*, listen: int, authz: int, authority: Path, tokens: Path, token_secret: Path) -> dict[str, Any]:
    """A listener that asks authz about every request and answers 200; the cluster is what a sidecar has towards authz."""
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]}]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.ext_authz",
                "typed_config": {
                    "@type": f"{TYPES}.filters.http.ext_authz.v3.ExtAuthz",
                    "transport_api_version": "V3",
                    "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "5s"},
                    "failure_mode_allow": False,
                    "status_on_error": {"code": "ServiceUnavailable"},
                },
            },
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}},
        ],
    }
    credential = {
        "@type": f"{TYPES}.http.injected_credentials.generic.v3.Generic",
        "header": "authorization",
        "header_value_prefix": "Bearer ",
        "credential": {
            "name": "workload",
            "sds_config": {
                "resource_api_version": "V3",
                "path_config_source": {"path": str(token_secret), "watched_directory": {"path": str(tokens)}},
            },
        },
    }
    injector = {
        "@type": f"{TYPES}.filters.http.credential_injector.v3.CredentialInjector",
        "overwrite": True,
        "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": credential},
    }
    codec = {"@type": f"{TYPES}.filters.http.upstream_codec.v3.UpstreamCodec"}
    tls = {
        "@type": f"{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": HOST,
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "validation_context": {
                "trusted_ca": {"filename": str(authority)},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": HOST}}],
            },
        },
    }
    cluster = {
        "name": "authz",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "authz",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(authz)}}]}],
        },
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
                "http_filters": [
                    {"name": "envoy.filters.http.credential_injector", "typed_config": injector},
                    {"name": "envoy.filters.http.upstream_codec", "typed_config": codec},
                ],
            }
        },
    }
    listener = {
        "name": "in",
        "address": address(listen),
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    }
    return {"node": {"id": "test", "cluster": "test"}, "static_resources": {"listeners": [listener], "clusters": [cluster]}}


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


class Token:
    """A projected token's folder, swapped as the kubelet does it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._version = 0
        folder.mkdir()
        self.put("first")
        (folder / "token").symlink_to("..data/token")

    def put(self, text: str) -> None:
        self._version += 1
        target = self.folder / f"..{self._version}"
        target.mkdir()
        (target / "token").write_text(text)
        link = self.folder / "..data_tmp"
        link.symlink_to(target.name)
        link.rename(self.folder / "..data")


@dataclass
class Sidecar:
    """An Envoy and what came of the requests that went through it."""

    port: int
    mounted: Mounted
    token: Token
    front: Front
    asked: Counter[str]
    outcomes: Counter[int] = field(default_factory=Counter)
    loading: bool = True

    async def load(self) -> None:
        """Requests one after another on one connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            while self.loading:
                writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
                length = [int(line.partition(b":")[2]) for line in head.lower().splitlines() if line.startswith(b"content-length:")]
                await reader.readexactly(length[0] if length else 0)
                self.outcomes[int(head.split()[1])] += 1
        finally:
            writer.close()

    async def more(self, requests: int) -> None:
        goal = self.outcomes.total() + requests
        await until(lambda: self.outcomes.total() >= goal)


class Answers:
    """A check that allows everything and counts the credentials that came."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __call__(self, _: bytes, call: Call) -> bytes:
        self.asked[call.authorization or "none"] += 1
        return wire.allow(dial=None, set_headers=(), remove_headers=(), decision_id="0" * 32)


def listening(mounted: Mounted, answers: Answers, ready: Callable[[], bool] = lambda: True) -> Server:
    files = TlsFiles(mounted.certificate, mounted.private_key)
    return Server(answers, TlsListener(address="127.0.0.1:0", files=files, ready=ready, connection_seconds=0.5))


@asynccontextmanager
async def sidecar(folder: Path, mounted: Mounted, front: Front, answers: Answers) -> AsyncIterator[Sidecar]:
    token, port = Token(folder / "tokens"), free_ports(1)[0]
    secret = {
        "@type": f"{TYPES}.transport_sockets.tls.v3.Secret",
        "name": "workload",
        "generic_secret": {"secret": {"filename": str(token.folder / "token")}},
    }
    (folder / "secret.json").write_text(json.dumps({"resources": [secret]}))
    (folder / "ca.pem").write_bytes(mounted.authority.certificate_pem)
    config = bootstrap(
        listen=port, authz=await front.start(), authority=folder / "ca.pem", tokens=token.folder, token_secret=folder / "secret.json"
    )
    (folder / "envoy.json").write_text(json.dumps(config))
    command = (str(envoy_process.find()), "-c", str(folder / "envoy.json"), "-l", "error", "--concurrency", "2", "--disable-hot-restart")
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
    made = Sidecar(port, mounted, token, front, answers.asked)
    try:
        await until(lambda: answers_at(port) or process.returncode is not None)
        tasks = [asyncio.create_task(made.load()) for _ in range(8)]
        try:
            yield made
        finally:
            made.loading = False
            await asyncio.gather(*tasks)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await front.stop()


def answers_at(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_tokens_certificates_connections_and_processes_change_and_no_request_is_lost(tmp_path: Path) -> None:
    mounted, answers, other = Mounted(tmp_path / "tls"), Answers(), Answers()
    leaving = False
    async with started(listening(mounted, answers, lambda: not leaving)) as first, started(listening(mounted, other)) as second:
        front = Front({first.port: lambda: not leaving, second.port: lambda: True})
        async with sidecar(tmp_path, mounted, front, answers) as envoy:
            await envoy.more(200)
            assert set(answers.asked) == {"Bearer first"}
            envoy.token.put("second")
            await until(lambda: answers.asked["Bearer second"] > 0)
            opened = front.led[first.port]
            mounted.rotate()
            await until(lambda: front.led[first.port] >= opened + 6)
            assert not other.asked
            leaving = True
            await first.drain(notice_seconds=0.1)
            await envoy.more(200)
            seen = answers.asked.total()
            await envoy.more(200)
            assert answers.asked.total() == seen
            assert set(other.asked) == {"Bearer second"}
    assert set(envoy.outcomes) == {200}
    assert answers.asked["Bearer first"] + answers.asked["Bearer second"] == answers.asked.total()


async def test_an_authz_of_another_authority_is_not_asked(tmp_path: Path) -> None:
    mounted, stranger, answers = Mounted(tmp_path / "tls"), Mounted(tmp_path / "stranger"), Answers()
    async with started(listening(stranger, answers)) as running:
        front = Front({running.port: lambda: True})
        async with sidecar(tmp_path, mounted, front, answers) as envoy:
            await envoy.more(5)
    assert set(envoy.outcomes) == {503}
    assert not answers.asked
