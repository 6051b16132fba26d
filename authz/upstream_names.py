"""What outside names resolve to, for the gate to dial: looked up in the background, never while a request waits.

A name that can't be looked up keeps its last addresses; how old they may be is for the decision to say (`authz.destination`).
Addresses inside networks of ours are dropped, since whoever owns a public name can point it at anything: a destination inside is
registered with its `address`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from typing import Final

from hopgate.snapshot import ResolvedHost

REFRESH_SECONDS: Final = 30.0
LOOKUP_SECONDS: Final = 5.0
# Look-ups at a time: a registry has tens of names, and a resolver that is down must not hold a thread for each.
CONCURRENCY: Final = 8

# RFC 4291 section 2.4: the public IPv6 internet. `is_global` also takes what is in none of its lists (fec0::1, ::127.0.0.1).
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
# RFC 6052: an IPv4 address that a translator dials.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
# 6to4 carries an IPv4 address, which no network should still dial; RFC 9637 documentation.
_NOT_PUBLIC: Final = (ipaddress.IPv6Network("2002::/16"), ipaddress.IPv6Network("3fff::/20"))

Resolve = Callable[[str], Awaitable[Iterable[str]]]


def dialable(addresses: Iterable[str]) -> tuple[str, ...]:
    """Those addresses that are on the public internet, IPv4 first, each once, in the order given."""
    found = dict.fromkeys(address for address in addresses if _is_public(address))
    return tuple(sorted(found, key=lambda address: ":" in address))


def _is_public(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        carried = address.ipv4_mapped or (ipaddress.IPv4Address(address.packed[-4:]) if address in _NAT64 else None)
        if carried is None:
            return (
                address.is_global
                and address.scope_id is None
                and address in _UNICAST
                and not any(address in network for network in _NOT_PUBLIC)
            )
        address = carried
    return address.is_global and not address.is_multicast


async def look_up(host: str) -> tuple[str, ...]:
    """This machine's own answer, both families. Raises OSError when there is none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(str(entry[4][0]) for entry in found)


class UpstreamNames:
    """Keeps the addresses of `hosts()` fresh; `on_change` gets all of them whenever any was looked up."""

    def __init__(
        self,
        hosts: Callable[[], Set[str]],
        *,
        on_change: Callable[[Mapping[str, ResolvedHost]], None],
        resolve: Resolve = look_up,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._hosts = hosts
        self._on_change = on_change
        self._resolve = resolve
        self._clock = clock
        self._known: dict[str, ResolvedHost] = {}
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(CONCURRENCY)

    def refresh(self) -> None:
        """Look names up now that are not known yet, as after a change of the registry."""
        self._wake.set()

    async def run(self) -> None:
        """Look up until cancelled: all names every while, new ones when woken."""
        await self.look_up_all(self._hosts())
        while True:
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), REFRESH_SECONDS)
            except TimeoutError:
                await self.look_up_all(self._hosts())
            else:
                await self.look_up_all(self._hosts() - self._known.keys())

    async def look_up_all(self, hosts: Set[str]) -> None:
        """Look these names up, forget those that are registered no more, and tell when anything is different."""
        looked_up = await asyncio.gather(*(self._look_up(host) for host in sorted(hosts)))
        registered = self._hosts()
        kept = {host: known for host, known in self._known.items() if host in registered}
        kept.update({host: found for host, found in looked_up if found is not None and host in registered})
        if kept != self._known:
            self._known = kept
            self._on_change(kept)

    async def _look_up(self, host: str) -> tuple[str, ResolvedHost | None]:
        async with self._slots:
            try:
                found = dialable(await asyncio.wait_for(self._resolve(host), LOOKUP_SECONDS))
            except (OSError, TimeoutError):
                return host, None
        return host, ResolvedHost(addresses=found, resolved_at=int(self._clock())) if found else None
