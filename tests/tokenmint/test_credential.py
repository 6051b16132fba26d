from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopgate.identity.names import ObjectName
from hopgate.resources.kinds import Credential, SecretKey, SecretValue
from tokenmint import credential
from tokenmint.credential import CALLER_CREDENTIAL_HEADERS, SecretHeader
from tokenmint.errors import CredentialError

MARKER = "sk-marker-8f2e61"
WHERE = SecretKey(secret=ObjectName("demo", "openai"), key="apiKey")
BEARER = Credential(secret=WHERE, header="authorization", prefix="Bearer ")


def header_of(secret: bytes, prefix: str = "Bearer ") -> SecretHeader:
    return credential.header_value(Credential(secret=WHERE, header="authorization", prefix=prefix), {WHERE: SecretValue(secret)})


def refusal(secret: bytes) -> CredentialError:
    with pytest.raises(CredentialError) as caught:
        header_of(secret)
    return caught.value


def test_the_header_is_the_prefix_and_the_secret() -> None:
    header = header_of(b"sk-1")
    assert (header.name, header.reveal()) == ("authorization", "Bearer sk-1")


def test_a_secret_without_a_prefix_is_the_whole_value() -> None:
    assert header_of(b"sk-1", prefix="").reveal() == "sk-1"


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n"], ids=["none", "LF", "CRLF", "two"])
def test_the_line_end_of_a_secret_file_is_taken_off(end: bytes) -> None:
    assert header_of(b"sk-1" + end).reveal() == "Bearer sk-1"


def test_a_space_inside_is_part_of_the_secret() -> None:
    assert header_of(b"user pass").reveal() == "Bearer user pass"


@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(MARKER.encode() + b"\r\nx-admin: 1", id="a second header"),
        pytest.param(MARKER.encode() + b"\nx", id="a second line"),
        pytest.param(b"\n" + MARKER.encode(), id="a line end before"),
        pytest.param(MARKER.encode() + b"\0", id="NUL"),
        pytest.param(MARKER.encode() + b"\tx", id="a tab"),
        pytest.param(MARKER.encode() + b"\x7f", id="DEL"),
        pytest.param(MARKER.encode() + b"\x1b[0m", id="an escape sequence"),
        pytest.param(MARKER.encode() + b"\xff", id="bytes that are not UTF-8"),
        pytest.param(MARKER.encode() + "é".encode(), id="letters beyond ASCII"),
        pytest.param(MARKER.encode() + b" ", id="a space after"),
        pytest.param(b" " + MARKER.encode(), id="a space before"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\r\n", id="line ends alone"),
        pytest.param(MARKER.encode() * 2000, id="longer than a header"),
    ],
)
def test_a_secret_that_can_not_be_a_header_is_refused_without_being_shown(secret: bytes) -> None:
    error = refusal(secret)
    assert error.code == "CredentialUnusable"
    assert "demo/openai" in str(error)
    assert MARKER not in f"{error} {error!r} {error.__cause__!r} {error.args}"
    assert header_of(MARKER.encode()).reveal() == f"Bearer {MARKER}"


def test_a_missing_secret_has_a_code_of_its_own() -> None:
    other = SecretKey(secret=WHERE.secret, key="other")
    with pytest.raises(CredentialError) as caught:
        credential.header_value(BEARER, {other: SecretValue(MARKER.encode())})
    assert caught.value.code == "CredentialMissing"
    assert MARKER not in str(caught.value)


@given(secret=st.binary(max_size=40))
def test_any_secret_gives_a_clean_header_or_a_typed_error(secret: bytes) -> None:
    try:
        value = header_of(secret).reveal()
    except CredentialError:
        return
    assert value.isascii()
    assert value.isprintable()
    assert value == value.strip()


@pytest.mark.parametrize("name", CALLER_CREDENTIAL_HEADERS)
def test_a_credential_header_is_named_as_envoy_names_headers(name: str) -> None:
    assert name == name.lower().strip()
    assert CALLER_CREDENTIAL_HEADERS.count(name) == 1


def test_the_headers_that_sdks_put_keys_into_are_known() -> None:
    known = {"authorization", "cookie", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "x-amz-security-token"}
    assert known <= set(CALLER_CREDENTIAL_HEADERS)
