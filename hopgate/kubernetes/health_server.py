"""`/healthz` and `/readyz` over plain HTTP, for a kubelet's probes."""

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


class HealthServer:
    """Serves both while its context is entered. Raises OSError when it can't listen."""

    def __init__(self, host: str, port: int, *, healthy: Callable[[], bool], ready: Callable[[], bool]) -> None:
        self._host, self._port = host, port
        application = web.Application()
        add_probes(application, healthy=healthy, ready=ready)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.SockSite(self._runner, listen(self._host, self._port)).start()
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self._runner.cleanup()
