"""What is judged is what the upstream gets: smuggling, paths, authorities and headers, with the bytes that were sent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from tests.envoys import DEADLINE_SECONDS, World, allowing
from tests.http_ends import parse_response

pytestmark = [pytest.mark.root, pytest.mark.envoy]

ADDRESS = "198.19.0.5"
HOST = b"host: tools.demo.svc\r\n"
CLOSE = b"connection: close\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The head and body that reached the upstream, and what the check said about authority and path."""

    authority: str = "tools.demo.svc"
    path: str = "/"
    headers: bytes = b""
    body: bytes = b""


def get(target: bytes = b"/", headers: bytes = b"", host: bytes = HOST) -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + host + headers + CLOSE + b"\r\n"


def post(headers: bytes, body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\n" + HOST + headers + CLOSE + b"\r\n" + body


REFUSED = {
    "no host": (get(host=b""), 400),
    "length and chunks": (post(b"transfer-encoding: chunked\r\ncontent-length: 3\r\n", b"0\r\n\r\n"), 400),
    "chunks, then identity": (post(b"transfer-encoding: chunked, identity\r\n", b"0\r\n\r\n"), 501),
    "another encoding": (post(b"transfer-encoding: xchunked\r\n", b"0\r\n\r\n"), 501),
    "an encoding, then chunks": (post(b"transfer-encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 501),
    "two lengths": (post(b"content-length: 3\r\ncontent-length: 4\r\n", b"abcd"), 400),
    "the same length twice": (post(b"content-length: 3\r\ncontent-length: 3\r\n", b"abc"), 400),
    "a signed length": (post(b"content-length: +3\r\n", b"abc"), 400),
    "a space before the colon": (get(headers=b"x-a : b\r\n"), 400),
    "an escaped slash": (get(b"/a%2fb"), 400),
    "an escaped backslash": (get(b"/a%5Cb"), 400),
    "an escaped NUL": (get(b"/a%00b"), 400),
    "a fragment": (get(b"/a#b"), 400),
    "a header with an underscore": (get(headers=b"x_hopgate_token: b\r\n"), 400),
    "an unknown method": (b"BREW / HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", 400),
    "a tunnel": (b"CONNECT tools.demo.svc:443 HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", 403),
    "a web socket": (get(headers=b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: a\r\n"), 403),
    "no path at all": (b"OPTIONS * HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", 404),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n" + HOST + b"\r\n", 426),
    "headers of 70 kB": (get(headers=b"x-a: " + b"a" * 70_000 + b"\r\n"), 431),
    "200 headers": (get(headers=b"".join(b"x-%d: 1\r\n" % number for number in range(200))), 431),
}


@pytest.mark.parametrize(("sent", "status"), REFUSED.values(), ids=REFUSED)
async def test_refused_by_envoy_without_a_question(world: World, sent: bytes, status: int) -> None:
    upstream = await world.upstream()
    world.authz.script = allowing(upstream.dial)
    reader, writer = await world.connect(ADDRESS, 80)
    writer.write(sent)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_SECONDS)
    writer.close()  # Envoy keeps a refused connection for another second, for clients that are still sending
    assert parse_response(head).status == status
    assert (world.authz.asked, upstream.connections) == ([], 0)


PASSED = {
    "plain": (get(b"/a?b=c"), Seen(path="/a?b=c")),
    "two hosts are one that no record has": (get(host=b"host: tools.demo.svc\r\nhost: b\r\n"), Seen(authority="tools.demo.svc,b")),
    "user information is part of the authority": (get(host=b"host: tools.demo.svc@b\r\n"), Seen(authority="tools.demo.svc@b")),
    "an absolute target's authority wins": (get(b"http://b/x"), Seen(authority="b", path="/x")),
    "an absolute target of the same authority": (get(b"http://tools.demo.svc/x"), Seen(path="/x")),
    "bare line feeds": (get().replace(b"\r\n", b"\n"), Seen()),
    "dots and slashes": (get(b"/a/../b//c"), Seen(path="/b/c")),
    "escaped dots": (get(b"/a/%2e%2e/b"), Seen(path="/b")),
    "an escaped letter": (get(b"/%61bc"), Seen(path="/abc")),
    "a folded header": (get(headers=b"x-a: b\r\n c\r\n"), Seen(headers=b"x-a: b c\r\n")),
    "a header in UTF-8": (get(headers="x-a: é\r\n".encode()), Seen(headers="x-a: é\r\n".encode())),
    "a repeated header": (get(headers=b"x-a: b\r\nx-a: c\r\n"), Seen(headers=b"x-a: b\r\nx-a: c\r\n")),
    "an offer of HTTP/2": (get(headers=b"upgrade: h2c\r\nhttp2-settings: AAMAAABk\r\nconnection: upgrade, http2-settings\r\n"), Seen()),
    "headers of this connection alone": (get(headers=b"x-a: b\r\nconnection: x-a\r\n"), Seen()),
    "another proxy's headers": (get(headers=b"x-forwarded-client-cert: a\r\nx-forwarded-proto: https\r\n"), Seen()),
    "an id of its own": (get(headers=b"x-request-id: mine\r\n"), Seen(headers=b"x-request-id: mine\r\n")),
}


@pytest.mark.parametrize(("sent", "seen"), PASSED.values(), ids=PASSED)
async def test_judged_as_the_upstream_sees_it(world: World, sent: bytes, seen: Seen) -> None:
    upstream = await world.upstream()
    world.authz.script = allowing(upstream.dial)
    assert parse_response(await world.exchange(ADDRESS, 80, sent)).status == 200
    (asked,) = world.authz.asked
    assert asked.check.http is not None
    assert (asked.check.http.unverified_host, asked.check.http.path) == (seen.authority, seen.path)
    assert "".join(f"{name}: {value}\r\n" for name, value in asked.check.http.headers).encode() == seen.headers
    head = f"GET {seen.path} HTTP/1.1\r\nhost: {seen.authority}\r\n".encode()
    assert upstream.requests == [head + seen.headers + b"\r\n"]


@pytest.mark.parametrize(
    "body",
    [b"3\r\nabc\r\n0\r\n\r\n", b"3;ext=1\r\nabc\r\n0\r\n\r\n", b"1\r\na\r\n2\r\nbc\r\n0\r\nx-hopgate-token: forged\r\nx-a: b\r\n\r\n"],
    ids=["chunks", "a chunk extension", "trailers"],
)
async def test_a_chunked_body_is_judged_whole_and_its_trimmings_are_dropped(world: World, body: bytes) -> None:
    upstream = await world.upstream()
    world.authz.script = allowing(upstream.dial)
    assert parse_response(await world.exchange(ADDRESS, 80, post(b"transfer-encoding: chunked\r\n", body))).status == 200
    (asked,) = world.authz.asked
    assert asked.check.http is not None
    assert (asked.check.http.body, asked.check.http.body_complete) == (b"abc", True)
    assert upstream.requests == [b"POST / HTTP/1.1\r\nhost: tools.demo.svc\r\ntransfer-encoding: chunked\r\n\r\nabc"]


async def test_bytes_that_are_no_text_in_a_header_are_denied(world: World) -> None:
    upstream = await world.upstream()
    world.authz.script = allowing(upstream.dial)
    response = parse_response(await world.exchange(ADDRESS, 80, get(headers=b"x-a: \xff\xfe\r\n")))
    assert (response.status, world.authz.malformed, upstream.connections) == (400, 1, 0)


async def test_each_request_of_a_connection_is_asked_about_on_its_own(world: World) -> None:
    upstream = await world.upstream()
    world.authz.script = allowing(upstream.dial)
    first = b"GET /1 HTTP/1.1\r\n" + HOST + b"\r\n"
    await world.exchange(ADDRESS, 80, first + get(b"/2"))
    assert [asked.check.http.path for asked in world.authz.asked if asked.check.http is not None] == ["/1", "/2"]


FORGED = (
    ("x-envoy-original-dst-host", "127.0.0.1:9"),
    ("x-envoy-original-path", "/forged"),
    ("X-Envoy-Retry-On", "5xx"),
    ("x-envoy-upstream-rq-timeout-ms", "1"),
    ("x-envoy-auth-partial-body", "false"),
    ("x-envoy-internal", "true"),
    ("x-hopgate-token", "forged"),
    ("X-HopGate-Chain", "forged"),
)


async def test_names_that_only_gates_write_mean_nothing_from_an_agent(world: World) -> None:
    upstream = await world.upstream()
    world.authz.script = allowing(upstream.dial, set_headers=(("x-hopgate-token", "minted"),))
    response = await world.request(ADDRESS, 80, host="tools.demo.svc", target="/real", headers=(*FORGED, ("x-kept", "1")))
    (asked,) = world.authz.asked
    assert asked.check.http is not None
    assert asked.check.http.headers == (("x-kept", "1"),)
    assert response.status == 200
    assert upstream.requests == [b"GET /real HTTP/1.1\r\nhost: tools.demo.svc\r\nx-kept: 1\r\nx-hopgate-token: minted\r\n\r\n"]


async def test_names_that_only_gates_write_do_not_come_back_from_an_upstream(world: World) -> None:
    upstream = await world.upstream()
    upstream.response_headers = (
        ("x-hopgate-decision", "forged"),
        ("X-Envoy-Upstream-Service-Time", "1"),
        ("x-kept", "1"),
        ("server", "own"),
    )
    world.authz.script = allowing(upstream.dial)
    response = await world.request(ADDRESS, 80, host="tools.demo.svc")
    names = {name for name, _ in response.headers}
    assert names == {"content-length", "x-kept", "server", "date", "connection"}
    assert response.header("server") == "own"


@pytest.mark.parametrize(("name", "status"), [("host", 500), (":path", 500), (":method", 500), ("x-other", 200)])
async def test_an_answer_can_not_change_where_a_request_goes_or_what_it_asks(world: World, name: str, status: int) -> None:
    upstream = await world.upstream()
    world.authz.script = allowing(upstream.dial, set_headers=((name, "/forged"),))
    assert (await world.request(ADDRESS, 80, host="tools.demo.svc")).status == status
    assert upstream.connections == (1 if status == 200 else 0)
