"""What an authz process asks of the API server, in its event loop: the watches of `hopgate.kubernetes` run in threads of their own.

Each thing that a watch tells is handed to the loop and done there, one after another: nothing that checks read changes under them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from authz.cluster_process import Listener, PodListener, Watched
from hopgate.kubernetes import api, pods
from hopgate.kubernetes.api import ClientError, IdentitySource, Manifest, SecretSource, WatchedKind
from hopgate.kubernetes.informers import Informer, Sink
from hopgate.kubernetes.snapshots import Built
from hopgate.kubernetes.watcher import SnapshotWatcher
from hopgate.snapshot import Snapshot

_T = TypeVar("_T")


class Connection(IdentitySource, SecretSource, Protocol):
    """One API server, as `hopgate.kubernetes.client.Client` is."""


class ApiServer:
    """Implements `authz.cluster_process.Api`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._informers: list[Informer] = []
        self._watcher: SnapshotWatcher | None = None

    async def follow_pods(self, listener: PodListener, /) -> None:
        """See `Api`."""
        await self._follow(api.POD_IDENTITIES, _HandingPods(asyncio.get_running_loop(), listener))

    async def follow_leases(self, namespace: str, label: str, listener: Listener, /) -> None:
        """See `Api`."""
        await self._follow(api.leases(namespace, label), _Handing(asyncio.get_running_loop(), listener))

    async def follow_snapshots(self, on_change: Callable[[Snapshot], None], /) -> None:
        """See `Api`."""
        loop = asyncio.get_running_loop()

        def built(found: Built) -> None:
            _hand(loop, lambda: on_change(found.snapshot))

        watcher = self._watcher = SnapshotWatcher(self._connection, built)
        watcher.start()
        try:
            await asyncio.Event().wait()
        finally:
            # In a thread: it waits for the watches' threads, and checks are still answered.
            await asyncio.shield(asyncio.to_thread(watcher.stop))

    async def read_jwks(self) -> Mapping[str, Any]:
        """See `Api`."""
        return await _ask(self._connection.read_jwks)

    async def put_lease(self, manifest: Mapping[str, Any], /) -> None:
        """See `Api`."""
        await _ask(lambda: self._connection.apply_lease(manifest))

    def watched(self) -> Watched:
        """See `Api`."""
        resources = None if self._watcher is None else self._watcher.state()
        kinds = () if resources is None else resources.kinds
        return Watched(kinds=(*kinds, *(informer.freshness() for informer in self._informers)), resources=resources)

    async def _follow(self, kind: WatchedKind, sink: Sink) -> None:
        informer = Informer(self._connection, kind, sink, time.monotonic)
        self._informers.append(informer)
        informer.start()
        try:
            await asyncio.Event().wait()
        finally:
            informer.stop()


class _Handing:
    """Hands what an informer's thread sees to a listener in the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, listener: Listener) -> None:
        self._loop = loop
        self._listener = listener

    def replace(self, _: WatchedKind, manifests: Sequence[Manifest]) -> None:
        self._hand(lambda: self._listener.listed(manifests))

    def put(self, manifest: Manifest) -> None:
        self._hand(lambda: self._listener.changed(manifest))

    def remove(self, manifest: Manifest) -> None:
        self._hand(lambda: self._listener.removed(manifest))

    def _hand(self, what: Callable[[], None]) -> None:
        _hand(self._loop, what)


class _HandingPods:
    """Reads pods in the informer's thread, and hands what it read to a listener in the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, listener: PodListener) -> None:
        self._loop = loop
        self._listener = listener

    def replace(self, _: WatchedKind, manifests: Sequence[Manifest]) -> None:
        found = pods.read_all(manifests)
        _hand(self._loop, lambda: self._listener.listed(found))

    def put(self, manifest: Manifest) -> None:
        uid, pod = manifest["metadata"]["uid"], pods.read(manifest)
        _hand(self._loop, lambda: self._listener.changed(uid, pod))

    def remove(self, manifest: Manifest) -> None:
        uid = manifest["metadata"]["uid"]
        _hand(self._loop, lambda: self._listener.changed(uid, None))


def _hand(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
        loop.call_soon_threadsafe(what)


async def _ask(work: Callable[[], _T]) -> _T:
    """Ask in a thread. Raises OSError for whatever the API server said or did not say."""
    try:
        return await asyncio.to_thread(work)
    except ClientError as error:
        raise OSError(f"{error} ({error.code})") from error
