"""The listener for a mesh's Envoys: mutual TLS with a real client, who asks by the certificate alone, authorities that change."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509

from authz import server
from authz.pb import health_pb2
from authz.server import Call, Server, TlsListener
from hopgate.tls_files import AuthorityFile, TlsFiles, TlsFilesError
from tests.authz.certificates import HOST, Mounted
from tests.authz.test_server_tls import DEADLINE_SECONDS, Front, Load, started, until
from tests.end_to_end.mesh_authority import Authority

ENVOY = "spiffe://example.org/ns/demo/sa/tickets"


class Asked:
    """Answers with what came, and keeps what came beside it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def __call__(self, request: bytes, call: Call) -> bytes:
        self.calls.append(call)
        return request


def spiffe(identity: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(identity)


def listening(folder: Path, authority: Authority, asked: Asked, connection_seconds: float = 60.0) -> tuple[Server, Mounted]:
    mounted = Mounted(folder / "tls")
    bundle = folder / "bundle.pem"
    bundle.write_bytes(authority.bundle.read_bytes())
    files = TlsFiles(mounted.certificate, mounted.private_key)
    listener = TlsListener(
        address="127.0.0.1:0",
        files=files,
        ready=lambda: True,
        connection_seconds=connection_seconds,
        mesh_authorities=AuthorityFile(bundle),
    )
    return Server(asked, listener), mounted


def connect(port: int, mounted: Mounted, pair: tuple[str, str] | None) -> grpc.aio.Channel:
    own = {} if pair is None else {"certificate_chain": Path(pair[0]).read_bytes(), "private_key": Path(pair[1]).read_bytes()}
    credentials = grpc.ssl_channel_credentials(mounted.authority.certificate_pem, **own)
    options = (("grpc.ssl_target_name_override", HOST), ("grpc.use_local_subchannel_pool", 1))
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options)


async def ask(port: int, mounted: Mounted, pair: tuple[str, str] | None, method: str = server.METHOD, request: bytes = b"x") -> bytes:
    """One call over a connection of its own. Raises grpc.aio.AioRpcError."""
    metadata = (("x-hopgate-direction", "outbound"), ("authorization", "Bearer forged"))
    async with connect(port, mounted, pair) as channel:
        answer: bytes = await channel.unary_unary(method)(request, timeout=DEADLINE_SECONDS, metadata=metadata)
    return answer


async def refusal(port: int, mounted: Mounted, pair: tuple[str, str] | None) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(port, mounted, pair)
    return caught.value.code()


async def test_who_asks_is_who_the_certificate_names_whatever_the_metadata_says(tmp_path: Path) -> None:
    authority, asked = Authority(tmp_path / "mesh"), Asked()
    names = {
        "one": (spiffe(ENVOY),),
        "a DNS name beside it": (x509.DNSName("tickets.demo.svc"), spiffe(ENVOY)),
        "a DNS name": (x509.DNSName(ENVOY),),
        "another URI": (spiffe("https://example.org/ns/demo/sa/tickets"),),
        "two": (spiffe(ENVOY), spiffe(ENVOY + "s")),
    }
    running, mounted = listening(tmp_path, authority, asked)
    async with started(running):
        for number, each in enumerate(names.values()):
            await ask(running.port, mounted, authority.issue(f"client-{number}", *each))
    assert dict(zip(names, [call.envoy for call in asked.calls], strict=True)) == {
        "one": ENVOY,
        "a DNS name beside it": ENVOY,
        "a DNS name": "",
        "another URI": "",
        "two": "",
    }
    assert {(call.direction, call.authorization) for call in asked.calls} == {("mesh", None)}


async def test_nobody_is_heard_without_a_certificate_of_the_authorities(tmp_path: Path) -> None:
    authority, other, asked = Authority(tmp_path / "mesh"), Authority(tmp_path / "other"), Asked()
    running, mounted = listening(tmp_path, authority, asked)
    async with started(running):
        assert await refusal(running.port, mounted, None) == grpc.StatusCode.UNAVAILABLE
        assert await refusal(running.port, mounted, other.issue("envoy", spiffe(ENVOY))) == grpc.StatusCode.UNAVAILABLE
        assert asked.calls == []
        assert await ask(running.port, mounted, authority.issue("envoy", spiffe(ENVOY))) == b"x"


async def test_it_serves_checks_and_health_and_nothing_else(tmp_path: Path) -> None:
    authority, asked = Authority(tmp_path / "mesh"), Asked()
    running, mounted = listening(tmp_path, authority, asked)
    pair = authority.issue("envoy", spiffe(ENVOY))
    async with started(running):
        answer = await ask(running.port, mounted, pair, server.HEALTH_METHOD, b"")
        assert health_pb2.HealthCheckResponse.FromString(answer).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(running.port, mounted, pair, "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets")
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert asked.calls == []


async def test_the_authorities_are_read_again_when_they_change(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second, asked = Authority(tmp_path / "first"), Authority(tmp_path / "second"), Asked()
    old, new = first.issue("envoy", spiffe(ENVOY)), second.issue("envoy", spiffe(ENVOY))
    running, mounted = listening(tmp_path, first, asked)
    bundle = tmp_path / "bundle.pem"
    async with started(running):
        assert await refusal(running.port, mounted, new) == grpc.StatusCode.UNAVAILABLE
        bundle.write_bytes(first.bundle.read_bytes() + second.bundle.read_bytes())
        assert await ask(running.port, mounted, old) == await ask(running.port, mounted, new) == b"x"
        bundle.write_text("nonsense")
        assert await ask(running.port, mounted, new) == b"x"
        bundle.write_bytes(second.bundle.read_bytes())
        assert await ask(running.port, mounted, new) == b"x"
        assert await refusal(running.port, mounted, old) == grpc.StatusCode.UNAVAILABLE
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [line.partition(":")[0] for line in said] == ["the bundle of authorities in force stays"]


async def test_a_rotated_certificate_of_its_own_is_shown(tmp_path: Path) -> None:
    authority, asked = Authority(tmp_path / "mesh"), Asked()
    pair = authority.issue("envoy", spiffe(ENVOY))
    running, mounted = listening(tmp_path, authority, asked)
    async with started(running):
        assert await ask(running.port, mounted, pair) == b"x"
        stranger = Mounted(tmp_path / "stranger")
        mounted.write(stranger.certificate.read_bytes(), stranger.private_key.read_bytes())
        assert await refusal(running.port, mounted, pair) == grpc.StatusCode.UNAVAILABLE
        assert await ask(running.port, stranger, pair) == b"x"


async def test_connections_end_and_processes_leave_and_no_call_is_lost(tmp_path: Path) -> None:
    """What an authority that was taken away still has: the time of a connection."""
    authority, asked = Authority(tmp_path / "mesh"), Asked()
    pair = authority.issue("envoy", spiffe(ENVOY))
    leaving = False
    first, mounted = listening(tmp_path, authority, asked, connection_seconds=0.3)
    files = TlsFiles(mounted.certificate, mounted.private_key)
    bundle = AuthorityFile(tmp_path / "bundle.pem")
    second = Server(asked, TlsListener(address="127.0.0.1:0", files=files, ready=lambda: True, mesh_authorities=bundle))
    async with started(first), started(second):
        front = Front({first.port: lambda: not leaving, second.port: lambda: True})
        async with connect(await front.start(), mounted, pair) as channel:
            load = Load(channel)
            await until(lambda: front.led[first.port] >= 4 or load.lost.total() > 0)
            leaving = True
            # A connection is counted before its handshake, which a busy machine can hold up.
            await first.drain(notice_seconds=2.0)
            await load.more(100)
            await load.end()
        await front.stop()
    assert not load.lost
    assert front.led[second.port] >= 1
    assert {call.envoy for call in asked.calls} == {ENVOY}


@pytest.mark.parametrize("content", [None, b"", b"nonsense"], ids=["no file", "an empty file", "nonsense"])
def test_there_is_no_start_without_authorities(tmp_path: Path, content: bytes | None) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)
    with pytest.raises(TlsFilesError, match=r"bundle\.pem"):
        AuthorityFile(bundle)
