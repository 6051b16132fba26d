"""The process of the controller: `python -m hopgate.cluster controller`.

It watches what is in force, as authz and the webhooks do, and writes down how things stand: the status of each object, its virtual
addresses, events. It also keeps the authorities that authz and governed pods go by. Several of them can run; one leads and writes, the
others watch, so that one that comes to lead knows what was in force before.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hopgate.kubernetes import api, election, keys
from hopgate.kubernetes.agent_pods import LastSeen, RunningPods
from hopgate.kubernetes.announcements import Announcer
from hopgate.kubernetes.api import ClientError
from hopgate.kubernetes.authority_keeper import AuthorityKeeper
from hopgate.kubernetes.client import Client
from hopgate.kubernetes.election import Candidate
from hopgate.kubernetes.health_server import HealthServer
from hopgate.kubernetes.informers import Informer, Waking
from hopgate.kubernetes.snapshots import Built
from hopgate.kubernetes.status_keeper import StatusKeeper
from hopgate.kubernetes.status_store import StatusStore
from hopgate.kubernetes.watcher import MAX_REST_SECONDS, MERGE_SECONDS, SnapshotWatcher
from tokenmint import authority

# Without a change, for what changes by time alone: when agents were last seen.
LOOK_SECONDS: Final = 15.0
# The authorities are looked at so often, and whenever a namespace has changed.
AUTHORITY_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 2.0
# A loop that has not come round for so long hangs. Each waits for the API server in one request for some 10 s at most.
HANGING_SECONDS: Final = 180.0
_STOP_SECONDS: Final = 15.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the process is run. `pod` is its own name; `name` the installation's, of which Lease, Secrets and server names are made."""

    namespace: str
    pod: str
    name: str
    host: str
    port: int


class Loop:
    """Does one thing again and again in a thread of its own, until it is told to stop; sooner when it is woken."""

    def __init__(self, name: str, work: Callable[[], float], *, merge: float = 0.0) -> None:
        """`work` gives the seconds to wait. What wakes it within `merge` seconds is one; after long work it rests a little longer."""
        self._work = work
        self._merge = merge
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._came_round = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin. Once only."""
        self._thread.start()

    def wake(self) -> None:
        """Do it soon."""
        self._wake.set()

    def stop(self) -> None:
        """End after what is being done."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(_STOP_SECONDS)

    @property
    def is_alive(self) -> bool:
        """Whether it comes round."""
        return self._thread.is_alive() and time.monotonic() - self._came_round < HANGING_SECONDS

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            began = time.monotonic()
            self._came_round = began
            try:
                pause = self._work()
            except ClientError as error:
                _log.warning("%s: %s (%s); it is tried again", self._thread.name, error, error.code)
                pause = RETRY_SECONDS
            except Exception:  # noqa: BLE001 - a defect in one round must not end all others; it is logged
                _log.exception("%s failed; it is tried again", self._thread.name)
                pause = RETRY_SECONDS
            worked = time.monotonic() - began
            self._wake.wait(pause)
            if self._merge:
                self._stopping.wait(max(self._merge, min(worked, MAX_REST_SECONDS)))


class ControllerProcess:
    """One process. `run` until told to `end`."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self._settings = settings
        self._client = client
        self._ending = asyncio.Event()
        self._built: Built | None = None
        self._term = 0
        identity = f"{settings.pod}_{uuid.uuid4()}"
        self._candidate = Candidate(
            client,
            namespace=settings.namespace,
            name=f"{settings.name}-controller",
            identity=identity,
            clock=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
            wall=time.time,
        )
        self._statuses = Loop("statuses", self._keep_statuses, merge=MERGE_SECONDS)
        self._authorities = Loop("authorities", self._keep_authorities, merge=MERGE_SECONDS)
        self._election = Loop("election", self._stand)
        self._loops = (self._election, self._statuses, self._authorities)
        store = StatusStore(self._statuses.wake)
        self._pods = RunningPods(self._statuses.wake)
        self._last_seen = LastSeen()
        self._watcher = SnapshotWatcher(client, self._on_built, beside=store)
        self._informers = (
            Informer(client, api.RUNNING_PODS, self._pods, time.monotonic),
            Informer(client, api.leases(settings.namespace, f"{keys.LABEL}={keys.LABEL_VALUE}"), self._last_seen, time.monotonic),
            Informer(client, api.NAMESPACES, Waking(self._authorities.wake), time.monotonic),
        )
        announcer = Announcer(client, instance=settings.pod, clock=time.monotonic, wall=time.time)
        self._keeper = StatusKeeper(client, store, leads=self._candidate.leads, tell=announcer.tell, clock=time.monotonic, wall=time.time)
        self._authority_keeper = AuthorityKeeper(
            client, authority, namespace=settings.namespace, name=settings.name, clock=lambda: int(time.time())
        )

    @property
    def ready(self) -> bool:
        """Whether this process could lead: it knows what is in force and which pods run."""
        return self._built is not None and all(informer.synced.is_set() for informer in self._informers) and not self._ending.is_set()

    @property
    def healthy(self) -> bool:
        """Whether every loop comes round."""
        return all(loop.is_alive for loop in self._loops)

    def end(self) -> None:
        """Let `run` end in an orderly way."""
        self._ending.set()

    async def run(self) -> None:
        """Work until `end`. The API server's absence breaks nothing. Raises OSError where the probes' address can't be had."""
        settings = self._settings
        async with HealthServer(settings.host, settings.port, healthy=lambda: self.healthy, ready=lambda: self.ready):
            self._watcher.start()
            for each in (*self._informers, *self._loops):
                each.start()
            try:
                await self._ending.wait()
            finally:
                await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        """Nothing is written any more before another may lead."""
        for loop in reversed(self._loops):
            loop.stop()
        self._keeper.close()
        try:
            self._candidate.resign()
        except ClientError as error:
            _log.warning("the Lease could not be given up, and ends by itself: %s (%s)", error, error.code)
        for informer in self._informers:
            informer.stop()
        self._watcher.stop()
        for informer in self._informers:
            informer.join(1.0)

    def _on_built(self, built: Built) -> None:
        """Called in the watch's thread; the value is swapped as one reference."""
        self._built = built
        self._statuses.wake()

    def _stand(self) -> float:
        term, led = self._candidate.term, self._candidate.leads()
        self._candidate.step()
        if self._candidate.term != term:
            _log.info("this process leads now")
            self._statuses.wake()
            self._authorities.wake()
        elif led and not self._candidate.leads():
            _log.warning("another process leads now")
        return election.RETRY_SECONDS

    def _keep_statuses(self) -> float:
        built, term = self._built, self._candidate.term
        if built is None or not self.ready or not self._candidate.leads():
            return LOOK_SECONDS if built is not None and self.ready else MERGE_SECONDS
        if self._term != term:
            self._keeper.prepare()
            self._term = term
        wait = self._keeper.step(built, self._pods.counts(), self._last_seen.latest())
        return LOOK_SECONDS if wait is None else min(wait, LOOK_SECONDS)

    def _keep_authorities(self) -> float:
        if self._candidate.leads():
            self._authority_keeper.step()
        return AUTHORITY_SECONDS
