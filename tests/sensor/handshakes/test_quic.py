from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.handshakes import client_hello, quic_flow, quic_packet
from sensor.handshakes.errors import HandshakeError, PieceError, QuicError, QuicNotAuthentic, QuicVersionUnknown
from sensor.handshakes.quic_flow import QuicFlow
from sensor.handshakes.quic_keys import VERSION_1, VERSION_2, InitialKeys
from tests.sensor.handshakes import hellos
from tests.sensor.handshakes.quic_datagrams import crypto, initial, other_packet

VERSIONS = pytest.mark.parametrize("version", [VERSION_1, VERSION_2], ids=["version 1", "version 2"])
MESSAGE = hellos.message(hellos.browser_body())
BODY = hellos.browser_body()
OTHER_ID = bytes(range(8, 16))


@pytest.mark.parametrize(
    ("version", "key", "nonce", "protection"),
    [
        (VERSION_1, "1f369613dd76d5467730efcbe3b1a22d", "fa044b2f42a3fd3b46fb255c", "9f50449e04a0e810283a1e9933adedd2"),
        (VERSION_2, "8b1a0bc121284290a29e0971b5cd045d", "91f73e2351d8fa91660e909f", "45b95e15235d6f45a6b19cbcb0294ba9"),
    ],
    ids=["RFC 9001 A.1", "RFC 9369 A.1"],
)
def test_the_published_keys(version: int, key: str, nonce: str, protection: str) -> None:
    keys = InitialKeys(version, hellos.QUIC_CONNECTION_ID)
    assert (keys.key.hex(), keys.nonce.hex(), keys.protection.hex()) == (key, nonce, protection)


@pytest.mark.parametrize(
    ("version", "sample", "mask"),
    [(VERSION_1, "d1b1c98dd7689fb8ec11d242b123dc9b", "437b9aec36"), (VERSION_2, "ffe67b6abcdb4298b485dd04de806071", "94a0c95e80")],
    ids=["RFC 9001 A.2", "RFC 9369 A.2"],
)
def test_the_published_masks(version: int, sample: str, mask: str) -> None:
    assert InitialKeys(version, hellos.QUIC_CONNECTION_ID).mask(bytes.fromhex(sample))[:5].hex() == mask


@pytest.mark.parametrize(
    ("version", "begin", "end"),
    [
        (VERSION_1, "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11", "e221af44860018ab0856972e194cd934"),
        (VERSION_2, "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485", "a18b2faa745b6fe189cf772a9f84cbfc"),
    ],
    ids=["RFC 9001 A.2", "RFC 9369 A.2"],
)
def test_the_published_packet_gives_its_hello(version: int, begin: str, end: str) -> None:
    """Its last 16 bytes are the seal of all others, so with its beginning and its seal right it is the published one."""
    datagram = initial(hellos.QUIC_PAYLOAD, version=version, number=2)
    assert (len(datagram), datagram[:32].hex(), datagram[-16:].hex()) == (1200, begin, end)
    [body] = QuicFlow(0).add(datagram)
    hello = client_hello.read(body)
    assert (hello.server_name, hello.alpn, hello.supported_versions) == ("example.com", (b"alpn",), (0x0304,))


@VERSIONS
@pytest.mark.parametrize("number_bytes", [1, 2, 3, 4])
def test_a_hello_in_one_packet(version: int, number_bytes: int) -> None:
    assert QuicFlow(0).add(initial(crypto(0, MESSAGE), version=version, number_bytes=number_bytes, number=1, token=b"t" * 70)) == [BODY]


@VERSIONS
def test_a_hello_over_datagrams_in_any_order_and_twice(version: int) -> None:
    flow = QuicFlow(0)
    parts = [initial(crypto(at, MESSAGE[at : at + 200]), version=version, number=at) for at in range(0, len(MESSAGE), 200)]
    assert len(parts) > 1
    found = [body for part in [*parts[::-1], *parts] for body in flow.add(part)]
    assert found == [BODY]


@VERSIONS
def test_pieces_in_one_packet_in_any_order_between_other_frames(version: int) -> None:
    frames = (
        crypto(100, MESSAGE[100:])
        + b"\x01"
        + bytes(30)
        + b"\x02\x05\x00\x01\x01\x00\x00"
        + crypto(0, MESSAGE[:50])
        + crypto(50, MESSAGE[50:100])
    )
    assert QuicFlow(0).add(initial(frames, version=version)) == [BODY]


@VERSIONS
def test_packets_that_share_a_datagram(version: int) -> None:
    kinds = {VERSION_1: (1, 2), VERSION_2: (2, 3)}[version]
    others = [other_packet(kind, version=version) for kind in kinds]
    first = initial(crypto(0, MESSAGE[:100]), version=version)
    second = initial(crypto(100, MESSAGE[100:]), version=version, number=1)
    assert QuicFlow(0).add(first + others[0] + second + others[1] + bytes(100)) == [BODY]


@VERSIONS
def test_a_later_packet_under_the_id_that_the_server_chose_belongs_to_the_connection(version: int) -> None:
    flow = QuicFlow(0)
    assert flow.add(initial(crypto(0, MESSAGE[:100]), version=version)) == []
    later = initial(crypto(100, MESSAGE[100:]), version=version, connection_id=OTHER_ID, keys_of=hellos.QUIC_CONNECTION_ID, number=1)
    assert flow.add(later) == [BODY]
    assert flow.late == 0


def test_what_nothing_opens_is_late_once_something_was_begun_and_an_error_before() -> None:
    unknown = initial(crypto(0, MESSAGE), connection_id=OTHER_ID, keys_of=bytes(8))
    flow = QuicFlow(0)
    with pytest.raises(QuicNotAuthentic):
        flow.add(unknown)
    assert flow.add(initial(crypto(0, MESSAGE))) == [BODY]
    assert flow.add(unknown) == []
    assert flow.late == 1


def test_after_a_retry_the_same_hello_is_told_once() -> None:
    flow = QuicFlow(0)
    assert flow.add(initial(crypto(0, MESSAGE))) == [BODY]
    assert flow.add(initial(crypto(0, MESSAGE), connection_id=OTHER_ID, token=b"retry")) == []


def test_after_a_retry_another_hello_under_the_same_id_is_of_the_same_connection() -> None:
    other = BODY.replace(hellos.RANDOM, hellos.RANDOM[::-1])
    for source_id, told in ((b"mine", []), (b"another", [other])):
        flow = QuicFlow(0)
        assert flow.add(initial(crypto(0, MESSAGE), source_id=b"mine")) == [BODY]
        assert flow.add(initial(crypto(0, hellos.message(other)), connection_id=OTHER_ID, source_id=source_id, token=b"retry")) == told


def test_a_retry_in_the_middle_of_a_hello_begins_it_anew() -> None:
    flow = QuicFlow(0)
    assert flow.add(initial(crypto(0, MESSAGE[:100]))) == []
    assert flow.add(initial(crypto(0, MESSAGE), connection_id=OTHER_ID, token=b"retry")) == [BODY]


def test_another_connection_of_the_socket_is_told() -> None:
    flow = QuicFlow(0)
    other = BODY.replace(hellos.RANDOM, hellos.RANDOM[::-1])
    assert flow.add(initial(crypto(0, MESSAGE))) == [BODY]
    assert flow.add(initial(crypto(0, hellos.message(other)), connection_id=OTHER_ID)) == [other]


def test_two_connections_of_one_socket_at_once() -> None:
    flow = QuicFlow(0)
    other = BODY.replace(hellos.RANDOM, hellos.RANDOM[::-1])
    message = hellos.message(other)
    assert flow.add(initial(crypto(0, MESSAGE[:100]))) == []
    assert flow.add(initial(crypto(0, message[:100]), connection_id=OTHER_ID)) == []
    assert flow.add(initial(crypto(100, MESSAGE[100:]), number=1)) == [BODY]
    assert flow.add(initial(crypto(100, message[100:]), connection_id=OTHER_ID, number=1)) == [other]


def test_what_a_server_sends_is_not_opened() -> None:
    """RFC 9001 A.3: its keys are others, though they come from the same id."""
    sealed = (
        "cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a5816b6394100f37a1c69797554780bb38cc5"
        "a99f5ede4cf73c3ec2493a1839b3dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84022f8ef4"
        "cdd93795d77d06edbb7aaf2f58891850abbdca3d20398c276456cbc42158407dd074ee"
    )
    with pytest.raises(QuicNotAuthentic):
        QuicFlow(0).add(bytes.fromhex(sealed))


@pytest.mark.parametrize("version", [0, 2, 0xFF00001D, 0x0A0A0A0A])
def test_another_version_is_told_as_such(version: int) -> None:
    datagram = bytearray(initial(crypto(0, MESSAGE)))
    datagram[1:5] = version.to_bytes(4, "big")
    with pytest.raises(QuicVersionUnknown) as raised:
        QuicFlow(0).add(bytes(datagram))
    assert raised.value.code == "QuicVersionUnknown"


WHOLE = initial(crypto(0, MESSAGE))


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\x40" + WHOLE[1:],
        b"\x80" + WHOLE[1:],
        WHOLE[:5],
        WHOLE[:5] + b"\x15" + bytes(60),
        WHOLE[:10],
        WHOLE[:16],
        WHOLE[:-1],
        WHOLE[:14] + b"\0" + b"\x13" + bytes(19),
    ],
    ids=["nothing", "short header", "no fixed bit", "no id", "long id", "in the id", "no length", "a byte short", "no sample"],
)
def test_what_is_no_initial_packet_is_an_error(datagram: bytes) -> None:
    assert QuicFlow(0).add(WHOLE) == [BODY]
    with pytest.raises(QuicError):
        QuicFlow(0).add(datagram)


@pytest.mark.parametrize("at", [0, 5, 20, 60, -1])
def test_a_changed_bit_opens_nothing(at: int) -> None:
    datagram = bytearray(WHOLE)
    datagram[at] ^= 1
    with pytest.raises(QuicError):
        QuicFlow(0).add(bytes(datagram))


@pytest.mark.parametrize(
    "frames",
    [
        b"\x04" + bytes(8),
        b"\x06\x00\x20" + bytes(8),
        b"\x06\x00",
        b"\x02\x00\x00\x3f\x00",
        b"\x02\x00\x00\xff" + bytes([0xFF] * 7) + bytes(9),
    ],
    ids=["a frame that is not for here", "longer than the packet", "cut short", "more ranges than bytes", "2^62 ranges"],
)
def test_frames_that_are_not_well_made_are_an_error(frames: bytes) -> None:
    with pytest.raises(QuicError):
        list(quic_packet.crypto_pieces(frames))


def test_a_piece_beyond_what_is_collected_is_an_error() -> None:
    with pytest.raises(PieceError):
        QuicFlow(0).add(initial(crypto(20_000, b"x" * 30)))


def test_a_closed_connection_tells_nothing_more() -> None:
    assert list(quic_packet.crypto_pieces(b"\x1c\x00\x00\x00" + crypto(0, MESSAGE))) == []


def test_the_datagrams_of_a_flow_that_are_looked_at_are_bounded() -> None:
    flow = QuicFlow(0)
    for number in range(quic_flow.MAX_DATAGRAMS):
        assert flow.add(initial(b"\x01", number=number)) == []
    assert flow.add(initial(crypto(0, MESSAGE), number=quic_flow.MAX_DATAGRAMS)) == []
    assert flow.late == 1


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_hellos_or_an_error(data: bytes, sealed: bool) -> None:
    """Raw, and inside of a packet that opens."""
    try:
        found = QuicFlow(0).add(initial(data) if sealed else data)
    except HandshakeError:
        return
    assert all(len(body) < len(data) for body in found)
