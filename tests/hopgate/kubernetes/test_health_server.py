"""The server of probes: what it says, and in which families."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from hopgate.kubernetes.health_server import HealthServer
from tests.cluster.api_server import free_ports


@pytest.mark.parametrize(("host", "families"), [("::", ("127.0.0.1", "[::1]")), ("127.0.0.1", ("127.0.0.1",))])
def test_a_kubelet_of_either_family_is_answered(host: str, families: tuple[str, ...]) -> None:
    [port] = free_ports(1)

    async def ask() -> list[tuple[int, int]]:
        async with HealthServer(host, port, healthy=lambda: True, ready=lambda: False), aiohttp.ClientSession() as client:
            return [
                (
                    (await client.get(f"http://{address}:{port}/healthz")).status,
                    (await client.get(f"http://{address}:{port}/readyz")).status,
                )
                for address in families
            ]

    assert asyncio.run(ask()) == [(200, 503)] * len(families)


def test_at_an_address_of_one_family_the_other_is_not_answered() -> None:
    [port] = free_ports(1)

    async def ask() -> None:
        async with HealthServer("127.0.0.1", port, healthy=lambda: True, ready=lambda: True):
            await asyncio.open_connection("::1", port)

    with pytest.raises(OSError, match="Connect call failed"):
        asyncio.run(ask())
