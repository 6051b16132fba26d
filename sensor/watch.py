"""One machine under watch: the kernel's rings, /proc and cgroups, put together around discovery. The composition; it decides nothing.

Without a kernel (no right to it, or its programs can't be loaded) what runs is still known by its files; calls are not.
"""

from __future__ import annotations

import contextlib
import functools
import select
import time
from pathlib import Path
from typing import Final, Self

from hopgate import kernel as system
from sensor import cgroups, discovery, open_connections
from sensor.cgroups import Cgroups
from sensor.clock import now_ns, wall_ns
from sensor.discovery import Discovery
from sensor.events import Event, Kind, Payload
from sensor.handshakes.first_bytes import FirstBytes
from sensor.handshakes.seen import Seen
from sensor.kernel import Kernel
from sensor.open_connections import ListingError
from sensor.processes import Process, Processes
from sensor.providers import Providers

# The first event wakes; what comes right behind it is read with it. A thousand wake-ups a second would cost more than all the events.
_GATHER_SECONDS: Final = 0.002


class Watch:
    """Closes what it holds at the end, `kernel` too."""

    def __init__(self, providers: Providers, kernel: Kernel | None) -> None:
        self._kernel = kernel
        self._processes = Processes(providers)
        self._open = contextlib.ExitStack()
        self._cgroups = self._cgroup_paths()
        self._first_bytes = FirstBytes()
        self.discovery = Discovery(
            providers=providers,
            read_process=self._processes.read,
            cgroup_path=lambda number: self._cgroups.path(number) if self._cgroups is not None else "",
            names_of=self._first_bytes.names.of,
            wall_ns=wall_ns,
        )
        self.examined = 0
        self.unreadable = 0
        self.unlisted = ""
        self._poll = select.poll()
        if kernel is not None:
            self._open.callback(kernel.close)
            for descriptor in kernel.descriptors:
                self._poll.register(descriptor, select.POLLIN)

    def _cgroup_paths(self) -> Cgroups | None:
        hierarchy = cgroups.find()
        if hierarchy is None:
            return None
        try:
            return self._open.enter_context(Cgroups(hierarchy.mount))
        except OSError:
            return None

    def parents(self) -> dict[int, int]:
        """The parent of each process that runs."""
        return self._processes.parents()

    def begin(self) -> None:
        """Take in what runs and what is open already."""
        at = now_ns()
        found = []
        for process in self._processes.running():
            self.examined += 1
            self.unreadable += not process.readable
            if self.discovery.add_running(process, at, functools.partial(_netns_cookie, process.process)):
                found.append(process)
        if found and self._kernel is not None:
            self._list_open(found, at)

    def _list_open(self, found: list[Process], at: int) -> None:
        try:
            sockets = {each.inode: each for each in open_connections.find(at)}
        except ListingError as error:
            self.unlisted = str(error)
            return
        for process in found:
            for inode in self._processes.sockets(process.process) & sockets.keys():
                self.discovery.add_open(process, str(sockets[inode].remote or ""), at)

    def turn(self, timeout_seconds: float) -> None:
        """Wait until the kernel has something to tell, no longer than that, and take it in."""
        if self._poll.poll(int(timeout_seconds * 1000)):
            time.sleep(_GATHER_SECONDS)
        if self._kernel is not None:
            # In this order each payload's socket is known: what was asked for before it was written lies in the other ring by now.
            payloads = self._kernel.payloads()
            self.take(self._kernel.events(discovery.WANTED), payloads)
        self.discovery.settle(now_ns())

    def take(self, events: list[Event], payloads: list[Payload]) -> list[Seen]:
        """Take in what the kernel told: payloads that were read before the events. Returns what the payloads say."""
        for payload in payloads:
            if payload.kind is Kind.EXECUTED:
                self.discovery.add_executed(payload.process, payload.data.rstrip(b"\0").decode("utf-8", "replace"))
        for event in events:
            self.discovery.add_event(event)
        said = [seen for payload in payloads for seen in self._first_bytes.take(payload)]
        for seen in said:
            self.discovery.add_seen(seen)
        return said

    def unfinished(self) -> int:
        """How many handshakes were given up before they were whole."""
        dropped = self._first_bytes.counters.dropped
        return sum(dropped[why] for why in ("Evicted", "Expired", "Cut"))

    def lost(self) -> int:
        """How many events and first bytes the kernel had no room for."""
        return 0 if self._kernel is None else sum(counter.lost for counter in self._kernel.counters().values())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give everything back."""
        self._open.close()


def _netns_cookie(process: int) -> int:
    """The network namespace of a process, as the kernel's events name it; 0 when it is gone or may not be told."""
    try:
        return system.within(Path(f"/proc/{process}/ns/net"), system.netns_cookie)
    except OSError:
        return 0
