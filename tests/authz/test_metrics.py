"""What Prometheus is told: described once, documented as it is, and answered to nobody longer than it has to be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from authz import metrics, metrics_server
from authz.metrics import Buckets, Observed
from authz.metrics_server import MetricsServer

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


def told(observed: Observed) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.render(metrics.registry_of(lambda: observed)).decode()
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    found = {(each.name, tuple(sorted(each.labels.items()))): each.value for each in samples}
    return {key: value for key, value in found.items() if key[0].startswith("hopgate")}


def test_values_are_told_with_their_labels() -> None:
    assert told({metrics.DECISIONS: {("Deny", "NoPermit"): 3}, metrics.PODS: {(): 2}}) == {
        ("hopgate_authz_decisions_total", (("reason", "NoPermit"), ("verdict", "Deny"))): 3,
        ("hopgate_authz_pods", ()): 2,
    }


def test_a_distribution_is_told_up_to_each_bound() -> None:
    assert told({metrics.SECONDS: Buckets(bounds=(0.001, 0.5), counts=(2, 1, 4), total=9.5)}) == {
        ("hopgate_authz_decision_seconds_bucket", (("le", "0.001"),)): 2,
        ("hopgate_authz_decision_seconds_bucket", (("le", "0.5"),)): 3,
        ("hopgate_authz_decision_seconds_bucket", (("le", "+Inf"),)): 7,
        ("hopgate_authz_decision_seconds_count", ()): 7,
        ("hopgate_authz_decision_seconds_sum", ()): 9.5,
    }


def test_every_metric_is_in_the_documentation_and_no_other() -> None:
    written = [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `hopgate_authz_") and line.count("|") == 5
    ]
    assert written == [
        f"| `{each.full_name}` | {each.type.value} | {', '.join(f'`{label}`' for label in each.labels)} | {each.meaning} |"
        for each in metrics.METRICS
    ]


@asynccontextmanager
async def serving(address: str = "127.0.0.1:0") -> AsyncIterator[MetricsServer]:
    server = MetricsServer(lambda: b"a_metric 1\n", "text/plain", address)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def get(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /metrics HTTP/1.1", b"200"),
        ("GET /metrics?name=a HTTP/1.1", b"200"),
        ("GET / HTTP/1.1", b"404"),
        ("POST /metrics HTTP/1.1", b"405"),
        ("nonsense", b"404"),
    ],
)
async def test_one_page_is_answered(request_line: str, status: bytes) -> None:
    async with serving() as server:
        answer = await get(server.port, f"{request_line}\r\nHost: authz\r\n\r\n".encode())
    assert answer.split(b" ")[1] == status
    assert (b"a_metric 1" in answer) == (status == b"200")


async def test_every_address_is_that_of_ipv4_too() -> None:
    async with serving("[::]:0") as server:
        assert b"a_metric" in await get(server.port, b"GET /metrics HTTP/1.1\r\n\r\n")


async def test_a_request_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authz.metrics_server.REQUEST_SECONDS", 0.05)
    async with serving() as server:
        assert await get(server.port, b"GET /metrics HTTP/1.1\r\n") == b""
        assert b"a_metric" in await get(server.port, b"GET /metrics HTTP/1.1\r\n\r\n")


async def test_of_many_that_wait_no_more_are_taken() -> None:
    async with serving() as server:
        waiting = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(metrics_server.MAX_CONNECTIONS)]
        assert await get(server.port, b"GET /metrics HTTP/1.1\r\n\r\n") == b""
        reader, writer = waiting[0]
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert b"a_metric" in await reader.read()
        assert b"a_metric" in await get(server.port, b"GET /metrics HTTP/1.1\r\n\r\n")
        for _, each in waiting:
            each.close()
