"""TLS that ends at the gate: certificates for registered names only, and upstreams verified for the very name that was asked for."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from hopgate.resources.private_authorities import PrivateAuthority
from tests import envoys
from tests.envoys import World, allowing, denying, eventually
from tests.http_ends import Upstream
from tokenmint.authority import Authority

pytestmark = [pytest.mark.root, pytest.mark.envoy]

OPEN = "198.18.0.7"
# Well below the time after which Envoy gives a handshake up: what fails within it was refused, not timed out.
AT_ONCE_SECONDS = 3.0


async def serving(world: World, host: str = "api.test", authority: Authority | None = None) -> Upstream:
    upstream = await world.upstream(Upstream(tls=world.serving_tls(host, authority)))
    world.authz.script = allowing(upstream.dial)
    world.hosts.add(host)
    return upstream


async def served(world: World, name: str) -> bool:
    """Whether the handshake succeeds."""
    return not await refused(world, name)


async def refused(world: World, name: str | None, address: str = OPEN) -> bool:
    """Whether the handshake fails at once."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = world.agent.socket()
    await asyncio.get_running_loop().sock_connect(connection, (address, 443))
    try:
        _, writer = await asyncio.wait_for(
            asyncio.open_connection(sock=connection, ssl=context, server_hostname=name or ""), AT_ONCE_SECONDS
        )
    except (ssl.SSLError, ConnectionResetError):
        connection.close()
        return True
    writer.close()
    return False


@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
async def test_a_client_verifies_the_certificate_that_was_minted_for_the_name(world: World, alpn: str) -> None:
    await serving(world)
    _, writer = await world.connect(OPEN, 443, server_hostname="api.test", alpn=(alpn,))
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    assert tls.selected_alpn_protocol() == alpn
    assert dict(tls.getpeercert() or {})["subjectAltName"] == (("DNS", "api.test"),)
    writer.close()


async def test_what_is_inside_is_judged_and_goes_on_verified(world: World) -> None:
    upstream = await serving(world)
    response = await world.request(OPEN, 443, host="api.test", server_hostname="api.test", method="POST", body=b"question")
    assert response.status == 200
    (asked,) = world.authz.asked
    assert asked.check.http is not None
    assert (asked.check.sni, asked.check.http.unverified_host, asked.check.http.body) == ("api.test", "api.test", b"question")
    assert upstream.requests == [b"POST / HTTP/1.1\r\nhost: api.test\r\ncontent-length: 8\r\n\r\nquestion"]


async def test_http_to_an_open_address_goes_on_as_tls(world: World) -> None:
    upstream = await serving(world)
    assert (await world.request(OPEN, 80, host="api.test")).status == 200
    assert upstream.connections == 1


async def test_a_denied_request_in_tls_reaches_nobody(world: World) -> None:
    upstream = await serving(world)
    world.authz.script = denying()
    assert (await world.request(OPEN, 443, host="api.test", server_hostname="api.test")).status == 403
    assert upstream.connections == 0


@pytest.mark.parametrize("name", ["other.test", None, "nosni", "api.test.evil.test"], ids=["another", "none", "default", "a longer one"])
async def test_a_name_that_is_not_registered_fails_the_handshake_at_once(world: World, name: str | None) -> None:
    await serving(world)
    assert await refused(world, name)
    assert await served(world, "api.test")


async def test_names_that_do_not_exist_leave_nothing_behind(world: World) -> None:
    await serving(world)
    for number in range(50):
        assert await refused(world, f"n{number}.test")
    assert await world.counter("cluster.certificates.upstream_rq_active") == 0
    assert await served(world, "api.test")
    assert await world.counter("cluster.certificates.upstream_rq_active") == 1


async def test_a_name_can_be_registered_and_unregistered_while_envoy_runs(world: World) -> None:
    assert await refused(world, "api.test")
    world.hosts.add("api.test")
    assert await served(world, "api.test")
    world.hosts.discard("api.test")
    world.certificates.refresh()
    await eventually(lambda: refused(world, "api.test"))


async def test_without_the_certificate_server_known_names_go_on_and_new_ones_time_out(tmp_path: Path) -> None:
    def shorter(tree: dict[str, Any]) -> None:
        for chain in tree["static_resources"]["listeners"][0]["filter_chains"]:
            if "transport_socket_connect_timeout" in chain:
                assert chain["transport_socket_connect_timeout"] == "5s"
                chain["transport_socket_connect_timeout"] = "0.2s"

    async with envoys.running(tmp_path, change=shorter) as world:
        upstream = await serving(world)
        world.hosts.add("new.test")
        assert await served(world, "api.test")
        await world.certificates.stop()
        assert (await world.request(OPEN, 443, host="api.test", server_hostname="api.test")).status == 200
        assert await refused(world, "new.test")
        assert upstream.connections == 1
        await world.certificates.start()
        await eventually(lambda: served(world, "new.test"))


async def test_an_upstream_without_a_certificate_for_the_name_gets_nothing(world: World) -> None:
    upstream = await serving(world, "other.test")
    world.hosts.add("api.test")
    assert (await world.request(OPEN, 443, host="api.test", server_hostname="api.test")).status == 503
    assert upstream.requests == []
    assert (await world.request(OPEN, 443, host="other.test", server_hostname="other.test")).status == 200


async def test_a_connection_verified_for_one_name_is_not_used_for_another(world: World) -> None:
    upstream = await serving(world, "api.test")
    world.hosts.add("other.test")
    assert (await world.request(OPEN, 443, host="api.test", server_hostname="api.test")).status == 200
    assert (await world.request(OPEN, 443, host="other.test", server_hostname="other.test")).status == 503
    assert (await world.request(OPEN, 443, host="api.test", server_hostname="api.test")).status == 200
    assert len(upstream.requests) == 2


async def test_an_upstream_of_another_authority_gets_nothing(world: World) -> None:
    upstream = await serving(world, authority=Authority.create(int(time.time())))
    assert (await world.request(OPEN, 443, host="api.test", server_hostname="api.test")).status == 503
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("address", "private_upstream", "status"),
    [("198.18.0.9", True, 200), ("198.18.0.9", False, 503), (OPEN, True, 503), (OPEN, False, 200)],
    ids=["private at its address", "public at a private address", "private at a public address", "public at its address"],
)
@pytest.mark.parametrize("port", [443, 80], ids=["TLS", "HTTP"])
async def test_a_private_authority_vouches_for_its_addresses_and_nothing_else_does(
    tmp_path: Path, address: str, private_upstream: bool, status: int, port: int
) -> None:
    private = Authority.create(int(time.time()))
    bundle = PrivateAuthority(addresses=("198.18.0.8", "198.18.0.9"), pem=private.certificate_pem.decode())
    async with envoys.running(tmp_path, private=(bundle,)) as world:
        upstream = await serving(world, authority=private if private_upstream else None)
        name = "api.test" if port == 443 else None
        assert (await world.request(address, port, host="api.test", server_hostname=name)).status == status
        assert len(upstream.requests) == (1 if status == 200 else 0)


async def test_the_authoritys_keys_are_not_in_envoys_account_of_itself(world: World) -> None:
    await serving(world)
    assert await served(world, "api.test")
    dump = json.dumps(await world.config_dump())
    assert "PRIVATE KEY" not in dump
    leaf = world.authority.issue("api.test", int(time.time()))
    assert leaf.private_key_pem.reveal().splitlines()[1].decode() not in dump
