"""Certificates over TLS for whom a token makes known: who gets one, for how long, of which CA, and how streams end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from authz import certificates, open_tls
from authz.open_tls import OpenTls
from authz.pb import discovery_pb2
from authz.server import Server, TlsListener
from authz.state import State, Workload, credential_sha256
from authz.workloads import HeldCredentials
from hopgate.manifests import snapshots
from hopgate.resources.kinds import SecretValue
from hopgate.resources.registry import Registry
from hopgate.tls_files import TlsFiles
from tests.authz.certificates import Mounted
from tests.authz.test_certificates import DEADLINE_SECONDS, Client, secret, subscribe
from tests.authz.test_server_tls import connect, echo
from tokenmint import authority
from tokenmint.errors import AuthorityUnusableError

WORLD = Path(__file__).parent.parent / "world"
OPENED, OTHER_OPENED, SEALED = "api.openai.com", "weather.example.com", "vault.example.com"
NOW = int(time.time())
KNOWN = "planner-1"


class Asking(Client):
    """A sidecar's side of one stream, with a token."""

    def __init__(self, channel: grpc.aio.Channel, token: str | None = KNOWN) -> None:
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        self._call = channel.stream_stream(certificates.METHOD)(metadata=metadata)

    async def ended(self) -> str:
        """What it is told at the stream's end; empty for an end in order."""
        code = await asyncio.wait_for(self._call.code(), DEADLINE_SECONDS)
        return "" if code is grpc.StatusCode.OK else f"{code.name}: {await self._call.details()}"


class World:
    """The desk on a port of its own; tokens are as one machine's credentials are."""

    def __init__(self, folder: Path) -> None:
        self.mounted, self.ca = Mounted(folder / "tls"), Mounted(folder / "ca")
        self.roots = [authority.create_root(NOW) for _ in range(2)]
        self.mount(0)
        self.registry: Registry = snapshots.load(WORLD, previous=None, now=NOW).registry
        self.know("planner-1")
        self.desk = OpenTls(
            self.ca.certificate, self.ca.private_key, workloads=lambda: self.workloads, registry=lambda: self.registry, clock=time.time
        )
        files = TlsFiles(self.mounted.certificate, self.mounted.private_key)
        self.server = Server(echo, TlsListener(address="127.0.0.1:0", files=files, ready=lambda: True, certificates=self.desk))

    def mount(self, root: int) -> None:
        self.ca.write(self.roots[root][0], self.roots[root][1].reveal())

    def know(self, *tokens: str) -> None:
        known = tuple(Workload(credential_sha256=credential_sha256(token), agent="demo/planner") for token in tokens)
        self.workloads = HeldCredentials(State(sequence=0, workloads=known))

    def signer(self, response: discovery_pb2.DeltaDiscoveryResponse) -> int:
        """Which of the two CAs signed what came."""
        found = secret(response.resources[0]).tls_certificate
        pair = (found.certificate_chain.inline_bytes, SecretValue(found.private_key.inline_bytes))
        [signed] = [number for number, root in enumerate(self.roots) if authority.examine(pair, root[0]) is not None]
        return signed


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    await made.server.start()
    yield made
    await made.server.stop(0)


@pytest.fixture
async def channel(world: World) -> AsyncIterator[grpc.aio.Channel]:
    async with connect(world.server.port, world.mounted) as found:
        yield found


async def test_a_known_pod_gets_a_certificate_of_the_mounted_authority(world: World, channel: grpc.aio.Channel) -> None:
    answer = await Asking(channel).ask(OPENED)
    assert world.signer(answer) == 0
    assert [resource.name for resource in answer.resources] == [OPENED]


@pytest.mark.parametrize("token", [None, "", "planner-2", "planner-1 "], ids=["none", "an empty one", "another", "with a space more"])
async def test_nobody_gets_nothing_and_the_stream_ends(channel: grpc.aio.Channel, token: str | None) -> None:
    assert (await Asking(channel, token).ended()).startswith("UNAUTHENTICATED: ")
    assert (await Asking(channel).ask(OPENED)).resources


@pytest.mark.parametrize("name", [SEALED, "tickets.demo.svc", "other.example.com", "*.openai.com", ""])
async def test_a_name_that_is_not_opened_does_not_exist(channel: grpc.aio.Channel, name: str) -> None:
    answer = await Asking(channel).ask(name)
    assert (list(answer.removed_resources), list(answer.resources)) == ([name], [])
    assert (await Asking(channel).ask(OTHER_OPENED)).resources


async def test_the_stream_of_a_pod_that_is_gone_ends_and_others_stay(world: World, channel: grpc.aio.Channel) -> None:
    world.know("planner-1", "planner-2")
    gone, stays, silent = Asking(channel), Asking(channel, "planner-2"), Asking(channel)
    for client in (gone, stays):
        assert (await client.ask(OPENED)).resources
    assert list((await silent.ask("other.example.com")).removed_resources)
    world.know("planner-2")
    world.desk.expel()
    for client in (gone, silent):
        assert "CredentialUnknown" in await client.ended()
    assert (await stays.ask(OTHER_OPENED)).resources


async def test_a_pod_that_is_gone_asks_for_nothing_more_on_an_open_stream(world: World, channel: grpc.aio.Channel) -> None:
    client = Asking(channel)
    assert (await client.ask(OPENED)).resources
    world.know()
    await client.send(subscribe(OTHER_OPENED).SerializeToString())
    assert "CredentialUnknown" in await client.ended()


async def test_a_new_authority_signs_from_the_next_certificate_on(world: World, channel: grpc.aio.Channel) -> None:
    client = Asking(channel)
    assert world.signer(await client.ask(OPENED)) == 0
    world.mount(1)
    world.desk.refresh()
    pushed = await client.receive()
    assert pushed is not None
    assert world.signer(pushed) == 1
    assert world.signer(await Asking(channel).ask(OTHER_OPENED)) == 1


async def test_an_authority_that_cannot_sign_leaves_the_one_in_force(world: World, channel: grpc.aio.Channel) -> None:
    leaf = authority.issue_serving(world.roots[1], ["no-ca.example.com"], NOW, 3600)
    world.ca.write(leaf[0], leaf[1].reveal())
    assert world.signer(await Asking(channel).ask(OPENED)) == 0
    world.mount(1)
    assert world.signer(await Asking(channel).ask(OPENED)) == 1


def test_there_is_no_start_without_an_authority(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path / "tls")
    with pytest.raises(AuthorityUnusableError, match="expected a CA's certificate") as caught:
        OpenTls(mounted.certificate, mounted.private_key, workloads=lambda: HeldCredentials(State(sequence=0)), registry=Registry)  # type: ignore[arg-type]  # nobody asks
    assert "PRIVATE" not in str(caught.value)


async def test_a_pod_with_too_many_streams_takes_nobody_elses_place(world: World, channel: grpc.aio.Channel) -> None:
    world.know("planner-1", "planner-2")
    held = [Asking(channel) for _ in range(open_tls.MAX_STREAMS_OF_A_POD)]
    for client in held:
        assert (await client.ask(OPENED)).resources
    more = Asking(channel)
    assert list((await more.ask(OPENED)).removed_resources) == [OPENED]
    assert await more.ended() == ""
    assert (await Asking(channel, "planner-2").ask(OPENED)).resources
    await held[0].finish()
    assert await held[0].receive() is None
    assert (await Asking(channel).ask(OPENED)).resources


async def test_streams_end_in_order_and_hold_up_no_end_of_the_process(world: World, channel: grpc.aio.Channel) -> None:
    clients = [Asking(channel) for _ in range(3)]
    for client in clients:
        assert (await client.ask(OPENED)).resources
    began = time.monotonic()
    await world.server.stop(DEADLINE_SECONDS)
    assert time.monotonic() - began < DEADLINE_SECONDS / 2
    assert [await client.ended() for client in clients] == ["", "", ""]


async def test_a_connection_that_comes_to_its_end_is_followed_by_another(world: World, tmp_path: Path) -> None:
    files = TlsFiles(world.mounted.certificate, world.mounted.private_key)
    listener = TlsListener(address="127.0.0.1:0", files=files, ready=lambda: True, connection_seconds=0.2, certificates=world.desk)
    server = Server(echo, listener)
    await server.start()
    try:
        async with connect(server.port, world.mounted) as channel:
            held = Asking(channel)
            assert (await held.ask(OPENED)).resources
            assert not (await held.ended()).startswith("UNAUTHENTICATED")
            assert (await Asking(channel).ask(OPENED)).resources
    finally:
        await server.stop(0)


async def test_nothing_that_prints_shows_a_key(world: World, channel: grpc.aio.Channel) -> None:
    await Asking(channel).ask(OPENED)
    key = world.roots[0][1].reveal().decode().splitlines()[1]
    assert key not in repr(world.desk) + repr(vars(world.desk))
    assert "PRIVATE" not in repr(vars(world.desk))
