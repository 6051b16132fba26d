"""Outbound: authz names the address, nothing else does, and what is not clearly allowed reaches nobody."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from authz.pb import ext_authz_pb2
from hopgate.proxy.bootstrap import CAPTURE_PORT
from tests import envoys
from tests.envoys import WORKLOAD_TOKEN, World, allowing, denying
from tests.http_ends import Upstream

pytestmark = [pytest.mark.root, pytest.mark.envoy]

PLAIN = "198.19.0.5"
SEALED = "198.18.200.5"


def client_hello(name: str | None) -> bytes:
    """A client's first TLS message, as OpenSSL writes it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name).do_handshake()
    return sent.read()


HELLO = client_hello("api.test")


async def test_an_allowed_request_goes_to_the_address_that_authz_named(world: World) -> None:
    upstream = await world.upstream()
    world.authz.script = allowing(upstream.dial, set_headers=(("authorization", "Bearer key"),), remove_headers=("cookie",))
    response = await world.request(PLAIN, 80, host="tools.demo.svc", target="/a?b=c", headers=(("cookie", "c"), ("authorization", "own")))
    assert (response.status, response.body) == (200, b"ok")
    assert upstream.requests == [b"GET /a?b=c HTTP/1.1\r\nhost: tools.demo.svc\r\nauthorization: Bearer key\r\n\r\n"]


async def test_the_check_says_who_asks_and_which_way(world: World) -> None:
    await world.request(PLAIN, 80, host="tools.demo.svc")
    (asked,) = world.authz.asked
    assert asked.metadata["authorization"] == f"Bearer {WORKLOAD_TOKEN}"
    assert asked.metadata["x-hopgate-direction"] == "outbound"
    assert str(asked.check.destination) == f"{PLAIN}:80"


async def test_a_denied_request_gets_authzs_answer_and_opens_no_connection(world: World) -> None:
    upstream = await world.upstream()
    world.authz.script = denying()
    response = await world.request(PLAIN, 80, host="tools.demo.svc")
    assert (response.status, response.body, upstream.connections) == (403, b'{"error":"denied"}', 0)
    world.authz.script = allowing(upstream.dial)
    assert (await world.request(PLAIN, 80, host="tools.demo.svc")).status == 200
    assert upstream.connections == 1


@pytest.mark.parametrize(
    ("address", "port", "reaches"),
    [
        (PLAIN, 80, True),
        ("198.19.255.255", 8080, True),
        (SEALED, 80, False),
        ("203.0.113.9", 80, False),
        ("169.254.169.254", 80, False),
        ("198.20.0.1", 80, False),
        ("2001:db8:ffff::9", 80, False),
        ("fd00:ec2::254", 80, False),
    ],
    ids=["plain", "plain, last", "sealed", "direct", "metadata", "just outside", "IPv6", "IPv6 metadata"],
)
async def test_http_reaches_an_upstream_by_a_plain_address_only_even_when_authz_allows(
    world: World, address: str, port: int, reaches: bool
) -> None:
    upstream = await world.upstream()
    world.authz.script = allowing(upstream.dial)
    response = await world.request(address, port, host="tools.demo.svc")
    assert (response.status, upstream.connections) == ((200, 1) if reaches else (503, 0))
    (asked,) = world.authz.asked
    assert (asked.check.destination.ip, asked.check.http is not None, asked.check.sni) == (address, True, None)


BAD_DIALS = {
    "absent": None,
    "empty": "",
    "a name": "localhost:80",
    "no port": "10.0.0.7",
    "port 0": "10.0.0.7:0",
    "port too large": "10.0.0.7:65536",
    "octet too large": "10.0.0.256:80",
    "leading zero": "10.0.0.07:80",
    "three octets": "10.0.7:80",
    "IPv6 with two gaps": "[2001::db8::7]:80",
    "IPv6 too long": "[1:2:3:4:5:6:7:8:9]:80",
    "IPv6 colons": "[:::]:80",
    "IPv6 bare": "2001:db8::7:80",
    "a socket": "unix:/run/x",
    "with a line end": "10.0.0.7:80\n",
    "two": "10.0.0.7:80,10.0.0.8:80",
}


def answer_with(dial: Any) -> Any:
    """An allow whose `dial` is this very text, or no text at all."""

    def answer(_: object) -> bytes:
        response = ext_authz_pb2.CheckResponse()
        response.ok_response.SetInParent()
        response.dynamic_metadata.update({"decision": "d"} if dial is None else {"dial": dial})
        return response.SerializeToString()

    return answer


@pytest.mark.parametrize("dial", [*BAD_DIALS.values(), 80, ["10.0.0.7:80"]], ids=[*BAD_DIALS, "a number", "a list"])
async def test_an_allow_without_a_well_formed_address_is_never_forwarded(world: World, dial: Any) -> None:
    """The original destination is made reachable for Envoy, since that is where it would go."""
    trap = await listening_at_original_destination(world, PLAIN, 80)
    world.authz.script = answer_with(dial)
    assert (await world.request(PLAIN, 80, host="tools.demo.svc")).status == 403
    assert trap.connections == 0
    world.authz.script = answer_with(trap.dial)
    assert (await world.request(PLAIN, 80, host="tools.demo.svc")).status == 200


async def test_without_the_guard_such_an_allow_would_go_where_the_agent_chose(tmp_path: Path) -> None:
    """What the guard is good for: the same as above, with it taken out of the bootstrap."""

    def without_guard(tree: dict[str, Any]) -> None:
        for filters in _http_filters(tree):
            filters[:] = [item for item in filters if item["name"] != "envoy.filters.http.rbac"]

    async with envoys.running(tmp_path, change=without_guard) as world:
        trap = await listening_at_original_destination(world, PLAIN, 80)
        world.authz.script = allowing(None)
        assert (await world.request(PLAIN, 80, host="tools.demo.svc")).status == 200
        assert trap.connections == 1


def _http_filters(tree: Any) -> list[list[dict[str, Any]]]:
    if isinstance(tree, dict):
        own = [tree["http_filters"]] if "stat_prefix" in tree and "http_filters" in tree else []
        return own + [found for value in tree.values() for found in _http_filters(value)]
    return [found for item in tree for found in _http_filters(item)] if isinstance(tree, list) else []


async def listening_at_original_destination(world: World, address: str, port: int) -> Upstream:
    world.outside.run("ip", "addr", "add", f"{address}/32", "dev", "lo")
    listener = world.outside.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    upstream = await world.upstream(listener=listener)
    upstream.address = address
    return upstream


async def test_sealed_tls_is_decided_by_name_and_passed_on_as_it_is(world: World) -> None:
    upstream = await world.upstream(Upstream(answer=_echo_once))
    world.authz.script = allowing(upstream.dial)
    assert await world.exchange(SEALED, 443, HELLO) == HELLO
    (asked,) = world.authz.asked
    assert (asked.check.http, asked.check.sni, str(asked.check.destination)) == (None, "api.test", f"{SEALED}:443")


async def _echo_once(upstream: Upstream, reader: Any, writer: Any) -> None:
    data = await reader.readexactly(len(HELLO))
    upstream.requests.append(data)
    writer.write(data)
    await writer.drain()


@pytest.mark.parametrize("dial", BAD_DIALS.values(), ids=BAD_DIALS)
async def test_a_sealed_connection_without_a_well_formed_address_is_closed(world: World, dial: Any) -> None:
    trap = await listening_at_original_destination(world, SEALED, 443)
    trap.answer = _echo_once
    world.authz.script = answer_with(dial)
    assert await world.exchange(SEALED, 443, HELLO) == b""
    assert trap.connections == 0
    world.authz.script = answer_with(trap.dial)
    assert await world.exchange(SEALED, 443, HELLO) == HELLO


async def test_a_denied_sealed_connection_is_closed_before_anything_is_dialled(world: World) -> None:
    trap = await listening_at_original_destination(world, SEALED, 443)
    world.authz.script = denying()
    assert await world.exchange(SEALED, 443, HELLO) == b""
    assert trap.connections == 0
    assert await world.counter("cluster.upstream_sealed.upstream_cx_total") == 0


@pytest.mark.parametrize(
    ("address", "port", "data", "sni"),
    [
        (PLAIN, 25, b"EHLO some client\r\n\r\n", None),
        (PLAIN, 443, HELLO, "api.test"),
        (SEALED, 25, b"EHLO some client\r\n\r\n", None),
        ("203.0.113.9", 443, HELLO, "api.test"),
        ("203.0.113.9", 443, client_hello(None), ""),
        ("2001:db8:ffff::9", 443, HELLO, "api.test"),
        ("203.0.113.9", 22, b"SSH-2.0-some client\r\n", None),
        ("2001:db8:ffff::9", 22, b"SSH-2.0-some client\r\n", None),
    ],
    ids=[
        "plain, raw",
        "plain, TLS",
        "sealed, raw",
        "direct TLS",
        "direct TLS without a name",
        "direct TLS IPv6",
        "direct raw",
        "direct raw IPv6",
    ],
)
async def test_what_is_neither_http_nor_expected_tls_is_asked_about_and_goes_nowhere(
    world: World, address: str, port: int, data: bytes, sni: str | None
) -> None:
    upstream = await world.upstream()
    world.authz.script = allowing(upstream.dial)
    assert await world.exchange(address, port, data) == b""
    (asked,) = world.authz.asked
    assert (asked.check.http, asked.check.sni, asked.check.destination.ip) == (None, sni, address)
    assert upstream.connections == 0


async def test_a_client_that_says_nothing_is_not_held_for_ever(tmp_path: Path) -> None:
    """A server-first protocol has no first byte to be asked about; it is closed instead."""

    def shorter(tree: dict[str, Any]) -> None:
        listener = tree["static_resources"]["listeners"][0]
        listener["listener_filters_timeout"] = "0.05s"
        assert listener["default_filter_chain"]["filters"][-1]["typed_config"]["max_downstream_connection_duration"] == "10s"
        listener["default_filter_chain"]["filters"][-1]["typed_config"]["max_downstream_connection_duration"] = "0.1s"

    async with envoys.running(tmp_path, change=shorter) as world:
        assert await world.exchange(PLAIN, 25, b"") == b""
        assert world.authz.asked == []


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "192.0.2.1", PLAIN, SEALED, "2001:db8:ffff::9"])
async def test_envoys_own_port_is_no_loop(world: World, address: str) -> None:
    world.authz.script = allowing(f"127.0.0.1:{CAPTURE_PORT}")
    assert await world.exchange(address, CAPTURE_PORT, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n") == b""
    assert world.authz.asked == []


async def test_the_configuration_in_force_is_the_one_that_was_meant(world: World) -> None:
    """Asserted on Envoy's own dump: nothing after the check changes host, path or cluster, failure never allows, admin is not on TCP."""
    dump = await world.config_dump()
    bootstrap = next(part["bootstrap"] for part in dump["configs"] if part["@type"].endswith("BootstrapConfigDump"))
    assert bootstrap["admin"]["address"] == {"pipe": {"path": str(world.envoy.admin_socket), "mode": 0o600}}
    text = json.dumps(dump)
    assert '"failure_mode_allow": true' not in text
    managers = _http_filters(bootstrap["static_resources"]["listeners"])
    assert len(managers) == 5
    for filters in managers:
        names = [item["typed_config"]["@type"].rpartition(".")[2] for item in filters]
        assert names == ["HeaderMutation", "ExtAuthz", "RBAC", "Router"]
        assert "status_on_error" in filters[1]["typed_config"]
        assert "clear_route_cache" not in filters[1]["typed_config"]
    assert "prefix_rewrite" not in text
    assert "host_rewrite" not in text


async def test_the_admin_interface_is_for_the_owner_alone(world: World) -> None:
    assert world.envoy.admin_socket.stat().st_mode & 0o777 == 0o600
    listening = world.outside.run("ss", "-Htln")
    assert listening == "", "Envoy listens on TCP in its own namespace"
    inside = {line.split()[3] for line in world.agent.run("ss", "-Htln").splitlines()}
    assert inside == {f"0.0.0.0:{CAPTURE_PORT}", f"[::]:{CAPTURE_PORT}"}
