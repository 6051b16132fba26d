"""Time and size: streams arrive as they are sent, large bodies are known to be cut, and a silent authz is a denial."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from hopgate.proxy.bootstrap import MAX_BODY_BYTES
from tests import envoys, h2_ends
from tests.envoys import DEADLINE_SECONDS, Asked, World, allowing, eventually
from tests.http_ends import Upstream, parse_response, read_request

pytestmark = [pytest.mark.root, pytest.mark.envoy]

ADDRESS = "198.19.0.5"


async def test_each_event_of_a_stream_arrives_before_the_next_is_sent(world: World) -> None:
    received = asyncio.Event()

    async def events(_: Upstream, reader: Any, writer: Any) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(3):
            writer.write(b"a\r\ndata: %03d\n\r\n" % number)
            await writer.drain()
            await asyncio.wait_for(received.wait(), DEADLINE_SECONDS)
            received.clear()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    upstream = await world.upstream(Upstream(answer=events))
    world.authz.script = allowing(upstream.dial)
    reader, writer = await world.connect(ADDRESS, 80)
    writer.write(b"GET / HTTP/1.1\r\nhost: tools.demo.svc\r\n\r\n")
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_SECONDS)
    for number in range(3):
        await asyncio.wait_for(reader.readuntil(b"data: %03d\n\r\n" % number), DEADLINE_SECONDS)
        received.set()
    assert await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), DEADLINE_SECONDS) == b"0\r\n\r\n"
    writer.close()


@pytest.mark.parametrize(
    ("size", "complete"),
    [(MAX_BODY_BYTES, True), (MAX_BODY_BYTES + 1, False), (5 * MAX_BODY_BYTES, False)],
    ids=["at the limit", "one above it", "far above it"],
)
async def test_a_large_body_is_known_to_be_cut_and_goes_on_whole(world: World, size: int, complete: bool) -> None:
    upstream = await world.upstream()
    world.authz.script = allowing(upstream.dial)
    forged = (("x-envoy-auth-partial-body", "false"),)
    assert (await world.request(ADDRESS, 80, host="a", method="POST", body=b"x" * size, headers=forged)).status == 200
    (asked,) = world.authz.asked
    assert asked.check.http is not None
    assert (len(asked.check.http.body), asked.check.http.body_complete) == (MAX_BODY_BYTES, complete)
    assert upstream.requests[0].partition(b"\r\n\r\n")[2] == b"x" * size


async def test_without_authz_a_request_is_refused_and_the_next_one_after_it_is_back_works(world: World) -> None:
    upstream = await world.upstream()
    world.authz.script = allowing(upstream.dial)
    assert (await world.request(ADDRESS, 80, host="a")).status == 200
    await world.authz.stop()
    refused = await world.request(ADDRESS, 80, host="a")
    assert (refused.status, json.loads(refused.body)["error"]["code"]) == (503, "GateUnavailable")
    assert refused.header("content-type") == "application/json"
    assert await world.exchange("198.18.200.5", 443, b"\x16\x03\x01 no more than a beginning") == b""
    await world.authz.start()
    assert (await world.request(ADDRESS, 80, host="a")).status == 200
    assert len(upstream.requests) == 2


async def test_an_authz_that_is_too_slow_is_a_denial(tmp_path: Path) -> None:
    async with envoys.running(tmp_path, check_timeout_seconds=0.05) as world:
        upstream = await world.upstream()
        go_on = asyncio.Event()

        async def slow(asked: Asked) -> bytes:
            await go_on.wait()
            return allowing(upstream.dial)(asked)

        world.authz.script = slow
        assert (await world.request(ADDRESS, 80, host="a")).status == 503
        go_on.set()
        assert upstream.connections == 0
        assert (await world.request(ADDRESS, 80, host="a")).status == 200


@pytest.mark.parametrize("answer", [b"", b"\xff\xff", None], ids=["an empty answer", "no message", "an error"])
async def test_an_answer_that_is_not_a_clean_allow_is_a_denial(world: World, answer: bytes | None) -> None:
    upstream = await world.upstream()

    def script(_: Asked) -> bytes:
        if answer is None:
            raise ValueError("as a bug would")
        return answer

    world.authz.script = script
    assert (await world.request(ADDRESS, 80, host="a")).status in (403, 503)
    assert upstream.connections == 0
    world.authz.script = allowing(upstream.dial)
    assert (await world.request(ADDRESS, 80, host="a")).status == 200


async def test_http2_without_tls_keeps_its_trailers_but_not_forged_ones(world: World) -> None:
    answering = h2_ends.Answering()
    upstream = await world.upstream(Upstream(answer=answering))
    world.authz.script = allowing(upstream.dial)
    reader, writer = await world.connect(ADDRESS, 80)
    sent = h2_ends.Message(
        headers=((":method", "POST"), (":scheme", "http"), (":authority", "a.demo.svc"), (":path", "/s/m"), ("te", "trailers")),
        body=b"question",
        trailers=(("x-hopgate-token", "forged"), ("x-kept", "1")),
    )
    response = await asyncio.wait_for(h2_ends.request(reader, writer, sent), DEADLINE_SECONDS)
    writer.close()
    assert (dict(response.headers)[":status"], response.body, response.trailers) == ("200", b"answer", (("grpc-status", "0"),))
    (received,) = answering.received
    assert (received.body, received.trailers) == (b"question", (("x-kept", "1"),))


async def test_http2_with_two_authorities_is_judged_by_the_one_that_the_upstream_gets(world: World) -> None:
    answering = h2_ends.Answering()
    upstream = await world.upstream(Upstream(answer=answering))
    world.authz.script = allowing(upstream.dial)
    reader, writer = await world.connect(ADDRESS, 80)
    headers = ((":method", "GET"), (":scheme", "http"), (":authority", "a.demo.svc"), (":path", "/"), ("host", "b.demo.svc"))
    await asyncio.wait_for(h2_ends.request(reader, writer, h2_ends.Message(headers=headers)), DEADLINE_SECONDS)
    writer.close()
    (asked,) = world.authz.asked
    assert asked.check.http is not None
    authorities = [value for name, value in answering.received[0].headers if name in (":authority", "host")]
    assert authorities == [asked.check.http.unverified_host] == ["a.demo.svc"]


async def test_headers_that_never_end_are_cut_off(tmp_path: Path) -> None:
    def shorter(tree: dict[str, Any]) -> None:
        for chain in tree["static_resources"]["listeners"][0]["filter_chains"]:
            for part in chain["filters"]:
                if "request_headers_timeout" in part["typed_config"]:
                    assert part["typed_config"]["request_headers_timeout"] == "10s"
                    part["typed_config"]["request_headers_timeout"] = "0.1s"

    async with envoys.running(tmp_path, change=shorter) as world:
        assert parse_response(await world.exchange(ADDRESS, 80, b"GET / HTTP/1.1\r\nhost: a\r\n")).status == 408
        assert world.authz.asked == []


async def test_connections_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    def two(tree: dict[str, Any]) -> None:
        tree["overload_manager"]["resource_monitors"][0]["typed_config"]["max_active_downstream_connections"] = 2

    async with envoys.running(tmp_path, change=two) as world:
        upstream = await world.upstream()
        world.authz.script = allowing(upstream.dial)
        held = [await world.connect(ADDRESS, 80) for _ in range(2)]
        for _, writer in held:
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        for reader, _ in held:
            await asyncio.wait_for(reader.readuntil(b"ok"), DEADLINE_SECONDS)
        assert await world.exchange(ADDRESS, 80, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n") == b""
        for _, writer in held:
            writer.close()

        async def served() -> bool:
            return b"ok" in await world.exchange(ADDRESS, 80, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")

        await eventually(served)
