"""The HTTPS server by itself: limits, errors, an orderly end, and certificates that change under open connections."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hopgate.kubernetes import webhook_server
from hopgate.kubernetes.admission import AdmissionRequest, Allowed, Refused, Verdict
from hopgate.kubernetes.webhook_server import CertificateFiles, Reviewer, WebhookServer
from tests.cluster.api_server import free_ports
from tests.hopgate.kubernetes.test_admission import review
from tokenmint import authority

NOW = int(time.time())
ROOT = authority.create_root(NOW)


class Running:
    """A server in a thread; `gate` holds up the reviewer `/slow` until it is set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mount(authority.issue_serving(ROOT, ["127.0.0.1"], NOW, 3600))
        self.files = CertificateFiles(folder / "tls.crt", folder / "tls.key")
        self.gate, self.asked = threading.Event(), threading.Event()
        self.ready = False
        self._connections: list[http.client.HTTPSConnection] = []
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()
        assert self._started.wait(10)

    def mount(self, pair: Any, *, key: bytes | None = None) -> None:
        (self.folder / "tls.crt").write_bytes(pair[0])
        (self.folder / "tls.key").write_bytes(pair[1].reveal() if key is None else key)

    def _slow(self, request: AdmissionRequest) -> Verdict:
        self.asked.set()
        assert self.gate.wait(20)
        return Allowed()

    def _broken(self, request: AdmissionRequest) -> Verdict:
        raise ZeroDivisionError

    async def _serve(self) -> None:
        reviewers: dict[str, Reviewer] = {
            "/yes": lambda _: Allowed(),
            "/no": lambda _: Refused(message="no"),
            "/slow": self._slow,
            "/broken": self._broken,
        }
        async with WebhookServer(self.files, reviewers, ready=lambda: self.ready, host="127.0.0.1") as server:
            self.port = server.port
            self._started.set()
            await self._stop.wait()

    def begin_stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)

    def join(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._loop.close()

    def connect(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cadata=ROOT[0].decode())
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=context)
        self._connections.append(connection)
        return connection


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    found = Running(tmp_path)
    yield found
    for connection in found._connections:
        connection.close()
    if not found._loop.is_closed():
        found.gate.set()
        found.begin_stop()
        found.join()


def ask(connection: http.client.HTTPSConnection, path: str, body: bytes | None = None, method: str = "POST") -> tuple[int, Any]:
    connection.request(method, path, json.dumps(review()).encode() if body is None else body)
    response = connection.getresponse()
    content = response.read()
    return response.status, json.loads(content)["response"]["allowed"] if response.status == 200 and path != "/readyz" else content


def served(connection: http.client.HTTPSConnection) -> bytes:
    assert isinstance(connection.sock, ssl.SSLSocket)
    return connection.sock.getpeercert(binary_form=True) or b""


@pytest.mark.parametrize(
    ("path", "body", "method", "status"),
    [
        ("/yes", b"nothing", "POST", 400),
        ("/yes", b" " * (webhook_server.MAX_BODY_BYTES + 1), "POST", 413),
        ("/other", None, "POST", 404),
        ("/yes", None, "PUT", 405),
        ("/broken", None, "POST", 500),
    ],
    ids=["no review", "too large", "path", "method", "defect"],
)
def test_what_goes_wrong_is_an_error_and_the_server_goes_on(
    running: Running, path: str, body: bytes | None, method: str, status: int
) -> None:
    assert ask(running.connect(), path, body, method)[0] == status
    connection = running.connect()
    assert ask(connection, "/yes") == (200, True)
    assert ask(connection, "/no") == (200, False)


def test_ready_is_what_it_is_told(running: Running) -> None:
    connection = running.connect()
    assert ask(connection, "/readyz", b"", "GET")[0] == 503
    running.ready = True
    assert ask(connection, "/readyz", b"", "GET")[0] == 200


def test_a_body_that_does_not_come_is_not_waited_for(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_server, "BODY_SECONDS", 0.2)
    connection = running.connect()
    connection.putrequest("POST", "/yes")
    connection.putheader("Content-Length", "10")
    connection.endheaders(b"12345")

    assert connection.getresponse().status == 408


def test_at_every_address_both_families_are_answered(running: Running) -> None:
    [port] = free_ports(1)

    async def serve_and_ask() -> None:
        async with WebhookServer(running.files, {}, ready=lambda: True, host="::", port=port):
            for address in ("127.0.0.1", "::1"):
                _, writer = await asyncio.open_connection(address, port)
                writer.close()

    asyncio.run(serve_and_ask())


def test_plain_http_gets_nothing(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port), 10) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200" not in plain.recv(4096)


def test_old_tls_gets_nothing(running: Running) -> None:
    context = ssl.create_default_context(cadata=ROOT[0].decode())
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", running.port), 10) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_a_new_certificate_is_served_to_new_connections_and_the_open_ones_go_on(running: Running) -> None:
    before = running.connect()
    assert ask(before, "/yes") == (200, True)
    new = authority.issue_serving(ROOT, ["127.0.0.1"], NOW, 7200)
    running.mount(new)
    running.files.reload()

    after = running.connect()
    assert ask(after, "/yes") == (200, True)
    assert served(after) == ssl.PEM_cert_to_DER_cert(new[0].decode()) != served(before)
    assert ask(before, "/yes") == (200, True)


@pytest.mark.parametrize("key", [b"", b"nothing", authority.create_root(NOW)[1].reveal()], ids=["empty", "no key", "another's key"])
def test_files_that_do_not_fit_leave_the_last_certificate_in_use(running: Running, key: bytes) -> None:
    new = authority.issue_serving(ROOT, ["127.0.0.1"], NOW, 7200)
    running.mount(new, key=key)
    assert running.files.reload() is False
    connection = running.connect()
    assert ask(connection, "/yes") == (200, True)
    assert served(connection) != ssl.PEM_cert_to_DER_cert(new[0].decode())

    running.mount(new)
    running.files.reload()
    connection = running.connect()
    assert ask(connection, "/yes") == (200, True)
    assert served(connection) == ssl.PEM_cert_to_DER_cert(new[0].decode())


def test_an_end_answers_what_was_asked_and_takes_nothing_new(running: Running) -> None:
    connection, idle = running.connect(), running.connect()
    assert ask(idle, "/yes") == (200, True)
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(ask(connection, "/slow")))
    asking.start()
    assert running.asked.wait(10)
    running.begin_stop()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        probe = running.connect()
        try:
            probe.connect()
        except OSError:
            break
        finally:
            probe.close()
    else:
        raise AssertionError("it still takes connections")
    running.gate.set()
    asking.join(10)
    running.join()

    assert answers == [(200, True)]
