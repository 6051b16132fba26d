"""The server hands bytes and metadata to the check and its answer back, over a Unix socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from authz import server
from authz.server import Call, Server


@asynccontextmanager
async def served(check: server.Check, socket: Path) -> AsyncIterator[grpc.aio.Channel]:
    running = Server(check, socket)
    await running.start()
    try:
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            yield channel
    finally:
        await running.stop(0)


class Echo:
    """A check that answers with its request and keeps what it was told beside it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.left: list[float | None] = []

    def __call__(self, request: bytes, call: Call) -> bytes:
        self.calls.append(call)
        self.left.append(call.seconds_left())
        return request


async def test_bytes_go_in_and_out_as_they_are(tmp_path: Path) -> None:
    async with served(Echo(), tmp_path / "s") as channel:
        ask = channel.unary_unary(server.METHOD)
        for body in (b"", b"\xff\x00", b"x" * (server.MAX_MESSAGE_BYTES - 100)):
            assert await ask(body, timeout=10) == body


async def test_what_the_bootstrap_adds_reaches_the_check(tmp_path: Path) -> None:
    echo = Echo()
    async with served(echo, tmp_path / "s") as channel:
        await channel.unary_unary(server.METHOD)(
            b"a", timeout=10, metadata=(("authorization", "Bearer w"), ("x-hopgate-direction", "outbound"))
        )
        await channel.unary_unary(server.METHOD)(b"b", timeout=10)
    assert [(call.authorization, call.direction) for call in echo.calls] == [("Bearer w", "outbound"), (None, None)]


async def test_the_check_knows_how_long_it_is_waited_for(tmp_path: Path) -> None:
    echo = Echo()
    async with served(echo, tmp_path / "s") as channel:
        await channel.unary_unary(server.METHOD)(b"a", timeout=10)
        await channel.unary_unary(server.METHOD)(b"a")
    first, second = echo.left
    assert first is not None
    assert 0 < first < 11  # gRPC rounds a deadline up
    assert second is None


async def test_a_message_beyond_the_bound_is_refused(tmp_path: Path) -> None:
    echo = Echo()
    async with served(echo, tmp_path / "s") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(server.METHOD)(b"x" * (server.MAX_MESSAGE_BYTES + 1), timeout=10)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert echo.calls == []


async def test_another_method_is_not_there(tmp_path: Path) -> None:
    async with served(Echo(), tmp_path / "s") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(server.METHOD.replace("Check", "Other"))(b"", timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
