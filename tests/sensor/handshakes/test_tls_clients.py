"""Hellos of real clients, against what each was told to ask for, what the server's TLS library took it for, and another reader."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Iterator

import pytest
from aioquic import tls
from aioquic._buffer import Buffer

from sensor.events import Kind
from sensor.handshakes.client_hello import GREASE, Ech
from sensor.handshakes.first_bytes import FirstBytes
from sensor.handshakes.seen import Hello
from sensor.handshakes.tls_stream import TlsStream
from tests.sensor.handshakes import hellos, tls_clients
from tests.sensor.handshakes.payloads import payload
from tests.sensor.handshakes.recording_server import Recorded, RecordingServer
from tests.sensor.handshakes.tls_clients import CLIENTS, NAME, PUBLIC_NAME, Client

_SHORT_NAMES = {"10": "TLSv1", "11": "TLSv1.1", "12": "TLSv1.2", "13": "TLSv1.3"}
_ALPN, _SERVER_NAME = 16, 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordingServer]:
    with RecordingServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def go_clients(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Client]:
    found = tls_clients.go()
    if found is None:
        pytest.skip("needs Go")
    return tls_clients.go_clients(found, tmp_path_factory.mktemp("go"))


def _record(server: RecordingServer, client: Client) -> Recorded:
    if shutil.which(client.command[0]) is None:
        pytest.skip(f"needs {client.command[0]}")
    before = len(server.recorded)
    client.run(server.port)
    return server.hello_after(before)


def _taken(pieces: list[bytes]) -> Hello:
    taken, sequence = FirstBytes(), 7
    found: list[object] = []
    for piece in pieces:
        found += taken.take(payload(Kind.TLS, piece, sequence=sequence))
        sequence += len(piece)
    [hello] = found
    assert isinstance(hello, Hello)
    return hello


def _check(client: Client, recorded: Recorded) -> Hello:
    hello = _taken(recorded.pieces)
    assert (hello.server_name, hello.alpn) == (client.name, client.protocols)
    assert (recorded.server_name or "") == hello.server_name
    assert recorded.protocol == ("http/1.1" if "http/1.1" in hello.alpn else None)
    assert recorded.version == _SHORT_NAMES[client.version]
    _check_fingerprint(hello.ja4, client, b"".join(recorded.pieces))
    return hello


def _check_fingerprint(ja4: str, client: Client, stream: bytes) -> None:
    """Made a second time from what another reader finds in the hello, with the numbers sorted and written as text."""
    body = TlsStream(0).add(0, stream)
    assert body is not None
    other = tls.pull_client_hello(Buffer(data=hellos.message(body)))
    suites = sorted(f"{each:04x}" for each in other.cipher_suites if each not in GREASE)
    if client.suites:
        assert suites == sorted(f"{each:04x}" for each in client.suites)
    known = {
        10: other.supported_groups,
        13: other.signature_algorithms,
        43: other.supported_versions,
        45: other.psk_key_exchange_modes,
        51: other.key_share,
        _ALPN: other.alpn_protocols,
        _SERVER_NAME: other.server_name,
    }
    kinds = [kind for kind, value in known.items() if value is not None]
    kinds += [int(kind) for kind, _ in other.other_extensions if kind not in GREASE]
    hashed = ",".join(sorted(f"{kind:04x}" for kind in kinds if kind not in (_ALPN, _SERVER_NAME)))
    signatures = ",".join(f"{each:04x}" for each in other.signature_algorithms or [])
    protocol = client.protocols[0][0] + client.protocols[0][-1] if client.protocols else "00"
    head = f"t{client.version}{'d' if client.name else 'i'}{len(suites):02d}{len(kinds):02d}{protocol}"
    parts = (",".join(suites), f"{hashed}_{signatures}")
    assert ja4 == "_".join([head, *(hashlib.sha256(part.encode()).hexdigest()[:12] for part in parts)])


@pytest.mark.slow
@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS.keys())
def test_the_hello_of_a_client_says_what_the_client_was_told(server: RecordingServer, client: Client) -> None:
    _check(client, _record(server, client))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Go", "Go, net/http"])
def test_the_hello_of_a_program_in_go(server: RecordingServer, go_clients: dict[str, Client], name: str) -> None:
    assert _check(go_clients[name], _record(server, go_clients[name])).ech is Ech.ABSENT


@pytest.mark.slow
def test_a_name_that_is_hidden_is_marked_and_not_told(server: RecordingServer, go_clients: dict[str, Client]) -> None:
    recorded = _record(server, go_clients["Go, hidden"])
    hello = _taken(recorded.pieces)
    assert (hello.server_name, hello.ech) == (PUBLIC_NAME, Ech.OUTER_OR_GREASE)
    assert recorded.server_name == PUBLIC_NAME
    assert NAME.encode() not in b"".join(recorded.pieces)


@pytest.mark.slow
def test_a_browsers_hello_greases_and_pretends_to_hide_its_name(server: RecordingServer) -> None:
    recorded = _record(server, CLIENTS["BoringSSL, as browsers use it"])
    hello = _taken(recorded.pieces)
    assert (hello.server_name, hello.ech) == ("localhost", Ech.OUTER_OR_GREASE)
    body = TlsStream(0).add(0, b"".join(recorded.pieces))
    assert body is not None
    read = tls.pull_client_hello(Buffer(data=hellos.message(body)))
    assert set(read.cipher_suites) & GREASE
    assert {kind for kind, _ in read.other_extensions} & GREASE


@pytest.mark.slow
def test_programs_of_one_runtime_share_a_fingerprint_and_other_libraries_have_others(server: RecordingServer) -> None:
    found = {
        name: _taken(_record(server, CLIENTS[name]).pieces).ja4 for name in ("httpx", "openai", "curl, HTTP/1.1", "GnuTLS", "Node, https")
    }
    assert found["httpx"] == found["openai"]
    assert len(set(found.values())) == 4


@pytest.mark.slow
def test_a_real_hello_is_the_same_in_any_pieces_and_records(server: RecordingServer) -> None:
    recorded = _record(server, CLIENTS["Python"])
    whole, stream = _taken(recorded.pieces), b"".join(recorded.pieces)
    body = TlsStream(0).add(0, stream)
    assert body is not None
    assert _taken([hellos.records(hellos.message(body), 50)]) == whole
    rng = random.Random(1)
    for size in (1, 3, 8, 100, 500):
        pieces = [(at, stream[at : at + size]) for at in range(0, len(stream), size)]
        # With more, its beginning could move more often than is followed.
        if len(pieces) <= 8:
            rng.shuffle(pieces)
        taken = FirstBytes()
        found = [seen for at, piece in pieces for seen in taken.take(payload(Kind.TLS, piece, sequence=7 + at))]
        assert found == [whole]
