"""The certificate server: a registered name has a certificate, any other does not exist, and changes are pushed."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from authz import certificates
from authz.certificates import CertificateServer, Subscription
from authz.pb import discovery_pb2, tls_secret_pb2
from hopgate.resources.kinds import SecretValue
from tokenmint.authority import Authority, Leaf
from tokenmint.errors import AuthorityExpiredError, HostRefusedError

DEADLINE_SECONDS = 10.0


def leaf(host: str, version: int = 1, renew_at: int = 1000) -> Leaf:
    return Leaf(
        host=host,
        certificate_pem=f"certificate {version} of {host}".encode(),
        private_key_pem=SecretValue(b"key"),
        expires_at=renew_at + 10,
        renew_at=renew_at,
    )


class Registered:
    """An `issue` whose names the test adds and removes; it notes what was asked."""

    def __init__(self, *hosts: str) -> None:
        self.leaves = {host: leaf(host) for host in hosts}
        self.error: Exception | None = None

    def __call__(self, host: str) -> Leaf | None:
        if self.error is not None:
            raise self.error
        return self.leaves.get(host)


def subscribe(*names: str) -> discovery_pb2.DeltaDiscoveryRequest:
    return discovery_pb2.DeltaDiscoveryRequest(type_url=certificates.SECRET_TYPE, resource_names_subscribe=names)


def secret(resource: discovery_pb2.Resource) -> tls_secret_pb2.Secret:
    found = tls_secret_pb2.Secret()
    assert resource.resource.type_url == certificates.SECRET_TYPE
    assert resource.resource.Unpack(found)
    return found


def test_a_registered_name_gets_its_chain_and_key() -> None:
    response = Subscription(Registered("api.test")).ask(subscribe("api.test"))
    assert response is not None
    assert list(response.removed_resources) == []
    (resource,) = response.resources
    found = secret(resource)
    assert (resource.name, found.name) == ("api.test", "api.test")
    assert found.tls_certificate.certificate_chain.inline_bytes == b"certificate 1 of api.test"
    assert found.tls_certificate.private_key.inline_bytes == b"key"


@pytest.mark.parametrize("name", ["other.test", "nosni", "", "api.test.", "API.TEST", "*.test", "a" * 5000, "\u202eapi.test"])
def test_any_other_name_does_not_exist(name: str) -> None:
    response = Subscription(Registered("api.test")).ask(subscribe(name))
    assert response is not None
    assert (list(response.removed_resources), list(response.resources)) == ([name], [])


@pytest.mark.parametrize("error", [HostRefusedError("no host"), AuthorityExpiredError("too late")], ids=["refused", "expired"])
def test_a_name_that_the_authority_refuses_does_not_exist(error: Exception) -> None:
    registered = Registered("api.test")
    registered.error = error
    response = Subscription(registered).ask(subscribe("api.test"))
    assert response is not None
    assert list(response.removed_resources) == ["api.test"]


@pytest.mark.parametrize(
    "request_",
    [
        discovery_pb2.DeltaDiscoveryRequest(type_url=certificates.SECRET_TYPE, response_nonce="1"),
        discovery_pb2.DeltaDiscoveryRequest(type_url=certificates.SECRET_TYPE, resource_names_unsubscribe=["api.test"]),
    ],
    ids=["an acknowledgement", "an unsubscription"],
)
def test_what_asks_for_nothing_gets_no_answer(request_: discovery_pb2.DeltaDiscoveryRequest) -> None:
    subscription = Subscription(Registered("api.test"))
    subscription.ask(subscribe("api.test"))
    assert subscription.ask(request_) is None


def test_a_refused_certificate_is_not_sent_again_at_once() -> None:
    refusal = discovery_pb2.DeltaDiscoveryRequest(type_url=certificates.SECRET_TYPE, response_nonce="1")
    refusal.error_detail.code = 3
    subscription = Subscription(Registered("api.test"))
    subscription.ask(subscribe("api.test"))
    assert subscription.ask(refusal) is None


def test_names_beyond_the_bound_do_not_exist_and_are_not_kept() -> None:
    names = [f"n{number}.test" for number in range(certificates.MAX_NAMES_PER_STREAM + 1)]
    registered = Registered(*names)
    subscription = Subscription(registered)
    response = subscription.ask(subscribe(*names))
    assert response is not None
    assert [resource.name for resource in response.resources] == names[:-1]
    assert list(response.removed_resources) == names[-1:]
    registered.leaves[names[-1]] = leaf(names[-1], version=2)
    assert subscription.renew() is None


@pytest.mark.parametrize(
    ("change", "sent", "removed"),
    [
        (lambda leaves: None, [], []),
        (lambda leaves: leaves.update({"a.test": leaf("a.test", version=2)}), ["a.test"], []),
        (lambda leaves: leaves.pop("a.test"), [], ["a.test"]),
        (lambda leaves: leaves.update({"new.test": leaf("new.test")}), ["new.test"], []),
        (lambda leaves: leaves.update({"unasked.test": leaf("unasked.test")}), [], []),
    ],
    ids=["nothing changed", "renewed", "unregistered", "registered", "a name that nobody asked for"],
)
def test_only_what_changed_is_told_again(change: Any, sent: list[str], removed: list[str]) -> None:
    registered = Registered("a.test", "b.test")
    subscription = Subscription(registered)
    subscription.ask(subscribe("a.test", "b.test", "new.test"))
    change(registered.leaves)
    response = subscription.renew()
    told = ([r.name for r in response.resources], list(response.removed_resources)) if response is not None else ([], [])
    assert told == (sent, removed)
    assert subscription.renew() is None


def test_a_new_certificate_has_another_version_and_nonces_differ() -> None:
    registered = Registered("a.test")
    subscription = Subscription(registered)
    first = subscription.ask(subscribe("a.test"))
    registered.leaves["a.test"] = leaf("a.test", version=2)
    second = subscription.renew()
    assert first is not None
    assert second is not None
    assert first.resources[0].version != second.resources[0].version
    assert first.nonce != second.nonce


def test_the_next_look_is_when_the_first_certificate_is_to_be_renewed() -> None:
    registered = Registered("a.test", "b.test")
    registered.leaves["b.test"] = leaf("b.test", renew_at=500)
    subscription = Subscription(registered)
    assert subscription.renew_at == float("inf")
    subscription.ask(subscribe("a.test", "b.test", "unknown.test"))
    assert subscription.renew_at == 500


@contextlib.asynccontextmanager
async def serving(issue: certificates.Issue, folder: Path, **options: Any) -> AsyncIterator[CertificateServer]:
    server = CertificateServer(issue, folder / "c.sock", **options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Client:
    """Envoy's side of one stream."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call = channel.stream_stream(certificates.METHOD)()

    async def send(self, message: bytes) -> None:
        await asyncio.wait_for(self._call.write(message), DEADLINE_SECONDS)

    async def receive(self) -> discovery_pb2.DeltaDiscoveryResponse | None:
        message = await asyncio.wait_for(self._call.read(), DEADLINE_SECONDS)
        return None if message is grpc.aio.EOF else discovery_pb2.DeltaDiscoveryResponse.FromString(message)

    async def ask(self, *names: str) -> discovery_pb2.DeltaDiscoveryResponse:
        await self.send(subscribe(*names).SerializeToString())
        response = await self.receive()
        assert response is not None
        return response

    async def finish(self) -> None:
        await self._call.done_writing()


@contextlib.asynccontextmanager
async def connected(folder: Path) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"unix:{folder}/c.sock") as channel:
        yield channel


async def test_a_real_authoritys_certificate_serves_a_verified_handshake(tmp_path: Path) -> None:
    authority = Authority.create(int(time.time()))
    async with serving(lambda host: authority.issue(host, int(time.time())), tmp_path), connected(tmp_path) as channel:
        response = await Client(channel).ask("api.test")
    certificate = secret(response.resources[0]).tls_certificate
    pem = tmp_path / "leaf.pem"
    pem.write_bytes(certificate.certificate_chain.inline_bytes + certificate.private_key.inline_bytes)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(pem)
    first = x509.load_pem_x509_certificate(certificate.certificate_chain.inline_bytes)
    assert first.public_key() == load_pem_private_key(certificate.private_key.inline_bytes, None).public_key()


async def test_a_refresh_pushes_to_every_open_stream(tmp_path: Path) -> None:
    registered = Registered("a.test", "b.test")
    async with serving(registered, tmp_path) as server, connected(tmp_path) as channel:
        first, second = Client(channel), Client(channel)
        await first.ask("a.test")
        await second.ask("b.test")
        registered.leaves.clear()
        server.refresh()
        for client, name in ((first, "a.test"), (second, "b.test")):
            pushed = await client.receive()
            assert pushed is not None
            assert list(pushed.removed_resources) == [name]


async def test_a_certificate_is_pushed_when_its_time_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "SHORTEST_WAIT_SECONDS", 0.01)
    registered = Registered("a.test")
    now = 1000.0  # exactly when the leaf is to be renewed
    async with serving(registered, tmp_path, clock=lambda: now) as _, connected(tmp_path) as channel:
        client = Client(channel)
        await client.ask("a.test")
        registered.leaves["a.test"] = leaf("a.test", version=2, renew_at=9000)
        pushed = await client.receive()
        assert pushed is not None
        assert secret(pushed.resources[0]).tls_certificate.certificate_chain.inline_bytes == b"certificate 2 of a.test"


async def test_beyond_the_bound_of_streams_no_name_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "MAX_STREAMS", 1)
    async with serving(Registered("a.test"), tmp_path), connected(tmp_path) as channel:
        first = Client(channel)
        assert len((await first.ask("a.test")).resources) == 1
        assert list((await Client(channel).ask("a.test")).removed_resources) == ["a.test"]


async def test_a_stream_that_ends_makes_room_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "MAX_STREAMS", 1)
    async with serving(Registered("a.test"), tmp_path), connected(tmp_path) as channel:
        first = Client(channel)
        await first.ask("a.test")
        await first.finish()
        assert await first.receive() is None
        assert len((await Client(channel).ask("a.test")).resources) == 1


async def test_bytes_that_are_no_request_end_their_stream_alone(tmp_path: Path) -> None:
    async with serving(Registered("a.test"), tmp_path), connected(tmp_path) as channel:
        broken, whole = Client(channel), Client(channel)
        await whole.ask("a.test")
        await broken.send(b"\xff\xff\xff")
        assert await broken.receive() is None
        assert len((await whole.ask("a.test")).resources) == 1


async def test_another_method_is_not_served(tmp_path: Path) -> None:
    async with serving(Registered("a.test"), tmp_path), connected(tmp_path) as channel:
        call = channel.unary_unary("/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_nothing_that_prints_shows_a_key() -> None:
    subscription = Subscription(lambda host: replace(leaf(host), private_key_pem=SecretValue(b"MARKER")))
    subscription.ask(subscribe("a.test"))
    assert "MARKER" not in repr(subscription) + repr(vars(subscription))
