"""`/healthz` and `/readyz` over plain HTTP, for a kubelet's probes, and `/metrics` beside them for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from aiohttp import web

from hopgate.listening import listen


def add_probes(application: web.Application, *, healthy: Callable[[], bool], ready: Callable[[], bool]) -> None:
    """Answer GET at both paths: 200, or 503 where it is not so."""

    def answering(state: Callable[[], bool], otherwise: str) -> Callable[[web.Request], Any]:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(text="ok") if state() else web.Response(status=503, text=otherwise)

        return answer

    application.router.add_get("/healthz", answering(healthy, "not healthy"))
    application.router.add_get("/readyz", answering(ready, "not ready"))


def add_metrics(application: web.Application, render: Callable[[], bytes], content_type: str) -> None:
    """Answer GET at `/metrics` with what `render` gives."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=render(), headers={"Content-Type": content_type})

    application.router.add_get("/metrics", answer)


class HealthServer:
    """Serves both while its context is entered, and `metrics` (what renders them, and their content type) where there are some.

    Raises OSError when it can't listen.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        healthy: Callable[[], bool],
        ready: Callable[[], bool],
        metrics: tuple[Callable[[], bytes], str] | None = None,
    ) -> None:
        self._host, self._port = host, port
        application = web.Application()
        add_probes(application, healthy=healthy, ready=ready)
        if metrics is not None:
            add_metrics(application, *metrics)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.SockSite(self._runner, listen(self._host, self._port)).start()
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self._runner.cleanup()
