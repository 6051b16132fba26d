"""The HTTPS server of the webhooks: AdmissionReview in, AdmissionReview out.

It answers POST at each reviewer's path, and GET at `/healthz` and `/readyz`. Whatever goes wrong is an HTTP error, by which the API server
goes by the webhook's failure policy; nothing is allowed because something failed. Each handshake takes the certificate that was loaded
last, so that a certificate is replaced without a closed connection; files that don't fit together leave the one before in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self

from aiohttp import web

from hopgate.kubernetes import admission, health_server
from hopgate.kubernetes.admission import AdmissionRequest, ReviewError, Verdict
from hopgate.tls_files import TlsFiles

# Object and old object of one review: each is at most 1.5 MiB in etcd, 3 MiB in a request.
MAX_BODY_BYTES: Final = 8 << 20
# The API server waits for at most 30 s; a body comes at once from it, and from nobody else for ever.
BODY_SECONDS: Final = 5.0
HANDSHAKE_SECONDS: Final = 5.0
# The API server keeps connections for 90 s of silence (Go's default transport); it must not send into one that we just closed.
KEEP_ALIVE_SECONDS: Final = 120.0
# Longer than the longest timeout of our webhooks, shorter than a pod's usual time to end.
STOP_SECONDS: Final = 15.0
# For the other side's part of TLS' end.
CLOSE_SECONDS: Final = 1.0
RELOAD_SECONDS: Final = 1.0
# Reviews wait for the API server's answers about rights, not for the processor.
_WORKERS: Final = 16
_ENDINGS: Final = 3
_SETTLE_SECONDS: Final = 0.1

Reviewer = Callable[[AdmissionRequest], Verdict]

_log = logging.getLogger(__name__)


class CertificateFiles:
    """A pair of files as what a handshake takes. A connection keeps what it began with."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises TlsFilesError, OSError or ssl.SSLError where there is no usable pair yet."""
        self._certificate, self._key = certificate, key
        self._files = TlsFiles(certificate, key)
        self.current = self._load()
        self.front = _context()
        self.front.load_cert_chain(certificate, key)
        self.front.sni_callback = self._choose

    def reload(self) -> bool:
        """Take the files as they are now. False where nothing changed, or they can't be used (yet): then the last ones stay."""
        if self._files.changed() is None:
            return False
        try:
            self.current = self._load()
        except (OSError, ssl.SSLError) as error:
            _log.warning("the new serving certificate can't be used, the last one stays: %s", error)
            return False
        return True

    def _load(self) -> ssl.SSLContext:
        context = _context()
        context.load_cert_chain(self._certificate, self._key)
        return context

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self.current


class WebhookServer:
    """Serves while its context is entered. `reviewers` go by path; they are called in threads and may wait.

    `host` is an address of this machine; `::` or none means every address of both families.
    """

    def __init__(
        self, files: CertificateFiles, reviewers: Mapping[str, Reviewer], *, ready: Callable[[], bool], host: str = "", port: int = 0
    ) -> None:
        self._files = files
        self._reviewers = reviewers
        self._host, self._port = host, port
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="review")
        self._server: asyncio.Server | None = None
        self._reloading: asyncio.Task[None] | None = None
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        for path in reviewers:
            application.router.add_post(path, self._review)
        health_server.add_probes(application, healthy=lambda: True, ready=ready)
        self._runner = web.AppRunner(
            application, access_log=None, keepalive_timeout=KEEP_ALIVE_SECONDS, shutdown_timeout=STOP_SECONDS, handle_signals=False
        )

    @property
    def port(self) -> int:
        """Where it listens. Raises RuntimeError when it doesn't."""
        if self._server is None:
            raise RuntimeError("the server is not started")
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        self._server = await asyncio.get_running_loop().create_server(
            self._runner.server,  # type: ignore[arg-type]  # aiohttp types it as a server; it is the factory of its protocols
            # asyncio binds `::` for IPv6 alone; without a host it binds every address of both families.
            None if self._host in {"", "::"} else self._host,
            self._port,
            ssl=self._files.front,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=CLOSE_SECONDS,
        )
        self._reloading = asyncio.create_task(self._reload())
        return self

    async def __aexit__(self, *_: Any) -> None:
        """No new connection; what is being answered is answered."""
        if self._reloading is not None:
            self._reloading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reloading
        if self._server is not None:
            # Asked before it is closed: of a server that is closed already, Python 3.11 doesn't wait for the connections' end.
            closed = asyncio.create_task(self._server.wait_closed())
            await asyncio.sleep(0)
            self._server.close()
            # Again for those whose handshake was under way the first time.
            for _attempt in range(_ENDINGS):
                await self._end_connections()
                ended, _pending = await asyncio.wait({closed}, timeout=2 * CLOSE_SECONDS)
                if ended:
                    break
            closed.cancel()
            # A connection that was accepted just before belongs to nobody yet: the server counts it once its handshake has begun.
            await asyncio.sleep(_SETTLE_SECONDS)
            await self._end_connections()
            await asyncio.sleep(_SETTLE_SECONDS)
        await self._runner.cleanup()
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def _end_connections(self) -> None:
        """Idle ones at once, the others once they are answered."""
        if self._runner.server is not None:
            self._runner.server.pre_shutdown()
            await self._runner.server.shutdown(STOP_SECONDS)

    async def _reload(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            if self._files.reload():
                _log.info("serving with a new certificate")

    async def _review(self, request: web.Request) -> web.Response:
        reviewer = self._reviewers[request.path]
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await request.read()
        except TimeoutError:
            return web.Response(status=408, text="the request's body did not come in time")
        try:
            asked = admission.decode(body)
        except ReviewError as error:
            return web.Response(status=400, text=str(error))
        try:
            verdict = await asyncio.get_running_loop().run_in_executor(self._workers, reviewer, asked)
        except Exception:  # noqa: BLE001 - the one place where a defect of a reviewer ends; it must end in an error, never in an Allow
            _log.exception("a review failed: %s %s", asked.operation, asked.kind)
            return web.Response(status=500, text="the review failed; see the log of the webhook")
        return web.Response(body=admission.encode(asked.uid, verdict), content_type="application/json")


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    return context
