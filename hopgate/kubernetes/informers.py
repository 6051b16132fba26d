"""Follows kinds at the API server: list once, then watch, and go on from where it broke off.

The client's own SharedInformer is not used: it does not say when it is synced, spins while the server is down, and keeps every object as
the API server gave it. Here a failure waits (twice as long each time, up to two seconds, spread by chance), 410 lists again, and silence
ends a watch (`client.SILENCE_SECONDS`). What was seen stays while the server is away; `Freshness` says how long ago it was heard of.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from hopgate.kubernetes.api import ClientError, ExpiredError, Manifest, Source, Stream, WatchedKind

FIRST_PAUSE_SECONDS: Final = 0.1
# An API server that is back is heard of again within this and the time that a list takes.
LAST_PAUSE_SECONDS: Final = 2.0
# As long as a pause of this many failures in a row, the server is "away" and is said to be in the log once.
_LOGGED_FAILURE: Final = 3

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where what was seen goes; called from the threads of the kinds. Must not raise."""

    def replace(self, kind: WatchedKind, manifests: Sequence[Manifest]) -> None:
        """These are all objects of the kind."""

    def put(self, manifest: Manifest) -> None:
        """This object is new or has changed."""

    def remove(self, manifest: Manifest) -> None:
        """This object is gone."""


class Both:
    """Two sinks; the first is told first."""

    def __init__(self, first: Sink, second: Sink) -> None:
        self._sinks = (first, second)

    def replace(self, kind: WatchedKind, manifests: Sequence[Manifest]) -> None:
        """See `Sink`."""
        for sink in self._sinks:
            sink.replace(kind, manifests)

    def put(self, manifest: Manifest) -> None:
        """See `Sink`."""
        for sink in self._sinks:
            sink.put(manifest)

    def remove(self, manifest: Manifest) -> None:
        """See `Sink`."""
        for sink in self._sinks:
            sink.remove(manifest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """One kind: whether it was ever listed, how many seconds ago the server was last heard of, and why not since, if it failed.

    A kind that nobody changes is heard of once a minute, so an age up to that says nothing.
    """

    kind: str
    synced: bool
    age_seconds: float | None
    failures: int
    error: str | None


class Informer:
    """Follows one kind in a thread of its own."""

    def __init__(self, source: Source, kind: WatchedKind, sink: Sink, clock: Callable[[], float]) -> None:
        """`clock` is monotonic, in seconds."""
        self.kind = kind
        self.synced = threading.Event()
        self._source = source
        self._sink = sink
        self._clock = clock
        self._stopping = threading.Event()
        self._stream: Stream | None = None
        self._lock = threading.Lock()
        self._revision = ""
        self._heard: float | None = None
        self._failures = 0
        self._error: str | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch-{kind.plural}", daemon=True)

    def start(self) -> None:
        """Begin. Once only."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch, without waiting for the thread."""
        self._stopping.set()
        with self._lock:
            if self._stream is not None:
                self._stream.stop()

    def join(self, seconds: float) -> None:
        """Wait until the thread has ended, at most so long."""
        self._thread.join(seconds)

    def freshness(self) -> Freshness:
        """How things stand."""
        heard = self._heard
        return Freshness(
            kind=self.kind.kind,
            synced=self.synced.is_set(),
            age_seconds=None if heard is None else max(0.0, self._clock() - heard),
            failures=self._failures,
            error=self._error,
        )

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow()
            except ExpiredError:
                self._revision = ""
                # A server that calls its own newest revision too old is not to be asked in circles.
                self._stopping.wait(FIRST_PAUSE_SECONDS)
            except ClientError as error:
                self._fail(str(error), error.code)
            except Exception as error:  # noqa: BLE001 - a defect must not end the thread unseen; everything is listed anew
                _log.exception("%s: the watch failed", self.kind.plural)
                self._revision = ""
                self._fail(f"a defect of the gate: {type(error).__name__}", "Defect")

    def _follow(self) -> None:
        """One list where it is needed, and one watch to its end. Raises ClientError."""
        if not self._revision:
            listing = self._source.list(self.kind)
            self._sink.replace(self.kind, listing.items)
            self._revision = listing.revision
            self._hear()
            self.synced.set()
        with self._source.watch(self.kind, self._revision) as stream:
            with self._lock:
                self._stream = stream
            try:
                # Between the connection and this line nobody could have stopped the stream.
                if not self._stopping.is_set():
                    self._hear()
                    self._take(stream)
            finally:
                with self._lock:
                    self._stream = None
        # The server's orderly end, in its own time or because it is going down: no reason to run in circles either.
        self._stopping.wait(FIRST_PAUSE_SECONDS)

    def _take(self, stream: Stream) -> None:
        for event in stream:
            if event.type == "DELETED":
                self._sink.remove(event.object)
            elif event.type in {"ADDED", "MODIFIED"}:
                self._sink.put(event.object)
            self._revision = event.revision or self._revision
            self._hear()

    def _hear(self) -> None:
        if self._failures >= _LOGGED_FAILURE:
            _log.warning("%s: the API server is back", self.kind.plural)
        self._heard = self._clock()
        self._failures = 0
        self._error = None

    def _fail(self, error: str, code: str) -> None:
        if self._stopping.is_set():
            return
        self._failures += 1
        self._error = error
        if self._failures == _LOGGED_FAILURE:
            _log.warning("%s: what was last seen stays in force: %s (%s)", self.kind.plural, error, code)
        pause = min(LAST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures, 10))
        self._stopping.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads the load, guards nothing


class Informers:
    """Follows several kinds into one sink."""

    def __init__(self, source: Source, kinds: Iterable[WatchedKind], sink: Sink, clock: Callable[[], float]) -> None:
        self._informers = tuple(Informer(source, kind, sink, clock) for kind in kinds)

    def start(self) -> None:
        """Begin to follow all of them. Once only."""
        for informer in self._informers:
            informer.start()

    def stop(self, seconds: float = 5.0) -> None:
        """End all of them; wait for each at most so long."""
        for informer in self._informers:
            informer.stop()
        for informer in self._informers:
            informer.join(seconds)

    @property
    def synced(self) -> bool:
        """Whether every kind was listed at least once."""
        return all(informer.synced.is_set() for informer in self._informers)

    def freshness(self) -> tuple[Freshness, ...]:
        """How things stand with each kind."""
        return tuple(informer.freshness() for informer in self._informers)


class Waking:
    """A sink that wakes somebody at each change and keeps nothing."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def replace(self, _: WatchedKind, __: Sequence[Manifest]) -> None:
        """See `Sink`."""
        self._changed()

    def put(self, _: Manifest) -> None:
        """See `Sink`."""
        self._changed()

    def remove(self, _: Manifest) -> None:
        """See `Sink`."""
        self._changed()
