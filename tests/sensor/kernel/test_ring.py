"""The rings: what finds no room is counted, to the last one; what was read is not read again."""

from __future__ import annotations

import mmap
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from ipaddress import ip_address

import pytest

from sensor import programs
from sensor.events import EVENT, PAYLOAD, Endpoint, Operation
from sensor.kernel import Counter, Loader
from sensor.programs import Sizes
from tests.cluster.api_server import eventually
from tests.sensor.kernel.actions import HELLO
from tests.sensor.kernel.conftest import Place, Seen
from tests.sensor.kernel.test_connections import OF_A_CONNECTION

pytestmark = [pytest.mark.root, pytest.mark.bpf]

SMALL = Sizes(events=16 * mmap.PAGESIZE, payloads=16 * mmap.PAGESIZE)


def test_events_without_room_are_counted_to_the_last(loader: Loader, place: Place) -> None:
    with closing(programs.open(loader=loader, sizes=SMALL)) as kernel:
        room = (SMALL.events - 1) // (EVENT.size + 8)
        place.act("many", "211")
        counted = kernel.counters()["events"]
        read = kernel.events()
        # What others do meanwhile finds no room either: the ring is full of what was there before.
        assert (len(read), counted.attempts - counted.lost) == (room, room)
        assert counted.lost >= 211 * len(OF_A_CONNECTION) - room

        def is_seen() -> bool:
            said = place.act("connect", "ip4")
            return any(event.cookie == said["cookie"] and event.operation is Operation.CONNECT for event in kernel.events())

        eventually(is_seen, "what comes when there is room again")
        assert kernel.counters()["events"].lost >= counted.lost


def test_payloads_without_room_are_counted_to_the_last(loader: Loader, place: Place) -> None:
    with closing(programs.open(loader=loader, sizes=SMALL)) as kernel:
        place.act("many_hellos", "211")
        counted = kernel.counters()["payloads"]
        read = kernel.payloads()
        assert len(read) <= counted.attempts - counted.lost + (kernel.counters()["payloads"].attempts - counted.attempts)
        assert len(read) >= counted.attempts - counted.lost
        assert counted.lost >= 211 - SMALL.payloads // (PAYLOAD.size + 512)

        def is_seen() -> bool:
            said = place.act("stream", HELLO.hex())
            return HELLO in [piece.data for piece in kernel.payloads() if piece.cookie == said["cookie"]]

        eventually(is_seen, "what comes when there is room again")


def test_a_ring_is_read_while_it_is_written(loader: Loader, place: Place) -> None:
    """Far more than the ring holds, read meanwhile: each event is whole, and none is there that was not told."""
    with closing(programs.open(loader=loader, sizes=SMALL)) as kernel, ThreadPoolExecutor(max_workers=1) as pool:
        acting = pool.submit(place.act, "many", "1009")
        events = []
        while not acting.done():
            events += kernel.events()
        events += kernel.events()
        server = Endpoint(ip_address("127.0.0.1"), acting.result()["port"])
        asked = [event for event in events if event.operation is Operation.CONNECT and event.remote == server]
        lost = kernel.counters()["events"].lost
        assert 1009 - lost <= len(asked) <= 1009
        assert len({event.cookie for event in asked}) == len(asked)


def test_nothing_is_read_twice(seen: Seen, place: Place) -> None:
    said = place.act("many", "31")
    first = seen.events(Operation.CONNECT, netns_cookie=said["netns"])
    assert len(first) == 31
    assert [event for event in seen.kernel.events() if event.netns_cookie == said["netns"]] == []


def test_counters_begin_with_nothing(loader: Loader, place: Place) -> None:
    with closing(programs.open(loader=loader, cgroup=place.other_cgroup)) as kernel:
        assert kernel.counters()["payloads"].lost == kernel.counters()["events"].lost == 0
        assert isinstance(kernel.counters()["events"], Counter)
