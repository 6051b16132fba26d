from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor.handshakes import http_head
from sensor.handshakes.errors import RequestError

MARKER = "s3cret-marker-0123456789"


def _head(line: str, *headers: str, end: str = "\r\n\r\n") -> bytes:
    return ("\r\n".join([line, *headers]) + end).encode("latin-1")


def test_a_request_of_mcp_is_read() -> None:
    head = http_head.read(
        _head(
            "POST /mcp HTTP/1.1",
            "Host: Tools.Example.com:8080",
            "Accept: application/json;q=0.9, text/event-stream, */*",
            "MCP-Protocol-Version: 2025-06-18",
            f"Mcp-Session-Id: {MARKER}",
            "Mcp-Method: tools/call",
        )
    )
    assert (head.method, head.target, head.host, head.port, head.whole) == ("POST", "/mcp", "tools.example.com", 8080, True)
    assert head.headers == {
        "host": "tools.example.com:8080",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2025-06-18",
        "mcp-session-id": "",
        "mcp-method": "tools/call",
    }


def test_a_card_of_a2a_is_read() -> None:
    head = http_head.read(_head("GET /.well-known/agent-card.json HTTP/1.1", "Host: agent.example.com", "A2A-Version: 1.0"))
    assert (head.target, head.headers["a2a-version"]) == ("/.well-known/agent-card.json", "1.0")


@pytest.mark.parametrize(
    ("line", "host", "port", "target"),
    [
        ("CONNECT api.example.com:443 HTTP/1.1", "api.example.com", 443, "api.example.com:443"),
        ("CONNECT 192.0.2.7:443 HTTP/1.1", "192.0.2.7", 443, "192.0.2.7:443"),
        ("CONNECT [2001:DB8::1]:443 HTTP/1.1", "2001:db8::1", 443, "[2001:db8::1]:443"),
        ("CONNECT api.example.com:70000 HTTP/1.1", "", 0, ""),
        ("CONNECT not/a/host:443 HTTP/1.1", "", 0, ""),
        ("GET http://API.example.com/path?query HTTP/1.1", "api.example.com", 0, "/path"),
        (f"GET http://user:{MARKER}@api.example.com:81/path HTTP/1.1", "api.example.com", 81, "/path"),
        ("GET http://api.example.com?query HTTP/1.1", "api.example.com", 0, "/"),
        ("GET / HTTP/1.0", "from.example.com", 0, "/"),
        ("OPTIONS * HTTP/1.1", "from.example.com", 0, "*"),
    ],
)
def test_where_a_request_goes(line: str, host: str, port: int, target: str) -> None:
    head = http_head.read(_head(line, "Host: from.example.com"))
    assert (head.host, head.port, head.target) == (host, port, target)


@pytest.mark.parametrize(
    "headers",
    [(), ("Host: a.example.com", "Host: b.example.com"), ("Host: a.example.com,b.example.com",), ("Host : a.example.com",), ("Host: a b",)],
    ids=["none", "two", "a list", "a blank before the colon", "no host"],
)
def test_a_host_that_is_not_one_name_is_none(headers: tuple[str, ...]) -> None:
    assert http_head.read(_head("GET / HTTP/1.1", "Host: a.example.com")).host == "a.example.com"
    head = http_head.read(_head("GET / HTTP/1.1", *headers))
    assert (head.host, "host" in head.headers) == ("", False)


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1beta/models/gemini-pro:streamGenerateContent", "/v1beta/models/gemini-pro:streamGenerateContent"),
        ("/.well-known/agent-card.json", "/.well-known/agent-card.json"),
        ("/abc?key=1", "/abc"),
        ("/abc#key=1", "/abc"),
        (f"/servers/{MARKER}/mcp", "/servers/*/mcp"),
        (f"/bot12:{MARKER}/send", "/bot12:*/send"),
        ("/sessions/0f8fad5b-d9cb-469f-a165-70867728950e/mcp", "/sessions/*/mcp"),
    ],
)
def test_of_a_path_what_looks_like_a_key_is_not_kept(path: str, kept: str) -> None:
    assert http_head.read(_head(f"POST {path} HTTP/1.1")).target == kept


@pytest.mark.parametrize(
    "header",
    [
        "Authorization: Bearer",
        "Cookie: session",
        "X-Api-Key:",
        "Mcp-Session-Id:",
        "Mcp-Name:",
        "A2A-Extensions:",
        "Accept:",
        "Proxy-Authorization:",
    ],
)
def test_no_value_of_a_credential_is_kept(header: str) -> None:
    head = http_head.read(_head(f"POST /mcp?{MARKER} HTTP/1.1", f"{header} {MARKER}", f"Mcp-Method: {MARKER} x"))
    assert MARKER not in repr(head)
    assert head.method == "POST"


@pytest.mark.parametrize("end", range(1, 60))
def test_of_a_head_that_is_not_whole_only_whole_lines_count(end: int) -> None:
    whole = _head("POST /mcp HTTP/1.1", "Mcp-Method: tools/call", "Host: tools.example.com")
    if end <= len(b"POST /mcp HTTP/1.1\r"):
        with pytest.raises(RequestError):
            http_head.read(whole[:end])
        return
    head = http_head.read(whole[:end])
    assert not head.whole
    assert head.headers in ({}, {"mcp-method": "tools/call"})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        _head("GET /"),
        _head("get / HTTP/1.1"),
        _head("GET / HTTP/2.0"),
        _head("GET  / HTTP/1.1"),
        _head("GET /\x7f HTTP/1.1"),
        _head("GET /\xe9 HTTP/1.1"),
    ],
    ids=["nothing", "no line", "no version", "lower case", "another version", "two blanks", "a control character", "beyond ASCII"],
)
def test_what_is_no_request_is_an_error(data: bytes) -> None:
    with pytest.raises(RequestError) as raised:
        http_head.read(data)
    assert raised.value.code == "RequestMalformed"


def test_http_2_is_known_by_its_preface() -> None:
    assert http_head.is_http2(http_head.PREFACE + b"SM\r\n\r\n")
    assert not http_head.is_http2(b"PRI * HTTP/1.1\r\n\r\n")


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_a_head_or_an_error(data: bytes, led: bool) -> None:
    try:
        head = http_head.read(b"GET / HTTP/1.1\r\n" + data if led else data)
    except RequestError:
        return
    assert head.target.isascii()
    assert "\n" not in repr(head)
