"""Readers of the fields that say where a hop goes and what it carries: hosts, ports, addresses, headers, certificates.

What a manifest may name is narrower than what DNS, IP and HTTP allow, since a name that has two spellings, or an address that
belongs to the machine itself, would let a hop go to another place than the manifest says.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from hopgate.identity import names
from hopgate.resources import fields
from hopgate.resources.fields import Code, Field
from hopgate.resources.kinds import DialAddress

MAX_PORT: Final = 65535

# RFC 9110 section 5.6.2: token.
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# A field value as RFC 9110 section 5.5 has it, without obs-text and tabs; leading blanks would be trimmed on the way.
FIELD_VALUE_START = re.compile(r"(?:[!-~][ -~]*)?")
# RFC 3986 section 2.3: unreserved characters, which have no second spelling that a server must take for the same.
PATH = re.compile(r"/|(?:/[A-Za-z0-9._~-]+)+")
MAX_PATH_CHARACTERS = 256
# Longer than any header name or scheme that an API asks for.
MAX_HEADER_CHARACTERS = 256
# The CAs of the whole public web fit; the API server's budget for one CEL rule ends not far above.
MAX_BUNDLE_CHARACTERS = 1 << 18

# RFC 9110 section 7.6.1 and RFC 9113 section 8.2.2: they belong to one connection, not to the request; and framing and routing.
FORBIDDEN_HEADERS: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
OWN_PREFIXES: Final = ("x-hopgate-", "x-envoy-")

# Names that the cluster answers, or the machine itself (RFC 6761 section 6.3).
INSIDE_SUFFIXES: Final = ("svc", "cluster.local", "localhost")

_PEM_CERTIFICATES = re.compile(r"(?:-----BEGIN CERTIFICATE-----\n(?:[A-Za-z0-9+/]+={0,2}\n)+-----END CERTIFICATE-----\n)+")
_PEM_PRIVATE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")

ADDRESS = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<four>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?")
# What may never be dialled, and what to call it in the error. Loopback and private ranges are fine: the manifest's author named them.
FORBIDDEN_NETWORKS: Final[tuple[tuple[IPv4Network | IPv6Network, str], ...]] = (
    (IPv4Network("0.0.0.0/8"), "unspecified"),
    (IPv6Network("::/128"), "unspecified"),
    (IPv4Network("169.254.0.0/16"), "link-local, where clouds serve their metadata"),
    (IPv6Network("fe80::/10"), "link-local"),
    (IPv6Network("fd00:ec2::254/128"), "a cloud's metadata service"),
    (IPv4Network("100.100.100.200/32"), "a cloud's metadata service"),
    (IPv4Network("224.0.0.0/4"), "multicast"),
    (IPv6Network("ff00::/8"), "multicast"),
    (IPv4Network("240.0.0.0/4"), "reserved"),
    (IPv4Network("198.18.0.0/15"), "one of the gate's own virtual addresses"),
    (IPv6Network("::ffff:0:0/96"), "IPv4 written as IPv6: write it as IPv4"),
)

# RFC 4291 section 2.4: the public IPv6 internet. `is_global` also takes what is in none of its lists (fec0::1, ::127.0.0.1).
_UNICAST: Final = IPv6Network("2000::/3")
# RFC 6052: an IPv4 address that a translator dials.
_NAT64: Final = IPv6Network("64:ff9b::/96")
# 6to4 carries an IPv4 address, which no network should still dial; RFC 9637 documentation.
_NOT_PUBLIC: Final = (IPv6Network("2002::/16"), IPv6Network("3fff::/20"))


@dataclass(frozen=True, slots=True, kw_only=True)
class DialTarget:
    """An `address` as written: without a port it takes the record's."""

    ip: str
    port: int | None

    def with_port(self, port: int) -> DialAddress:
        """The address to dial, `port` where none was written."""
        return DialAddress(ip=self.ip, port=self.port if self.port is not None else port)


port = fields.integer(1, MAX_PORT, Code.INVALID_PORT)


def object_name(field: Field) -> str:
    """The name of an object: a DNS subdomain in lower case."""
    value = fields.text(field)
    if not names.is_subdomain(value):
        raise field.refusal(Code.INVALID_NAME, f"expected a name in lower case (letters, digits, `-`, `.`), got {fields.quote(value)}")
    return value


def label(field: Field) -> str:
    """A namespace or the name of a service: one DNS label in lower case."""
    value = fields.text(field)
    if not names.is_label(value):
        raise field.refusal(
            Code.INVALID_NAME, f"expected a DNS label in lower case (letters, digits, `-`; 63 at most), got {fields.quote(value)}"
        )
    return value


def host(field: Field) -> str:
    """The DNS name of an outside host: lower case, no trailing dot, no wildcard, no address, no name of the inside."""
    value = fields.text(field)
    reason = _reject_host(value)
    if reason is not None:
        raise field.refusal(Code.INVALID_HOST, f"expected a DNS name such as `api.example.com`, got {fields.quote(value)}{reason}")
    return value


def _reject_host(value: str) -> str | None:
    if value.endswith("."):
        return ": write it without the trailing dot"
    if value.startswith("*"):
        return ": wildcards are not supported, name each host"
    if value != value.lower():
        return ": write it in lower case"
    if _is_address(value):
        return ": an address has no name to check, write it as `address` beside `hosts`"
    if not value.isascii():
        return ": write it in its ASCII form, `xn--…`"
    if not names.is_subdomain(value):
        return ""
    if any(value == suffix or value.endswith(f".{suffix}") for suffix in INSIDE_SUFFIXES):
        return ": names of the inside are reached by `service`"
    return None


def url_path(field: Field) -> str:
    """The one path of a protocol's endpoint, as it stands in a URL: one spelling, so that comparing it is comparing places."""
    value = fields.text(field)
    if len(value) > MAX_PATH_CHARACTERS or PATH.fullmatch(value) is None or any(part in {".", ".."} for part in value.split("/")):
        raise field.refusal(
            Code.INVALID_VALUE,
            f"expected a path such as `/mcp`, of letters, digits, `-`, `_`, `.`, `~` and single `/`, without one at its end, "
            f"got {fields.quote(value)}",
        )
    return value


def _is_address(value: str) -> bool:
    """Whether some resolver could read this as an IP address: then its last label is a number (WHATWG URL, "ends in a number")."""
    last = value.rpartition(".")[2]
    return ":" in value or last.isdecimal() or re.fullmatch(r"0x[0-9a-f]*", last) is not None


def dial_target(field: Field) -> DialTarget:
    """`IP`, `IP:PORT`, `[IPv6]` or `[IPv6]:PORT`, of a machine that a hop may go to."""
    value = fields.text(field)
    matched = ADDRESS.fullmatch(value)
    ip = _read_ip(matched["six"], matched["four"]) if matched is not None else None
    if matched is None or ip is None:
        raise field.refusal(
            Code.INVALID_ADDRESS,
            f"expected an IP address with an optional port, such as `127.0.0.1:8080` or `[::1]:8080`, got {fields.quote(value)}",
        )
    for network, called in FORBIDDEN_NETWORKS:
        if ip.version == network.version and ip in network:
            raise field.refusal(
                Code.INVALID_ADDRESS, f"expected an address that a hop may go to, got {fields.quote(value)}, which is {called}"
            )
    if matched["port"] is None:
        return DialTarget(ip=str(ip), port=None)
    number = int(matched["port"])
    if not 1 <= number <= MAX_PORT:
        raise field.refusal(Code.INVALID_PORT, f"expected a port from 1 to {MAX_PORT}, got {fields.quote(matched['port'])}")
    return DialTarget(ip=str(ip), port=number)


def is_public(text: str) -> bool:
    """Whether the text is an address on the public internet: of no network of ours, as far as an address can tell."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        carried = address.ipv4_mapped or (IPv4Address(address.packed[-4:]) if address in _NAT64 else None)
        if carried is None:
            return (
                address.is_global
                and address.scope_id is None
                and address in _UNICAST
                and not any(address in network for network in _NOT_PUBLIC)
            )
        address = carried
    return address.is_global and not address.is_multicast


def _read_ip(six: str | None, four: str | None) -> IPv4Address | IPv6Address | None:
    try:
        return ipaddress.IPv6Address(six) if six is not None else ipaddress.IPv4Address(four or "")
    except ValueError:
        return None


def credential_header(field: Field) -> str:
    """The name of the header that carries a credential, in lower case. Not shown: people put secrets here by mistake."""
    value = fields.text(field)
    name = value.lower() if value.isascii() else value
    if len(name) > MAX_HEADER_CHARACTERS or TOKEN.fullmatch(name) is None:
        raise field.refusal(Code.INVALID_HEADER, "expected the name of an HTTP header, such as `authorization` (it is not shown here)")
    if name in FORBIDDEN_HEADERS:
        raise field.refusal(Code.INVALID_HEADER, "expected a header that may carry a credential, got one that HTTP itself uses")
    if name.startswith(OWN_PREFIXES):
        raise field.refusal(Code.INVALID_HEADER, "expected a header that may carry a credential, got one that the gate itself uses")
    return name


def credential_prefix(field: Field) -> str:
    """What stands before the secret in the header. Not shown: people put secrets here by mistake."""
    value = fields.text(field)
    if len(value) > MAX_HEADER_CHARACTERS or FIELD_VALUE_START.fullmatch(value) is None:
        raise field.refusal(
            Code.INVALID_HEADER,
            f"expected at most {MAX_HEADER_CHARACTERS} printable ASCII characters that don't begin with a blank, such as `Bearer `",
        )
    return value


def ca_bundle(field: Field) -> str:
    """PEM certificates, one after the other (RFC 7468 section 5.1). Only the form is checked here."""
    value = fields.text(field)
    if _PEM_PRIVATE.search(value):
        raise field.refusal(Code.INVALID_CERTIFICATE, "expected certificates, got a private key: take it out, it belongs nowhere near here")
    if len(value) > MAX_BUNDLE_CHARACTERS:
        raise field.refusal(Code.INVALID_CERTIFICATE, f"expected at most {MAX_BUNDLE_CHARACTERS} characters, got {len(value)}")
    lines = [stripped for line in value.splitlines() if (stripped := line.strip())]
    bundle = "".join(f"{line}\n" for line in lines)
    if _PEM_CERTIFICATES.fullmatch(bundle) is None:
        raise field.refusal(
            Code.INVALID_CERTIFICATE, "expected PEM certificates (`-----BEGIN CERTIFICATE-----` to `-----END CERTIFICATE-----`)"
        )
    return bundle
