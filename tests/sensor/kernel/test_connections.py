"""What programs do with sockets, as the kernel tells it: each hook, both families, the ways around connect(2)."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from typing import Any

import pytest

from sensor.events import TCP, UDP, Endpoint, Event, Flag, Operation
from sensor.kernel import Kernel, Loader
from tests.sensor.kernel.conftest import Place, Seen

pytestmark = [pytest.mark.root, pytest.mark.bpf]

LOOPBACK = {"ip4": ip_address("127.0.0.1"), "ip6": ip_address("::1"), "mapped": ip_address("127.0.0.1")}
FAMILIES = {"ip4": socket.AF_INET, "ip6": socket.AF_INET6, "mapped": socket.AF_INET6}
KINDS = pytest.mark.parametrize("kind", ["ip4", "ip6", "mapped"])
OF_A_CONNECTION = (Operation.CONNECT, Operation.SENT, Operation.ESTABLISHED, Operation.ACCEPTED, Operation.CLOSED)


def test_every_program_is_attached(kernel: Kernel, loader: Loader) -> None:
    assert [hook for hook in kernel.hooks if not hook.attached] == []
    assert len(kernel.hooks) == 13
    assert (kernel.loader, kernel.why) == (loader, f"{loader} was asked for")


def check_process(event: Event, said: dict[str, Any], place: Place, loader: Loader) -> None:
    """The process, by what it knows of itself."""
    assert (event.process, event.cgroup_id, event.uid) == (said["process"], place.cgroup_id, os.geteuid())
    assert event.command.startswith("python")
    ticks = event.started_ns * os.sysconf("SC_CLK_TCK") // 1_000_000_000
    assert ticks == (said["started"] if loader is Loader.CO_RE else 0)


@KINDS
def test_a_connection(seen: Seen, place: Place, loader: Loader, kind: str) -> None:
    said = place.act("connect", kind)
    server, client = Endpoint(LOOPBACK[kind], said["port"]), Endpoint(LOOPBACK[kind], said["client_port"])
    exact = loader is Loader.CO_RE

    asked = seen.one(Operation.CONNECT, cookie=said["cookie"])
    check_process(asked, said, place, loader)
    assert (asked.remote, asked.family, asked.protocol, asked.flags) == (server, FAMILIES[kind], TCP, Flag(0))
    assert asked.netns_cookie == said["netns"]

    sent = seen.one(Operation.SENT, cookie=said["cookie"])
    assert (sent.remote, sent.local, sent.asked, sent.interface) == (server, client, server, 1)
    assert (sent.cgroup_id, sent.process, sent.uid) == (place.cgroup_id, 0, os.geteuid())
    assert sent.netns_cookie == (said["netns"] if exact else 0)

    for operation, cookie, local, remote in (
        (Operation.ESTABLISHED, said["cookie"], client, server),
        (Operation.ACCEPTED, said["accepted"], server, client),
    ):
        stands = seen.one(operation, cookie=cookie)
        assert (stands.local, stands.remote, stands.protocol, stands.netns_cookie) == (local, remote, TCP, said["netns"])
        assert stands.cgroup_id == (place.cgroup_id if exact else 0)

    closed = seen.one(Operation.CLOSED, cookie=said["cookie"])
    answered = seen.one(Operation.CLOSED, cookie=said["accepted"])
    if exact:
        assert (closed.sent_bytes, closed.received_bytes) == (5, 2)
        assert (answered.sent_bytes, answered.received_bytes) == (2, 5)
    else:  # as the kernel counts: a SYN and a FIN are a byte each
        assert (closed.sent_bytes, closed.received_bytes) == (5 + 2, 2 + 1)
        assert (answered.sent_bytes, answered.received_bytes) == (2 + 1, 5 + 1)
    times = [asked.time_ns, sent.time_ns, seen.one(Operation.ESTABLISHED, cookie=said["cookie"]).time_ns, closed.time_ns]
    assert times == sorted(times)


def test_a_refused_connection_was_asked_for_and_sent_and_never_stood(seen: Seen, place: Place) -> None:
    said = place.act("refused", "ip4")
    seen.one(Operation.CONNECT, cookie=said["cookie"])
    seen.one(Operation.SENT, cookie=said["cookie"])
    assert seen.events(Operation.ESTABLISHED, Operation.CLOSED, cookie=said["cookie"]) == []


@pytest.mark.parametrize("kind", ["ip4", "ip6"])
def test_fast_open(seen: Seen, place: Place, kind: str, loader: Loader) -> None:
    place.namespace.run("sysctl", "-qw", "net.ipv4.tcp_fastopen=3")
    said = place.act("fast_open", kind)
    asked = seen.one(Operation.CONNECT, cookie=said["cookie"])
    check_process(asked, said, place, loader)
    assert asked.remote == Endpoint(LOOPBACK[kind], said["port"])
    assert seen.one(Operation.SENT, cookie=said["cookie"]).asked == asked.remote


@pytest.mark.parametrize("kind", ["ip4", "ip6"])
def test_multipath(seen: Seen, place: Place, kind: str, loader: Loader) -> None:
    said = place.act("mptcp", kind)
    server = Endpoint(LOOPBACK[kind], said["port"])
    asked = seen.one(Operation.CONNECT, cgroup_id=place.cgroup_id, remote=server)
    check_process(asked, said, place, loader)
    assert seen.one(Operation.SENT, cgroup_id=place.cgroup_id, remote=server).cookie == asked.cookie
    assert seen.one(Operation.ESTABLISHED, cookie=asked.cookie).remote == server


@KINDS
def test_datagrams_are_told_once_for_each_address(seen: Seen, place: Place, loader: Loader, kind: str) -> None:
    said = place.act("datagrams", kind)
    addresses = {Endpoint(LOOPBACK[kind], said["port"]), Endpoint(LOOPBACK[kind], said["other"])}
    asked = seen.events(Operation.CONNECT, cookie=said["cookie"])
    assert {each.remote for each in asked} == addresses
    sent = seen.events(Operation.SENT, cookie=said["cookie"])
    assert {each.remote for each in sent} == addresses
    assert (len(asked), len(sent)) == (2, 2)
    for each in asked:
        check_process(each, said, place, loader)
        assert (each.protocol, each.flags, each.family, each.netns_cookie) == (UDP, Flag.DATAGRAM_HOOK, FAMILIES[kind], said["netns"])
    assert {each.asked for each in sent} == {None}


@KINDS
def test_a_connected_datagram_socket(seen: Seen, place: Place, loader: Loader, kind: str) -> None:
    said = place.act("connected_datagrams", kind)
    server = Endpoint(LOOPBACK[kind], said["port"])
    asked = seen.one(Operation.CONNECT, cookie=said["cookie"])
    check_process(asked, said, place, loader)
    assert (asked.remote, asked.protocol, asked.flags) == (server, UDP, Flag(0))
    sent = seen.one(Operation.SENT, cookie=said["cookie"])
    assert (sent.remote, sent.asked, sent.cgroup_id) == (server, server, place.cgroup_id)


def test_where_a_redirected_packet_goes_stands_beside_what_was_asked(seen: Seen, place: Place, tmp_path: object) -> None:
    place.namespace.run("nft", "add", "table", "ip", "n")
    place.namespace.run("nft", "add", "chain", "ip", "n", "o", "{ type nat hook output priority -100 ; }")
    said = place.act("redirected", "")
    sent = seen.one(Operation.SENT, cookie=said["cookie"])
    assert sent.asked == Endpoint(LOOPBACK["ip4"], 443)
    assert sent.remote == Endpoint(LOOPBACK["ip4"], said["port"])


def test_a_prime_number_of_connections(seen: Seen, place: Place) -> None:
    said = place.act("many", "211")
    server = Endpoint(LOOPBACK["ip4"], said["port"])
    told = {
        Operation.CONNECT: seen.events(Operation.CONNECT, remote=server, netns_cookie=said["netns"]),
        Operation.SENT: seen.events(Operation.SENT, remote=server, cgroup_id=place.cgroup_id),
        Operation.ESTABLISHED: seen.events(Operation.ESTABLISHED, remote=server, netns_cookie=said["netns"]),
        Operation.ACCEPTED: seen.events(Operation.ACCEPTED, local=server, netns_cookie=said["netns"]),
        Operation.CLOSED: seen.events(Operation.CLOSED, remote=server, netns_cookie=said["netns"]),
    }
    assert {operation: len(events) for operation, events in told.items()} == dict.fromkeys(OF_A_CONNECTION, 211)
    assert len({event.cookie for event in told[Operation.CONNECT]}) == 211


@pytest.mark.parametrize("kind", ["ip4", "ip6"])
def test_a_raw_socket(seen: Seen, place: Place, loader: Loader, kind: str) -> None:
    said = place.act("raw", kind)
    made = seen.one(Operation.SPECIAL_SOCKET, cookie=said["cookie"])
    check_process(made, said, place, loader)
    assert (made.family, made.protocol, made.netns_cookie) == (FAMILIES[kind], UDP, said["netns"])


def test_a_connection_by_raw_packets(seen: Seen, place: Place) -> None:
    said = place.act("raw_syn", "15999")
    sent = seen.one(Operation.SENT, cookie=said["cookie"])
    assert (sent.remote, sent.asked, sent.cgroup_id) == (Endpoint(LOOPBACK["ip4"], 15999), None, place.cgroup_id)
    assert seen.events(Operation.CONNECT, cookie=said["cookie"]) == []


def test_a_packet_socket(seen: Seen, place: Place, loader: Loader) -> None:
    said = place.act("packet")
    made = seen.one(Operation.SPECIAL_SOCKET, cgroup_id=place.cgroup_id)
    check_process(made, said, place, loader)
    assert (made.family, made.protocol) == (socket.AF_PACKET, 3)
    assert made.netns_cookie == (said["netns"] if loader is Loader.CO_RE else 0)


def test_a_socket_handed_over_is_asked_for_by_who_connects_it(seen: Seen, place: Place) -> None:
    said = place.act("handed_over")
    asked = seen.one(Operation.CONNECT, cookie=said["cookie"])
    assert (asked.process, asked.cgroup_id) == (said["child"], place.other_cgroup.stat().st_ino)
    assert seen.one(Operation.SENT, cookie=said["cookie"]).cgroup_id == place.cgroup_id


def test_a_connection_by_io_uring(seen: Seen, place: Place, loader: Loader) -> None:
    said = place.act("ring")
    check_process(seen.one(Operation.RING_MADE, cgroup_id=place.cgroup_id), said, place, loader)
    asked = seen.one(Operation.CONNECT, cookie=said["cookie"])
    check_process(asked, said, place, loader)
    assert asked.remote == Endpoint(LOOPBACK["ip4"], said["port"])
