from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensor import events
from sensor.events import EVENT, PAYLOAD, TCP, Endpoint, EventError, Flag, Kind, Operation

MAPPED = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 7])
V6 = IPv6Address("2001:db8::1").packed


def _event(
    operation: int = Operation.CONNECT,
    *,
    remote: bytes = MAPPED,
    command: bytes = b"python3",
    cookie: int = 2,
    cgroup_id: int = 3,
    netns_cookie: int = 4,
) -> bytes:
    head = (operation, 10, Flag.BLOCKED, TCP, 1000, 11, 12, 3)
    return EVENT.pack(*head, 1, cookie, cgroup_id, netns_cookie, 5, 6, 7, remote, V6, bytes(16), 443, 40000, 0, command)


def _payload(size: int = 3, data: bytes = b"abc", kind: int = Kind.TLS) -> bytes:
    return PAYLOAD.pack(kind, 4, Flag.CUT, size, 99, 11, 1, 2, 3, MAPPED, V6, 40000, 443, TCP) + data


def test_the_sizes_are_those_of_the_header() -> None:
    assert (EVENT.size, PAYLOAD.size) == (152, 80)


def test_an_event_is_read_field_by_field() -> None:
    [event] = events.read_events(_event())
    assert event == events.Event(
        operation=Operation.CONNECT,
        time_ns=1,
        flags=Flag.BLOCKED,
        family=10,
        protocol=TCP,
        cookie=2,
        cgroup_id=3,
        netns_cookie=4,
        process=11,
        started_ns=5,
        other_process=12,
        uid=1000,
        command="python3",
        interface=3,
        remote=Endpoint(IPv4Address("192.0.2.7"), 443),
        local=Endpoint(IPv6Address("2001:db8::1"), 40000),
        asked=None,
        sent_bytes=6,
        received_bytes=7,
    )


@pytest.mark.parametrize(
    ("wanted", "read"),
    [
        ((set(), set(), set()), []),
        (({3}, set(), set()), [2, 2, 7]),  # the second of cookie 2 is of another cgroup: a socket that was handed over
        ((set(), {4}, set()), [2, 2]),
        ((set(), set(), {7}), [7]),
        ((set(), set(), {9}), [9]),
        (({8}, set(), set()), [0, 2]),
    ],
)
@pytest.mark.parametrize("head", [b"", b"12345678"], ids=["alone", "behind a head"])
def test_only_events_that_are_wanted_are_read(wanted: tuple[set[int], set[int], set[object]], read: list[int], head: bytes) -> None:
    region = b"".join(
        head + event
        for event in (
            _event(cookie=9, cgroup_id=1, netns_cookie=1),
            _event(cookie=0, cgroup_id=8, netns_cookie=1),
            _event(),
            _event(cookie=2, cgroup_id=8, netns_cookie=1),
            _event(cookie=0, cgroup_id=1, netns_cookie=1),
            _event(cookie=7, netns_cookie=0),
        )
    )
    cgroups, namespaces, cookies = wanted
    found = events.read_events(region, events.Wanted(cgroups=cgroups, namespaces=namespaces, cookies=cookies), head_bytes=len(head))
    assert [event.cookie for event in found] == read
    assert [event.cgroup_id for event in events.read_events(region, head_bytes=len(head))] == [1, 8, 3, 8, 1, 3]


def test_a_command_that_is_no_text_is_still_told() -> None:
    [event] = events.read_events(_event(command=b"\xff\xfe\0rest"))
    assert event.command == "\ufffd\ufffd"


def test_a_payload_is_read_with_its_data() -> None:
    payload = events.read_payload(_payload())
    assert (payload.kind, payload.data, payload.sequence, payload.flags) == (Kind.TLS, b"abc", 99, Flag.CUT)
    assert (payload.local, payload.remote) == (Endpoint(IPv4Address("192.0.2.7"), 40000), Endpoint(IPv6Address("2001:db8::1"), 443))


@pytest.mark.parametrize(
    "record", [b"", _payload()[:-1], _payload()[:10], _payload(kind=0)], ids=["empty", "short of data", "head", "kind"]
)
def test_bytes_that_are_no_payload_are_an_error(record: bytes) -> None:
    with pytest.raises(EventError):
        events.read_payload(record)


@pytest.mark.parametrize("region", [_event()[:-1], _event(operation=0), _event() + b"x"], ids=["short", "operation", "rest"])
def test_bytes_that_are_no_event_are_an_error(region: bytes) -> None:
    with pytest.raises(EventError):
        list(events.read_events(region))


@pytest.mark.parametrize(
    ("address", "shown"),
    [(MAPPED, "192.0.2.7:53"), (V6, "[2001:db8::1]:53"), (IPv6Address("::1").packed, "[::1]:53")],
    ids=["mapped", "IPv6", "loopback"],
)
def test_an_endpoint_reads_as_people_write_it(address: bytes, shown: str) -> None:
    assert str(events.endpoint(address, 53)) == shown


def test_the_unspecified_addresses_name_nothing() -> None:
    assert events.endpoint(bytes(16), 53) is None
    assert events.endpoint(bytes(10) + b"\xff\xff" + bytes(4), 53) is None


@given(st.binary(max_size=400))
def test_any_bytes_are_an_event_or_an_error(region: bytes) -> None:
    for read in (lambda: list(events.read_events(region)), lambda: events.read_payload(region)):
        try:
            read()
        except EventError:
            continue
