"""The head of an HTTP/1 request in clear, as far as it is evidence (RFC 9112). Pure.

Kept are the method, where it goes, and the headers that MCP and A2A are known by. Values of credentials, cookies, sessions and queries
are never kept, nor is what looks like a key in a path. Of HTTP/2 only the preface is known: its headers are packed by HPACK, whose tables
would have to be followed from the first byte to the last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from sensor.handshakes.errors import RequestError
from sensor.handshakes.host_names import host_name

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\n"
MAX_BYTES: Final = 8192
_MAX_HEADERS: Final = 100

# RFC 9110 5.6.2
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
# RFC 9112 3; a target of visible ASCII.
_LINE: Final = re.compile(rb"([A-Z]{3,16}) ([!-~]+) HTTP/1\.([01])")
_AUTHORITY: Final = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[^:@/?#\[\]]{1,254})(?::([0-9]{1,5}))?")
_ABSOLUTE: Final = re.compile(rb"(https?)://([^/?#]*)([^?#]*)", re.IGNORECASE)
# Longer than words are, and with a digit: a key, a token, a session. Colons part a key from a name before it, as in `bot1:KEY`.
_LONG: Final = re.compile(r"[^/:]{20,}")
_VERSION: Final = re.compile(rb"[0-9A-Za-z.-]{1,32}")
_METHOD: Final = re.compile(rb"[0-9A-Za-z/_-]{1,64}")
_TYPES: Final = (b"application/json", b"text/event-stream")

# Of these the value says which revision or method is spoken, and is kept where it has that form.
_KEPT: Final = {b"mcp-protocol-version": _VERSION, b"mcp-method": _METHOD, b"a2a-version": _VERSION}
# Of these it is enough that they are there.
_PRESENT: Final = frozenset({b"mcp-session-id", b"mcp-name", b"a2a-extensions"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpHead:
    """`target` is a path without its query (`*` for what looks like a key), or the `host:port` of CONNECT. `host` is the name or address
    that the request is for, empty when there is none, or several. `headers` are the few that are evidence, by their names in lower case; of
    some the value is left empty. `whole` says whether the head's end was seen."""

    method: str
    target: str
    host: str
    port: int
    headers: Mapping[str, str]
    whole: bool


def is_http2(data: bytes) -> bool:
    """Whether a stream begins as HTTP/2 does when it was agreed on beforehand (RFC 9113 3.4)."""
    return data.startswith(PREFACE)


def read(data: bytes) -> HttpHead:
    """The head that a stream begins with. Raises RequestError."""
    head, end, _ = data[:MAX_BYTES].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n", _MAX_HEADERS + 1)
    line = _LINE.fullmatch(lines[0])
    if line is None or (not end and len(lines) == 1):
        raise RequestError("expected a request line of HTTP/1 (RFC 9112 3), got something else")
    # A line that is not whole could end in the middle of a name or a value.
    headers, hosts = _headers(lines[1:] if end else lines[1:-1])
    method, target = line[1], line[2]
    if method == b"CONNECT":
        host, port = _authority(target)
        shown = _written(host, port)
    elif (absolute := _ABSOLUTE.match(target)) is not None:
        host, port = _authority(absolute[2].rpartition(b"@")[2])
        shown = _path(absolute[3] or b"/")
    else:
        host, port = _authority(hosts[0]) if len(hosts) == 1 else ("", 0)
        shown = _path(target)
    if host:
        headers["host"] = _written(host, port)
    return HttpHead(method=method.decode("ascii"), target=shown, host=host, port=port, headers=headers, whole=bool(end))


def _headers(lines: list[bytes]) -> tuple[dict[str, str], list[bytes]]:
    """The headers that are evidence, and all values of Host."""
    found: dict[str, str] = {}
    hosts: list[bytes] = []
    for line in lines[:_MAX_HEADERS]:
        name, colon, value = line.partition(b":")
        if not colon or _TOKEN.fullmatch(name) is None:
            continue
        name, value = name.lower(), value.strip(b" \t")
        form = _KEPT.get(name)
        if name == b"host":
            hosts.append(value)
        elif form is not None:
            found[name.decode("ascii")] = value.decode("ascii") if form.fullmatch(value) else ""
        elif name in _PRESENT:
            found[name.decode("ascii")] = ""
        elif name == b"accept":
            accepted = [each.partition(b";")[0].strip(b" \t").lower() for each in value.split(b",")]
            found["accept"] = ", ".join(each.decode("ascii") for each in _TYPES if each in accepted)
    return found, hosts


def _authority(written: bytes) -> tuple[str, int]:
    """Name or address, and port; nothing where it is not well made, port 0 where there is none."""
    match = _AUTHORITY.fullmatch(written)
    port = int(match[2] or 0) if match else 0
    if match is None or port >= 1 << 16:
        return "", 0
    host = host_name(match[1]) or _address(match[1])
    return (host, port) if host else ("", 0)


def _address(written: bytes) -> str:
    """An address as it is written for people; empty for what is none."""
    try:
        return str(ip_address(written.strip(b"[]").decode("ascii")))
    except ValueError:
        return ""


def _written(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}" if port else shown


def _path(target: bytes) -> str:
    path = re.split(rb"[?#]", target, maxsplit=1)[0]
    return _LONG.sub(lambda long: "*" if any(each.isdigit() for each in long[0]) else long[0], path.decode("ascii"))
