"""Inbound: what another gate sends reaches the agent's own server only through the check, and without our names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hopgate.local.envoy_process import EnvoyError
from tests import envoys
from tests.envoys import World, allowing, denying
from tests.http_ends import Response, Upstream, read_response

pytestmark = [pytest.mark.root, pytest.mark.envoy]

APP_PORT = 8000


@pytest.fixture
async def receiving(tmp_path: Path) -> AsyncIterator[World]:
    async with envoys.running(tmp_path, app_port=APP_PORT) as made:
        yield made


async def app_in(world: World) -> Upstream:
    """A server inside the agent's namespace, on its loopback address alone."""
    listener = world.agent.socket()
    listener.bind(("127.0.0.1", APP_PORT))
    return await world.upstream(listener=listener)


async def send(world: World, *headers: str, first: str = "POST /a HTTP/1.1", body: bytes = b"hi") -> Response:
    """A request to the inbound gate, from the namespace in which other gates are."""
    gate = await world.envoy.listening_at("inbound")
    reader, writer = await asyncio.open_connection(gate.ip, gate.port)
    lines = (first, "host: planner.demo.svc", f"content-length: {len(body)}", "connection: close", *headers)
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    try:
        return await asyncio.wait_for(read_response(reader), envoys.DEADLINE_SECONDS)
    finally:
        writer.close()


async def test_an_allowed_request_reaches_a_server_on_the_agents_own_loopback(receiving: World) -> None:
    app = await app_in(receiving)
    receiving.authz.script = allowing(None)
    response = await send(receiving)
    assert (response.status, response.body) == (200, b"ok")
    assert app.requests == [b"POST /a HTTP/1.1\r\nhost: planner.demo.svc\r\ncontent-length: 2\r\n\r\nhi"]


async def test_a_denied_request_opens_no_connection_to_it(receiving: World) -> None:
    app = await app_in(receiving)
    receiving.authz.script = denying()
    response = await send(receiving)
    assert (response.status, response.body, app.connections) == (403, b'{"error":"denied"}', 0)


async def test_the_check_says_that_it_is_inbound_and_sees_every_hop_token(receiving: World) -> None:
    await send(receiving, "x-hopgate-token: one", "x-hopgate-token: two")
    (asked,) = receiving.authz.asked
    assert asked.metadata["x-hopgate-direction"] == "inbound"
    assert asked.check.http is not None
    assert asked.check.http.values("x-hopgate-token") == ("one", "two")
    assert (asked.check.http.body, asked.check.http.body_complete, asked.check.sni) == (b"hi", True, None)


async def test_the_server_gets_nothing_under_our_names_and_no_forged_origin(receiving: World) -> None:
    app = await app_in(receiving)
    receiving.authz.script = allowing(None)
    forged = ("x-hopgate-token: t", "X-Hopgate-Chain: c", "x-envoy-internal: true", "x-forwarded-for: 10.0.0.1", "x-forwarded-host: b")
    assert (await send(receiving, *forged, "forwarded: for=10.0.0.1", "x-real-ip: 10.0.0.1", "x-kept: 1")).status == 200
    assert app.requests == [b"POST /a HTTP/1.1\r\nhost: planner.demo.svc\r\ncontent-length: 2\r\nx-kept: 1\r\n\r\nhi"]


async def test_our_names_do_not_come_out_of_the_server(receiving: World) -> None:
    app = await app_in(receiving)
    app.response_headers = (("x-hopgate-token", "t"), ("x-envoy-a", "b"), ("x-kept", "1"))
    receiving.authz.script = allowing(None)
    assert {name for name, _ in (await send(receiving)).headers} == {"content-length", "x-kept", "date", "connection"}


async def test_a_server_that_is_not_there_is_an_error_of_the_request_alone(receiving: World) -> None:
    receiving.authz.script = allowing(None)
    assert (await send(receiving)).status == 503
    await app_in(receiving)
    assert (await send(receiving)).status == 200


@pytest.mark.parametrize("first", ["CONNECT planner.demo.svc:80 HTTP/1.1", "hello there"], ids=["a tunnel", "no HTTP"])
async def test_what_is_no_request_is_refused_without_a_question(receiving: World, first: str) -> None:
    app = await app_in(receiving)
    receiving.authz.script = allowing(None)
    assert (await send(receiving, first=first)).status in (400, 403)
    assert (receiving.authz.asked, app.connections) == ([], 0)


async def test_without_a_server_there_is_no_way_in(world: World) -> None:
    assert b"inbound" not in await world.envoy.admin("/listeners")
    with pytest.raises(EnvoyError, match="inbound"):
        await world.envoy.listening_at("inbound")


async def test_the_way_in_is_on_the_loopback_address_of_the_gates_own_namespace(receiving: World) -> None:
    gate = await receiving.envoy.listening_at("inbound")
    listening = [line.split()[3] for line in receiving.outside.run("ss", "-Htln").splitlines()]
    assert listening == [f"127.0.0.1:{gate.port}"]
