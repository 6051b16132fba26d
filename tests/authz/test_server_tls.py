"""The server over TLS with a real client: health, rotated certificates, connections that end and a drain, and no call lost."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from authz import server
from authz.pb import health_pb2
from authz.server import Call, HealthServer, Server, TlsListener
from hopgate.tls_files import TlsFiles
from tests.authz.certificates import HOST, Mounted

DEADLINE_SECONDS = 30.0
STATUS = health_pb2.HealthCheckResponse


def echo(request: bytes, _: Call) -> bytes:
    return request


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 - several things at once are waited for, none of which is an event
            await asyncio.sleep(0.005)  # between two looks at the condition


@pytest.fixture
def mounted(tmp_path: Path) -> Mounted:
    return Mounted(tmp_path / "tls")


def listening(mounted: Mounted, *, ready: Callable[[], bool] = lambda: True, connection_seconds: float = 60.0) -> Server:
    files = TlsFiles(mounted.certificate, mounted.private_key)
    return Server(echo, TlsListener(address="127.0.0.1:0", files=files, ready=ready, connection_seconds=connection_seconds))


@asynccontextmanager
async def started(running: Server) -> AsyncIterator[Server]:
    await running.start()
    try:
        yield running
    finally:
        await running.stop(0)


def connect(port: int, mounted: Mounted) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials(mounted.authority.certificate_pem)
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=(("grpc.ssl_target_name_override", HOST),))


def presented(port: int, mounted: Mounted) -> bytes:
    """The leaf that a new connection is shown, verified."""
    context = ssl.create_default_context(cadata=mounted.authority.certificate_pem.decode())
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS) as raw,
        context.wrap_socket(raw, server_hostname=HOST) as tls,
    ):
        found = tls.getpeercert(binary_form=True)
    assert found is not None
    return found


def leaf(certificate_pem: bytes) -> bytes:
    return x509.load_pem_x509_certificates(certificate_pem)[0].public_bytes(serialization.Encoding.DER)


class Load:
    """Calls without a pause, several at a time, each answered as it should be or counted as lost."""

    def __init__(self, channel: grpc.aio.Channel, workers: int = 12) -> None:
        self.answered = 0
        self.lost: Counter[str] = Counter()
        self._ask = channel.unary_unary(server.METHOD)
        self._ending = False
        self._tasks = [asyncio.create_task(self._call(number)) for number in range(workers)]

    async def _call(self, worker: int) -> None:
        number = 0
        while not self._ending:
            number += 1
            body = f"{worker} {number}".encode()
            try:
                same = await self._ask(body, timeout=DEADLINE_SECONDS) == body
            except grpc.aio.AioRpcError as error:
                self.lost[f"{error.code().name} {error.details()}"] += 1
            else:
                if same:
                    self.answered += 1
                else:
                    self.lost["another answer"] += 1

    async def more(self, calls: int) -> None:
        """Wait for so many more answers."""
        goal = self.answered + calls
        await until(lambda: self.answered >= goal or self.lost.total() > 0)

    async def end(self) -> None:
        self._ending = True
        await asyncio.gather(*self._tasks)


class Front:
    """Leads each new connection to the first backend that is ready, as a Service of Kubernetes does; open ones stay where they are."""

    def __init__(self, backends: dict[int, Callable[[], bool]]) -> None:
        self._backends = backends
        self.led: Counter[int] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._lead, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = next(port for port, ready in self._backends.items() if ready())
        self.led[port] += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._copy(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
        finally:
            sink.close()
            with contextlib.suppress(OSError):
                await sink.wait_closed()


async def test_answers_who_trusts_its_authority_and_nobody_without_tls(mounted: Mounted) -> None:
    async with started(listening(mounted)) as running:
        async with connect(running.port, mounted) as channel:
            assert await channel.unary_unary(server.METHOD)(b"a", timeout=DEADLINE_SECONDS) == b"a"
        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(server.METHOD)(b"a", timeout=DEADLINE_SECONDS)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_rotated_certificate_is_shown_to_new_connections_and_open_ones_go_on(mounted: Mounted) -> None:
    async with started(listening(mounted)) as running, connect(running.port, mounted) as channel:
        before = leaf(mounted.certificate.read_bytes())
        assert await asyncio.to_thread(presented, running.port, mounted) == before
        load = Load(channel)
        await load.more(100)
        after = before
        for _ in range(3):
            before = after
            after = leaf(mounted.rotate())
            assert await asyncio.to_thread(presented, running.port, mounted) == after != before
        mounted.write(b"half", b"written")
        assert await asyncio.to_thread(presented, running.port, mounted) == after
        await load.more(100)
        await load.end()
    assert load.lost == {}


async def test_connections_end_again_and_again_and_no_call_is_lost(mounted: Mounted) -> None:
    async with started(listening(mounted, connection_seconds=0.2)) as running:
        front = Front({running.port: lambda: True})
        async with connect(await front.start(), mounted) as channel:
            load = Load(channel)
            await until(lambda: front.led[running.port] >= 6 or load.lost.total() > 0)
            await load.end()
        await front.stop()
    assert load.lost == {}
    assert load.answered > 0


async def test_a_drained_server_loses_no_call_of_a_client_under_load(mounted: Mounted) -> None:
    leaving = False
    async with (
        started(listening(mounted, ready=lambda: not leaving, connection_seconds=0.5)) as first,
        started(listening(mounted, connection_seconds=0.5)) as second,
    ):
        front = Front({first.port: lambda: not leaving, second.port: lambda: True})
        async with connect(await front.start(), mounted) as channel:
            load = Load(channel)
            await load.more(200)
            assert front.led[second.port] == 0
            leaving = True
            # A connection is led here before its handshake, which a busy machine can hold up.
            await first.drain(notice_seconds=2.0)
            assert front.led[second.port] > 0
            await load.more(200)
            await load.end()
        await front.stop()
    assert load.lost == {}


class TestHealth:
    @staticmethod
    async def ask(channel: grpc.aio.Channel, service: str) -> int:
        request = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        answer = await channel.unary_unary(server.HEALTH_METHOD)(request, timeout=DEADLINE_SECONDS)
        return STATUS.FromString(answer).status

    async def test_says_ready_by_the_minute_and_alive_throughout(self, mounted: Mounted) -> None:
        state = {"ready": False}
        health = HealthServer(lambda: state["ready"], "127.0.0.1:0")
        await health.start()
        async with (
            started(listening(mounted, ready=lambda: state["ready"])) as running,
            grpc.aio.insecure_channel(f"127.0.0.1:{health.port}") as plain,
            connect(running.port, mounted) as over_tls,
        ):
            for ready, status in ((False, STATUS.NOT_SERVING), (True, STATUS.SERVING), (False, STATUS.NOT_SERVING)):
                state["ready"] = ready
                for channel in (plain, over_tls):
                    assert [await self.ask(channel, ""), await self.ask(channel, "alive")] == [status, STATUS.SERVING]
        await health.stop()

    @pytest.mark.parametrize("request_bytes", [b"\x0a\x05other", b"\x0a", b"\xff"], ids=["another service", "cut", "no message"])
    async def test_knows_no_other_service(self, request_bytes: bytes) -> None:
        health = HealthServer(lambda: True, "127.0.0.1:0")
        await health.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{health.port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(server.HEALTH_METHOD)(request_bytes, timeout=DEADLINE_SECONDS)
        await health.stop()
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND

    async def test_answers_no_checks_without_tls(self) -> None:
        health = HealthServer(lambda: True, "127.0.0.1:0")
        await health.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{health.port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(server.METHOD)(b"", timeout=DEADLINE_SECONDS)
        await health.stop()
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
