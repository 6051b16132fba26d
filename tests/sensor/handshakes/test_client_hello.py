from __future__ import annotations

import pytest

from sensor.handshakes import client_hello, pieces
from sensor.handshakes.client_hello import ALPN, ENCRYPTED_CLIENT_HELLO, SERVER_NAME, SUPPORTED_VERSIONS, Ech, NameState
from sensor.handshakes.errors import HelloError, HelloTooLong
from tests.sensor.handshakes import hellos
from tests.sensor.handshakes.hellos import alpn_extension, body, name_extension, numbers, vector


def test_a_hello_is_read_field_by_field() -> None:
    hello = client_hello.read(hellos.browser_body())
    assert (hello.version, hello.random) == (0x0303, hellos.RANDOM)
    assert hello.cipher_suites == (0x2A2A, *hellos.BROWSER_SUITES)
    assert hello.extensions == (0x2A2A, *hellos.BROWSER_EXTENSIONS)
    assert (hello.server_name, hello.name_state) == ("api.example.com", NameState.HOST_NAME)
    assert hello.alpn == (b"h2", b"http/1.1")
    assert hello.supported_versions == (0x2A2A, 0x0304, 0x0303)
    assert hello.signature_algorithms == hellos.BROWSER_SIGNATURES
    assert hello.ech is Ech.ABSENT


@pytest.mark.parametrize("listed", [None, ()], ids=["no extensions", "an empty list of them"])
def test_a_hello_may_offer_no_extensions(listed: tuple[()] | None) -> None:
    hello = client_hello.read(body(listed))
    assert (hello.extensions, hello.server_name, hello.name_state, hello.alpn) == ((), "", NameState.ABSENT, ())


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (b"api.example.com", "api.example.com"),
        (b"API.Example.COM", "api.example.com"),
        (b"api.example.com.", "api.example.com"),
        (b"my_bucket.example.com", "my_bucket.example.com"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"localhost", "localhost"),
        (b"4example.com", "4example.com"),
        (b"", ""),
        (b".", ""),
        (b"api..example.com", ""),
        (b"-api.example.com", ""),
        (b"api.example.com\n", ""),
        (b"api.example.com\0.evil", ""),
        (b"api example.com", ""),
        (b"api.example.com/path", ""),
        (b"user@example.com", ""),
        ("bücher.example".encode(), ""),
        ("\u202emoc.elpmaxe".encode(), ""),
        (b"192.0.2.7", ""),
        (b"0x7f000001", ""),
        (b"[2001:db8::1]", ""),
        (b"a" * 63 + b".example", "a" * 63 + ".example"),
        (b"a" * 64 + b".example", ""),
        (b".".join([b"a" * 63] * 3 + [b"b" * 61]), ".".join(["a" * 63] * 3 + ["b" * 61])),
        (b".".join([b"a" * 63] * 3 + [b"b" * 62]), ""),
    ],
)
def test_only_a_host_name_is_handed_on(written: bytes, name: str) -> None:
    hello = client_hello.read(body([(SERVER_NAME, name_extension(written))]))
    assert hello.server_name == name
    assert hello.name_state is (NameState.HOST_NAME if name else NameState.NOT_A_HOST_NAME)


@pytest.mark.parametrize(
    "data",
    [name_extension(b"example.com", kind=1), vector(b"", 2), vector(name_extension(b"example.com")[2:] * 2, 2)],
    ids=["another type of name", "no name", "two names"],
)
def test_a_list_that_is_not_one_host_name_is_told_as_such(data: bytes) -> None:
    hello = client_hello.read(body([(SERVER_NAME, data)]))
    assert (hello.server_name, hello.name_state) == ("", NameState.NOT_A_HOST_NAME)


@pytest.mark.parametrize(
    ("listed", "ech"),
    [
        ([], Ech.ABSENT),
        ([(ENCRYPTED_CLIENT_HELLO, b"\x00" + bytes(40))], Ech.OUTER_OR_GREASE),
        ([(ENCRYPTED_CLIENT_HELLO, b"\x01")], Ech.INNER),
    ],
    ids=["absent", "outer", "inner"],
)
def test_encrypted_client_hello_is_marked(listed: list[tuple[int, bytes]], ech: Ech) -> None:
    assert client_hello.read(body(listed)).ech is ech


WELL_MADE = body([(SERVER_NAME, name_extension(b"example.com")), (ALPN, alpn_extension(b"h2"))])


@pytest.mark.parametrize(
    "malformed",
    [
        b"",
        WELL_MADE[:33],
        WELL_MADE + b"\0",
        body([(5, b""), (5, b"")]),
        body(suites=()),
        body(compression=b""),
        body(session=bytes(33)),
        body([(ALPN, alpn_extension(b""))]),
        body([(ALPN, alpn_extension(b"h2") + b"\0")]),
        body([(SERVER_NAME, b"")]),
        body([(SUPPORTED_VERSIONS, vector(b"\x03", 1))]),
        body([(SUPPORTED_VERSIONS, vector(numbers([0x0304]), 1)[:-1])]),
    ],
    ids=[
        "nothing",
        "short of the random value",
        "a byte more",
        "an extension twice",
        "no cipher suites",
        "no compression",
        "a long session id",
        "an empty protocol",
        "a byte more in ALPN",
        "an empty server name",
        "half a version",
        "versions cut short",
    ],
)
def test_what_is_not_well_made_is_an_error(malformed: bytes) -> None:
    client_hello.read(WELL_MADE)
    with pytest.raises(HelloError) as raised:
        client_hello.read(malformed)
    assert raised.value.code == "HelloMalformed"


def test_every_beginning_of_a_hello_is_an_error_but_the_one_without_extensions() -> None:
    whole = len(body(None))
    for end in range(len(WELL_MADE)):
        if end == whole:
            assert client_hello.read(WELL_MADE[:end]).extensions == ()
            continue
        with pytest.raises(HelloError):
            client_hello.read(WELL_MADE[:end])


def test_a_message_is_waited_for_to_its_end() -> None:
    message = hellos.message(WELL_MADE)
    assert [client_hello.body_of(message[:end]) for end in range(len(message))] == [None] * len(message)
    assert client_hello.body_of(message) == WELL_MADE
    assert client_hello.body_of(message + b"more") == WELL_MADE


def test_another_message_is_no_hello() -> None:
    with pytest.raises(HelloError):
        client_hello.body_of(b"\x02")


def test_the_longest_hello_is_as_long_as_what_is_collected() -> None:
    longest = pieces.MAX_BYTES - 4
    assert client_hello.body_of(b"\x01" + longest.to_bytes(3, "big")) is None
    with pytest.raises(HelloTooLong) as raised:
        client_hello.body_of(b"\x01" + (longest + 1).to_bytes(3, "big"))
    assert raised.value.code == "HelloTooLong"
