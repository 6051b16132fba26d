"""Datagrams of a real QUIC client on their way to a real server, through a relay that keeps what the client sends."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import HandshakeCompleted, QuicEvent
from aioquic.quic.packet import QuicProtocolVersion

from sensor.events import Kind
from sensor.handshakes.first_bytes import FirstBytes
from sensor.handshakes.seen import Hello
from tests.sensor.handshakes.payloads import payload
from tests.sensor.handshakes.recording_server import write_certificate

NAME = "api.example.com"
HOST = "127.0.0.1"
VERSIONS = pytest.mark.parametrize(
    "version", [QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2], ids=["version 1", "version 2"]
)


@dataclass(slots=True)
class Relay(asyncio.DatagramProtocol):
    """One client's datagrams go to the server, the server's to the client."""

    server: tuple[str, int]
    sent: list[bytes] = field(default_factory=list)
    transport: asyncio.DatagramTransport | None = None
    client: tuple[str, int] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self.transport is not None
        if addr == self.server:
            self.transport.sendto(data, self.client)
            return
        self.client = addr
        self.sent.append(data)
        self.transport.sendto(data, self.server)


class _Agreed(QuicConnectionProtocol):
    """Tells which protocol the server agreed to."""

    protocols: list[str | None]

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted):
            self.protocols.append(event.alpn_protocol)


@asynccontextmanager
async def _relayed(folder: Path, protocols: list[str], *, retry: bool) -> AsyncIterator[tuple[Relay, int, list[str | None]]]:
    configuration = QuicConfiguration(is_client=False, alpn_protocols=protocols)
    configuration.load_cert_chain(*write_certificate(folder))
    agreed: list[str | None] = []

    class Noting(_Agreed):
        protocols = agreed

    listening = await serve(HOST, 0, configuration=configuration, create_protocol=Noting, retry=retry)
    assert listening._transport is not None
    port = int(listening._transport.get_extra_info("sockname")[1])
    transport, relay = await asyncio.get_running_loop().create_datagram_endpoint(lambda: Relay((HOST, port)), local_addr=(HOST, 0))
    try:
        yield relay, int(transport.get_extra_info("sockname")[1]), agreed
    finally:
        transport.close()
        listening.close()


async def _sent(folder: Path, protocols: list[str], version: int, *, retry: bool = False) -> tuple[list[bytes], list[str | None]]:
    """What a client sends until its handshake is over, and which protocol was agreed on."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=protocols, server_name=NAME, verify_mode=ssl.CERT_NONE)
    configuration.supported_versions = [version]
    configuration.original_version = version
    async with (
        _relayed(folder, protocols[-1:], retry=retry) as (relay, port, agreed),
        connect(HOST, port, configuration=configuration) as client,
    ):
        await client.ping()
    return relay.sent, agreed


def _hellos(datagrams: list[bytes]) -> tuple[list[Hello], FirstBytes]:
    """As the kernel tells them: at least 1,200 bytes and a long header."""
    taken = FirstBytes()
    told = [data for data in datagrams if len(data) >= 1200 and data[0] & 0xC0 == 0xC0]
    found = [seen for data in told for seen in taken.take(payload(Kind.QUIC, data))]
    assert all(isinstance(seen, Hello) for seen in found)
    return [seen for seen in found if isinstance(seen, Hello)], taken


@VERSIONS
async def test_the_hello_of_a_client_says_what_it_was_told(tmp_path: Path, version: QuicProtocolVersion) -> None:
    sent, agreed = await _sent(tmp_path, ["h3", "hq-interop"], version)
    [hello], taken = _hellos(sent)
    assert (hello.quic, hello.server_name, hello.alpn, hello.supported_versions) == (True, NAME, ("h3", "hq-interop"), (0x0304,))
    assert hello.ja4.startswith("q13d")
    assert hello.ja4[8:10] == "h3"
    assert agreed == ["hq-interop"]
    assert (taken.counters.errors, taken.held_bytes) == ({}, 0)


@VERSIONS
async def test_after_a_real_retry_there_is_one_hello(tmp_path: Path, version: QuicProtocolVersion) -> None:
    sent, agreed = await _sent(tmp_path, ["h3"], version, retry=True)
    assert len({data[6 : 6 + data[5]] for data in sent if data[0] & 0x80}) >= 2
    [hello], taken = _hellos(sent)
    assert (hello.server_name, agreed) == (NAME, ["h3"])
    assert taken.counters.errors == {}


@VERSIONS
async def test_a_hello_over_two_datagrams(tmp_path: Path, version: QuicProtocolVersion) -> None:
    sent, agreed = await _sent(tmp_path, [*[f"protocol-{number:03}-{'x' * 60}" for number in range(18)], "h3"], version)
    assert _hellos(sent[:1])[0] == []
    [hello], _ = _hellos(sent)
    assert (hello.server_name, agreed) == (NAME, ["h3"])
    [turned], _ = _hellos([sent[1], sent[0]])
    assert (turned.server_name, turned.ja4) == (hello.server_name, hello.ja4)
