"""What outside names resolve to, for the gate to dial: looked up in the background, never while a request waits.

A name that can't be looked up keeps its last addresses; how old they may be is for the decision to say (`authz.destination`).
Addresses inside networks of ours are dropped, since whoever owns a public name can point it at anything: a destination inside is
registered with its `address`. A name that hangs holds up nothing else in the process, and no other
name while fewer than `CONCURRENCY` hang; beyond that the others wait at most `LOOKUP_SECONDS` for each such batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from typing import Final

from hopgate.identity.names import DestinationKind
from hopgate.resources import network
from hopgate.resources.registry import Registry
from hopgate.snapshot import ResolvedHost

REFRESH_SECONDS: Final = 30.0
LOOKUP_SECONDS: Final = 5.0
# Look-ups at a time: a registry has tens of names, and this machine's resolver is not ours to flood.
CONCURRENCY: Final = 8
# glibc gives a name up after 30 s by default (3 servers, 5 s, twice): six times `LOOKUP_SECONDS`, so each slot may leave a few behind.
MAX_THREADS: Final = 6 * CONCURRENCY
# Names that are looked up together are told together: telling is a message with all of them.
SETTLE_SECONDS: Final = 0.02

Resolve = Callable[[str], Awaitable[Iterable[str]]]


def outside_hosts(registry: Registry) -> set[str]:
    """The names that are to be looked up outside: of destinations without a fixed address, but not of services inside."""
    return {
        host
        for endpoint in registry.by_address.values()
        if endpoint.dial is None and endpoint.destination.name.kind is not DestinationKind.AGENT
        for host in endpoint.hosts
        if not host.endswith((".svc", ".svc.cluster.local"))
    }


def dialable(addresses: Iterable[str]) -> tuple[str, ...]:
    """Those addresses that are on the public internet, IPv4 first, each once, in the order given."""
    found = dict.fromkeys(address for address in addresses if network.is_public(address))
    return tuple(sorted(found, key=lambda address: ":" in address))


class MachineNames:
    """This machine's own answers, both families; call it with a host. Raises OSError when there is none.

    Each look-up has a thread that nobody waits for: `getaddrinfo` can't be ended, and in the loop's own executor one that hangs would
    hold up whoever else needs a thread there, and the end of the process.
    """

    def __init__(self) -> None:
        self._threads = 0

    async def __call__(self, host: str) -> tuple[str, ...]:
        """The addresses of `host`, as this machine resolves it."""
        if self._threads >= MAX_THREADS:
            raise OSError(f"{MAX_THREADS} look-ups hang already")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[str, ...]] = loop.create_future()

        def ended(found: tuple[str, ...] | OSError) -> None:
            self._threads -= 1
            if answer.done():  # given up
                return
            if isinstance(found, OSError):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def ask() -> None:
            try:
                found: tuple[str, ...] | OSError = tuple(
                    str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
                )
            except OSError as error:
                found = error
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(ended, found)

        threading.Thread(target=ask, name="look-up", daemon=True).start()
        self._threads += 1
        return await answer


class UpstreamNames:
    """Keeps the addresses of `hosts()` fresh; `on_change` gets all of them soon after any was looked up.

    `resolve` gives a host's addresses or raises OSError; `clock` is in Unix seconds.
    """

    def __init__(
        self,
        hosts: Callable[[], Set[str]],
        *,
        on_change: Callable[[Mapping[str, ResolvedHost]], None],
        resolve: Resolve | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._hosts = hosts
        self._on_change = on_change
        self._resolve = MachineNames() if resolve is None else resolve
        self._clock = clock
        self._known: dict[str, ResolvedHost] = {}
        self._told: dict[str, ResolvedHost] = {}
        self._asking: set[str] = set()
        self._telling: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(CONCURRENCY)

    def refresh(self) -> None:
        """Look names up now that are not known yet, as after a change of the registry."""
        self._wake.set()

    async def run(self) -> None:
        """Look up until cancelled: all names every while, however often it is woken; new ones when woken."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as lookups:
                while True:
                    next_refresh = loop.time() + REFRESH_SECONDS
                    lookups.create_task(self.look_up_all(self._hosts()))
                    while await self._woken_before(next_refresh):
                        lookups.create_task(self.look_up_all(self._hosts() - self._known.keys()))
        finally:
            if self._telling is not None:
                self._telling.cancel()

    async def _woken_before(self, end: float) -> bool:
        try:
            async with asyncio.timeout_at(end):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True

    async def look_up_all(self, hosts: Set[str]) -> None:
        """Look these names up that are not being looked up already, and tell each when it is known."""
        async with asyncio.TaskGroup() as lookups:
            for host in sorted(hosts - self._asking):
                self._asking.add(host)
                lookups.create_task(self._look_up(host))
        self._tell()

    async def _look_up(self, host: str) -> None:
        try:
            async with self._slots, asyncio.timeout(LOOKUP_SECONDS):
                found = dialable(await self._resolve(host))
        except OSError:  # TimeoutError too: what is known stays, and its age says how good it is
            return
        finally:
            self._asking.discard(host)
        if found:
            self._known[host] = ResolvedHost(addresses=found, resolved_at=int(self._clock()))
            if self._telling is None:
                self._telling = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._tell)

    def _tell(self) -> None:
        """Forget what is registered no more, and tell when anything is different."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        registered = self._hosts()
        self._known = {host: known for host, known in self._known.items() if host in registered}
        if self._known != self._told:
            self._told = dict(self._known)
            self._on_change(self._told)
