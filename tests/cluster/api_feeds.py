"""What an authz process asks of the API server, with snapshots that a test tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from authz.cluster_api import ApiServer as ApiOfAuthz
from hopgate.kubernetes.client import Client
from hopgate.snapshot import Snapshot
from tests.cluster.api_server import ApiServer


class Feeds(ApiOfAuthz):
    """The real watches, but for the resources: `tell` gives a snapshot."""

    def __init__(self, server: ApiServer) -> None:
        self.client = Client.connect(server.admin.kubeconfig)
        super().__init__(self.client)
        self._told: asyncio.Queue[Snapshot] = asyncio.Queue()

    def tell(self, snapshot: Snapshot) -> None:
        self._told.put_nowait(snapshot)

    async def follow_snapshots(self, on_change: Callable[[Snapshot], None], /) -> None:
        while True:
            on_change(await self._told.get())
