"""Following one kind: what follows a list, an event, an error, an end."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from hopgate.kubernetes import api, informers
from hopgate.kubernetes.api import Event, ExpiredError, Listing, RefusedError, UnreachableError, WatchedKind
from hopgate.kubernetes.informers import Informer

DEADLINE_SECONDS = 10.0
Manifest = Mapping[str, Any]
Step = Listing | list[Event] | Exception


class Stream:
    def __init__(self, events: Sequence[Event], *, last: bool) -> None:
        self._events = events
        self._last = last
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def __iter__(self) -> Iterator[Event]:
        yield from self._events
        if self._last:
            self._stopped.wait(DEADLINE_SECONDS)

    def stop(self) -> None:
        self._stopped.set()


class Server:
    """Answers with one step after another; the last watch stays open."""

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)
        self.asked: list[str] = []
        self.done = threading.Event()

    def list(self, kind: WatchedKind) -> Listing:
        self.asked.append("list")
        step = self._steps.pop(0)
        if isinstance(step, Exception):
            raise step
        assert isinstance(step, Listing)
        return step

    def watch(self, kind: WatchedKind, revision: str) -> Stream:
        self.asked.append(f"watch from {revision}")
        step = self._steps.pop(0) if self._steps else []
        if isinstance(step, Exception):
            raise step
        assert isinstance(step, list)
        if not self._steps:
            self.done.set()
        return Stream(step, last=not self._steps)


class Sink:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def replace(self, kind: WatchedKind, manifests: Sequence[Manifest]) -> None:
        self.seen.append(f"all {[each['name'] for each in manifests]}")

    def put(self, manifest: Manifest) -> None:
        self.seen.append(f"put {manifest['name']}")

    def remove(self, manifest: Manifest) -> None:
        self.seen.append(f"remove {manifest['name']}")


def listing(revision: str, *names: str) -> Listing:
    return Listing(items=tuple({"name": name} for name in names), revision=revision)


def event(kind: str, name: str, revision: str) -> Event:
    return Event(type=kind, object={"name": name}, revision=revision)


def follow(*steps: Step) -> tuple[Server, Sink, Informer]:
    server, sink = Server(*steps), Sink()
    informer = Informer(server, api.AGENTS, sink, lambda: 0.0)
    informer.start()
    assert server.done.wait(DEADLINE_SECONDS)
    informer.stop()
    informer.join(DEADLINE_SECONDS)
    return server, sink, informer


def test_it_lists_once_and_watches_from_there() -> None:
    server, sink, informer = follow(
        listing("5", "a"),
        [event("ADDED", "b", "6"), event("MODIFIED", "a", "7"), event("DELETED", "b", "8"), event("BOOKMARK", "", "9")],
        [],
    )
    assert sink.seen == ["all ['a']", "put b", "put a", "remove b"]
    assert server.asked == ["list", "watch from 5", "watch from 9"]
    assert informer.freshness().synced


def test_a_broken_watch_goes_on_from_where_it_was() -> None:
    server, sink, _ = follow(listing("5"), [event("ADDED", "a", "6")], UnreachableError("gone"), RefusedError(429, "busy"), [])
    assert server.asked == ["list", "watch from 5", "watch from 6", "watch from 6", "watch from 6"]
    assert sink.seen == ["all []", "put a"]


def test_an_expired_revision_lists_again() -> None:
    server, sink, _ = follow(listing("5", "a", "b"), ExpiredError(410, "too old"), listing("9", "b"), [])
    assert server.asked == ["list", "watch from 5", "list", "watch from 9"]
    assert sink.seen == ["all ['a', 'b']", "all ['b']"]


def test_a_first_list_that_fails_is_asked_again_and_not_taken_for_an_empty_one() -> None:
    server, sink, _ = follow(RefusedError(403, "forbidden"), UnreachableError("away"), listing("5", "a"), [])
    assert server.asked[:3] == ["list", "list", "list"]
    assert sink.seen == ["all ['a']"]


def test_it_is_not_synced_before_its_list(monkeypatch: Any) -> None:
    monkeypatch.setattr(informers, "LAST_PAUSE_SECONDS", 0.01)
    server = Server(*[RefusedError(403, "forbidden")] * 3, listing("5"), [])
    informer = Informer(server, api.AGENTS, Sink(), lambda: 7.0)
    before = informer.freshness()
    assert (before.synced, before.age_seconds) == (False, None)
    informer.start()
    assert server.done.wait(DEADLINE_SECONDS)
    informer.stop()
    informer.join(DEADLINE_SECONDS)
    after = informer.freshness()
    assert (after.synced, after.age_seconds) == (True, 0.0)
