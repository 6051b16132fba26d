"""What an authz process asks of the API server, by the plain client in threads: enough for a test, and no more."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

import kubernetes.client
import urllib3
from kubernetes.client import CoordinationV1Api, CoreV1Api, OpenidApi

from authz.cluster_process import Listener
from hopgate.snapshot import Snapshot
from tests.cluster.api_server import ApiServer


class Feeds:
    """Implements `authz.cluster_process.Api`. Snapshots are the test's own: `tell` gives one."""

    def __init__(self, server: ApiServer) -> None:
        self._client = server.client()
        self._told: asyncio.Queue[Snapshot] = asyncio.Queue()
        self.jwks_reads = 0

    def tell(self, snapshot: Snapshot) -> None:
        self._told.put_nowait(snapshot)

    async def follow_pods(self, listener: Listener, /) -> None:
        api = CoreV1Api(self._client)
        await self._follow(lambda **given: api.list_pod_for_all_namespaces(_preload_content=False, **given), listener)

    async def follow_leases(self, namespace: str, label: str, listener: Listener, /) -> None:
        api = CoordinationV1Api(self._client)
        await self._follow(
            lambda **given: api.list_namespaced_lease(namespace, label_selector=label, _preload_content=False, **given), listener
        )

    async def follow_snapshots(self, on_change: Callable[[Snapshot], None], /) -> None:
        while True:
            on_change(await self._told.get())

    async def read_jwks(self) -> Mapping[str, Any]:
        self.jwks_reads += 1
        api = OpenidApi(self._client)
        answer = await self._ask(lambda: api.get_service_account_issuer_open_id_keyset(_preload_content=False, _request_timeout=5))
        found: dict[str, Any] = json.loads(answer.data)
        return found

    async def put_lease(self, manifest: Mapping[str, Any], /) -> None:
        metadata = manifest["metadata"]
        api = CoordinationV1Api(self._client)
        patch: dict[str, Any] = {
            "field_manager": "authz",
            "force": True,
            "_content_type": "application/apply-patch+yaml",
            "_request_timeout": 5,
        }
        await self._ask(lambda: api.patch_namespaced_lease(metadata["name"], metadata["namespace"], dict(manifest), **patch))

    @staticmethod
    async def _ask(work: Callable[[], Any]) -> Any:
        try:
            return await asyncio.to_thread(work)
        except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError) as error:
            raise OSError(str(error)) from error

    async def _follow(self, ask: Callable[..., Any], listener: Listener) -> None:
        """List and watch in a thread, again whenever that breaks, until cancelled."""
        loop = asyncio.get_running_loop()
        ended = threading.Event()

        def tell(what: Callable[[Any], None], value: Any) -> None:
            if not ended.is_set():
                loop.call_soon_threadsafe(what, value)

        def follow() -> None:
            while not ended.is_set():
                try:
                    listed = json.loads(ask(_request_timeout=5).data)
                    tell(listener.listed, listed["items"])
                    version = listed["metadata"]["resourceVersion"]
                    response = ask(watch=True, resource_version=version, timeout_seconds=60, _request_timeout=(5, 2))
                    for line in response:
                        event = json.loads(line)
                        tell(listener.removed if event["type"] == "DELETED" else listener.changed, event["object"])
                except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError, OSError):
                    ended.wait(0.2)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
