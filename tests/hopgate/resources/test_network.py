"""Hosts, addresses, headers and prefixes: each refused spelling beside one that differs in one fact and is allowed."""

from __future__ import annotations

import pytest

from hopgate.resources import network
from hopgate.resources.fields import Field, RefusedError
from hopgate.resources.network import DialTarget


def _refusal(read: object, value: object) -> tuple[str, str]:
    assert callable(read)
    with pytest.raises(RefusedError) as refused:
        read(Field(value, ("spec", "x"), []))
    assert refused.value.mistake.path == ("spec", "x")
    return refused.value.mistake.code, refused.value.mistake.message


@pytest.mark.parametrize(
    ("bad", "allowed"),
    [
        pytest.param("Api.example.com", "api.example.com", id="upper case"),
        pytest.param("api.example.com.", "api.example.com", id="trailing dot"),
        pytest.param("*.example.com", "a.example.com", id="wildcard"),
        pytest.param("1.2.3.4", "1.2.3.a4", id="IPv4"),
        pytest.param("1", "a1", id="a number"),
        pytest.param("127.1", "127.a1", id="short IPv4"),
        pytest.param("0x7f000001", "x7f000001", id="hexadecimal IPv4"),
        pytest.param("10.0x1", "10.x1", id="hexadecimal last part"),
        pytest.param("::1", "a1", id="IPv6"),
        pytest.param("[::1]", "a1", id="IPv6 in brackets"),
        pytest.param("api.example.com:443", "api.example.com", id="with a port"),
        pytest.param("https://api.example.com", "api.example.com", id="a URL"),
        pytest.param("user@api.example.com", "user.api.example.com", id="with user info"),
        pytest.param("a.example.com,b.example.com", "a.b.example.com", id="two names"),
        pytest.param("api..example.com", "api.example.com", id="empty label"),
        pytest.param(".example.com", "example.com", id="leading dot"),
        pytest.param("-a.example.com", "a-a.example.com", id="hyphen first"),
        pytest.param("a_b.example.com", "a-b.example.com", id="underscore"),
        pytest.param("a" * 64 + ".example.com", "a" * 63 + ".example.com", id="label of 64"),
        pytest.param("a." * 126 + "aa", "a." * 125 + "aa", id="254 octets"),
        pytest.param("api.example.com\n", "api.example.com", id="line break after it"),
        pytest.param("api.exam\0ple.com", "api.example.com", id="NUL"),
        pytest.param("api%2eexample.com", "api.example.com", id="percent escape"),
        pytest.param("\u0430pi.example.com", "api.example.com", id="Cyrillic letter"),
        pytest.param("münchen.example.com", "xn--mnchen-3ya.example.com", id="not in ASCII form"),
        pytest.param("tickets.demo.svc", "tickets.demo.svc.example.com", id="cluster's own, short"),
        pytest.param("tickets.demo.svc.cluster.local", "tickets.demo.svc.cluster.example.com", id="cluster's own, long"),
        pytest.param("svc", "svcs", id="svc alone"),
        pytest.param("localhost", "localhosts", id="localhost"),
        pytest.param("a.localhost", "localhost.a", id="below localhost"),
        pytest.param("", "a", id="empty"),
    ],
)
def test_a_host_is_one_spelling_of_an_outside_name(bad: str, allowed: str) -> None:
    code, _ = _refusal(network.host, bad)

    assert code == "InvalidHost"
    assert network.host(Field(allowed, (), [])) == allowed


@pytest.mark.parametrize(
    ("text", "ip", "port"),
    [
        ("127.0.0.1", "127.0.0.1", None),
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("10.1.2.3:1", "10.1.2.3", 1),
        ("192.168.0.1:65535", "192.168.0.1", 65535),
        ("[::1]", "::1", None),
        ("[::1]:80", "::1", 80),
        ("[2001:DB8:0::1]:80", "2001:db8::1", 80),
        ("198.17.255.255", "198.17.255.255", None),
        ("198.20.0.1", "198.20.0.1", None),
        ("169.253.255.255", "169.253.255.255", None),
        ("[fec0::1]", "fec0::1", None),
        ("223.255.255.255", "223.255.255.255", None),
    ],
)
def test_an_address_may_be_any_machine_that_its_author_names(text: str, ip: str, port: int | None) -> None:
    target = network.dial_target(Field(text, (), []))

    assert target == DialTarget(ip=ip, port=port)
    assert target.with_port(443).port == (port or 443)


@pytest.mark.parametrize(
    ("bad", "code", "why"),
    [
        pytest.param("0.0.0.0", "InvalidAddress", "unspecified", id="unspecified IPv4"),  # noqa: S104 - refused here, bound nowhere
        pytest.param("[::]:80", "InvalidAddress", "unspecified", id="unspecified IPv6"),
        pytest.param("169.254.169.254", "InvalidAddress", "metadata", id="cloud metadata"),
        pytest.param("169.254.0.1:80", "InvalidAddress", "link-local", id="link-local IPv4"),
        pytest.param("[fe80::1]:80", "InvalidAddress", "link-local", id="link-local IPv6"),
        pytest.param("[febf::1]:80", "InvalidAddress", "link-local", id="end of link-local IPv6"),
        pytest.param("[fd00:ec2::254]", "InvalidAddress", "metadata", id="cloud metadata over IPv6"),
        pytest.param("100.100.100.200", "InvalidAddress", "metadata", id="another cloud's metadata"),
        pytest.param("224.0.0.1", "InvalidAddress", "multicast", id="multicast IPv4"),
        pytest.param("[ff02::1]", "InvalidAddress", "multicast", id="multicast IPv6"),
        pytest.param("255.255.255.255", "InvalidAddress", "reserved", id="broadcast"),
        pytest.param("198.18.0.1:80", "InvalidAddress", "virtual", id="a virtual address"),
        pytest.param("198.19.255.254:80", "InvalidAddress", "virtual", id="the last virtual address"),
        pytest.param("[::ffff:169.254.169.254]", "InvalidAddress", "IPv4 written as IPv6", id="metadata as mapped IPv6"),
        pytest.param("[fe80::1%eth0]", "InvalidAddress", "expected an IP address", id="zone"),
        pytest.param("::1", "InvalidAddress", "expected an IP address", id="IPv6 without brackets"),
        pytest.param("[127.0.0.1]", "InvalidAddress", "expected an IP address", id="IPv4 in brackets"),
        pytest.param("localhost:80", "InvalidAddress", "expected an IP address", id="a name"),
        pytest.param("127.1", "InvalidAddress", "expected an IP address", id="short IPv4"),
        pytest.param("127.0.0.01", "InvalidAddress", "expected an IP address", id="leading zero"),
        pytest.param("127.0.0.1:", "InvalidAddress", "expected an IP address", id="colon without a port"),
        pytest.param("127.0.0.1:0", "InvalidPort", "from 1", id="port 0"),
        pytest.param("127.0.0.1:65536", "InvalidPort", "65535", id="port beyond 16 bits"),
        pytest.param("127.0.0.1:80\n", "InvalidAddress", "expected an IP address", id="line break"),
        pytest.param("127.0.0.1:٨٠", "InvalidAddress", "expected an IP address", id="digits of another script"),
        pytest.param("", "InvalidAddress", "expected an IP address", id="empty"),
        pytest.param(80, "WrongType", "expected a string", id="a number"),
    ],
)
def test_an_address_that_no_hop_may_go_to_is_refused_with_the_reason(bad: object, code: str, why: str) -> None:
    refused_code, message = _refusal(network.dial_target, bad)

    assert refused_code == code
    assert why in message


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("authorization", "authorization"),
        ("X-Api-Key", "x-api-key"),
        ("x-hopgates", "x-hopgates"),
        ("Cookie", "cookie"),
        ("a" * 256, "a" * 256),
    ],
)
def test_a_credentials_header_is_given_in_lower_case(text: str, name: str) -> None:
    assert network.credential_header(Field(text, (), [])) == name


@pytest.mark.parametrize(
    "bad",
    [
        *("host", "Host", "connection", "keep-alive", "proxy-authorization", "te", "Transfer-Encoding", "upgrade", "content-length"),
        *("x-hopgate-token", "X-Envoy-Original-Path", ":authority", ":path", "x api", "x\r\ny", "", "x:", "ké", "\u212aey", "a" * 257),
    ],
    ids=ascii,
)
def test_a_header_that_http_or_the_gate_uses_carries_no_credential(bad: str) -> None:
    code, message = _refusal(network.credential_header, bad)

    assert code == "InvalidHeader"
    assert not bad or f"`{bad}`" not in message


@pytest.mark.parametrize("text", ["", "Bearer ", "Token token=", "~"], ids=repr)
def test_a_prefix_is_printable_ascii(text: str) -> None:
    assert network.credential_prefix(Field(text, (), [])) == text


@pytest.mark.parametrize("bad", ["Bearer\r\n", "a\nb", "a\tb", "\x7f", "é", " Bearer", "a" * 257, "a\0"], ids=ascii)
def test_a_prefix_can_not_break_a_header(bad: str) -> None:
    assert _refusal(network.credential_prefix, bad)[0] == "InvalidHeader"


@pytest.mark.parametrize(
    "bad",
    [
        "hello",
        "-----BEGIN CERTIFICATE-----\nMIIB\n",
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----",
        "x\n-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        f"-----BEGIN CERTIFICATE-----\n{'MIIB' * 65536}\n-----END CERTIFICATE-----",
    ],
    ids=["words", "cut off", "empty block", "words before", "beyond 256 KiB"],
)
def test_a_bundle_is_certificates_and_nothing_else(bad: str) -> None:
    assert _refusal(network.ca_bundle, bad)[0] == "InvalidCertificate"


def test_a_bundle_may_be_a_whole_systems_and_is_kept_without_blanks_around_its_lines() -> None:
    block = f"-----BEGIN CERTIFICATE-----\n{'MIIB' * 65000}\n-----END CERTIFICATE-----\n"

    assert network.ca_bundle(Field(f"\n  {block}\t\n", (), [])) == block


def test_a_private_key_in_a_bundle_is_named_and_not_shown() -> None:
    code, message = _refusal(network.ca_bundle, "-----BEGIN EC PRIVATE KEY-----\nMARKER\n-----END EC PRIVATE KEY-----\n")

    assert code == "InvalidCertificate"
    assert "private key" in message
    assert "MARKER" not in message
