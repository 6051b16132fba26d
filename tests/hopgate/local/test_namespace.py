"""Plugging real network namespaces. Nothing here dials from the machine's own one."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from hopgate.local import namespace
from hopgate.local.namespace import NamespaceError
from tests.network_namespaces import Namespace

pytestmark = pytest.mark.root

DIRECT4, DIRECT6 = "203.0.113.9", "2001:db8:5::5"
ALL_FAMILIES = [(socket.AF_INET, DIRECT4), (socket.AF_INET6, DIRECT6)]
FAMILY_NAMES = ["IPv4", "IPv6"]
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
AT_ONCE_SECONDS = 0.5
SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST has the same number


@pytest.fixture
def bare() -> Iterator[Namespace]:
    made = Namespace()
    yield made
    made.close()


@pytest.fixture
def plugged(bare: Namespace) -> Namespace:
    namespace.plug(bare.descriptor)
    return bare


def _attempt(inside: Namespace, family: int, kind: int, address: str, port: int) -> tuple[str, float]:
    """Connect and send one packet from inside; what came of it, and how long it took."""
    with inside.socket(family, kind) as made:
        made.settimeout(AT_ONCE_SECONDS * 4)
        began = time.monotonic()
        try:
            made.connect((address, port))
            made.send(b"out")
        except OSError as error:
            return type(error).__name__, time.monotonic() - began
        return "sent", time.monotonic() - began


@pytest.mark.parametrize(("family", "address"), ALL_FAMILIES, ids=FAMILY_NAMES)
def test_tcp_is_refused_at_once_while_no_gate_listens(plugged: Namespace, family: int, address: str) -> None:
    outcome, seconds = _attempt(plugged, family, socket.SOCK_STREAM, address, 443)
    assert outcome == "ConnectionRefusedError"
    assert seconds < AT_ONCE_SECONDS


@pytest.mark.parametrize(("family", "address"), ALL_FAMILIES, ids=FAMILY_NAMES)
def test_udp_is_refused_at_once_and_counted(plugged: Namespace, family: int, address: str) -> None:
    before = namespace.read_refused(plugged.descriptor)
    outcome, seconds = _attempt(plugged, family, socket.SOCK_DGRAM, address, 443)
    assert outcome == "PermissionError"
    assert seconds < AT_ONCE_SECONDS
    assert namespace.read_refused(plugged.descriptor) == before + 1


def test_a_raw_packet_is_refused_and_counted(plugged: Namespace) -> None:
    with plugged.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as made, pytest.raises(PermissionError):
        made.sendto(b"\x08\x00" + bytes(6), (DIRECT4, 0))
    assert namespace.read_refused(plugged.descriptor) == 1


def test_what_the_kernel_sends_by_itself_is_not_counted(plugged: Namespace) -> None:
    # the link came up with IPv6 on it: multicast listener and router messages have been tried
    assert namespace.read_refused(plugged.descriptor) == 0


@pytest.mark.parametrize(("family", "address"), ALL_FAMILIES, ids=FAMILY_NAMES)
def test_tcp_comes_to_the_proxy_with_its_original_destination(plugged: Namespace, family: socket.AddressFamily, address: str) -> None:
    with plugged.socket(family) as listener:
        listener.setblocking(True)
        listener.settimeout(5)
        listener.bind((LOOPBACK[family], namespace.PROXY_PORT))
        listener.listen()
        assert _attempt(plugged, family, socket.SOCK_STREAM, address, 8443)[0] == "sent"
        accepted, _ = listener.accept()
        with accepted:
            if family == socket.AF_INET:
                original = accepted.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
                found = (socket.inet_ntop(family, original[4:8]), struct.unpack_from(">H", original, 2)[0])
            else:
                original = accepted.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
                found = (socket.inet_ntop(family, original[8:24]), struct.unpack_from(">H", original, 2)[0])
            assert found == (address, 8443)
            assert accepted.recv(10) == b"out"


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, DIRECT4), (socket.AF_INET, "127.0.0.53"), (socket.AF_INET6, DIRECT6), (socket.AF_INET6, "::1")],
    ids=["IPv4", "IPv4 loopback", "IPv6", "IPv6 loopback"],
)
def test_a_dns_question_to_any_address_comes_to_the_resolver_and_is_answered_from_there(
    plugged: Namespace, family: socket.AddressFamily, address: str
) -> None:
    sockets = namespace.open_sockets_in(plugged.descriptor)
    datagram = next(held for held in sockets.datagram if held.family == family)
    listening = next(held for held in sockets.listening if held.family == family)
    with plugged.socket(family, socket.SOCK_DGRAM) as asking, plugged.socket(family) as asking_tcp:
        asking.settimeout(5)
        asking.connect((address, 53))
        asking.send(b"question")
        datagram.settimeout(5)
        question, sender = datagram.recvfrom(100)
        datagram.sendto(b"answer to " + question, sender)
        assert asking.recv(100) == b"answer to question"
        asking_tcp.settimeout(5)
        asking_tcp.connect((address, 53))
        listening.settimeout(5)
        accepted, _ = listening.accept()
        accepted.close()
    sockets.close()


def test_loopback_is_the_programs_own(plugged: Namespace) -> None:
    with plugged.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert _attempt(plugged, socket.AF_INET, socket.SOCK_STREAM, *listener.getsockname())[0] == "sent"


def test_without_the_rules_there_is_still_no_way_out(plugged: Namespace) -> None:
    plugged.run("nft", "flush", "ruleset")
    links = {link["ifname"]: link for link in json.loads(plugged.run("ip", "-json", "link"))}
    ends = {name: link for name, link in links.items() if link["operstate"] != "DOWN" and name != "lo"}
    assert {name: end["link"] for name, end in ends.items()} == {"gate0": "gate1", "gate1": "gate0"}
    assert not any("link_netnsid" in end for end in ends.values())
    for family, address in ALL_FAMILIES:
        assert _attempt(plugged, family, socket.SOCK_STREAM, address, 443)[0] in ("TimeoutError", "OSError")


def test_both_directions_of_a_plug_are_there_before_any_packet_can_leave(bare: Namespace) -> None:
    namespace.plug(bare.descriptor, proxy_port=2001, dns_port=2053)
    rules = bare.run("nft", "list", "ruleset")
    assert "policy drop" in rules
    assert "redirect to :2001" in rules
    assert rules.count("redirect to :2053") == 2
    assert "default via 192.0.2.1" in bare.run("ip", "route")
    assert "default via 2001:db8:192:2::1" in bare.run("ip", "-6", "route")


def test_ipv6_that_is_switched_off_is_no_way_out_and_no_obstacle(bare: Namespace) -> None:
    bare.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
    namespace.plug(bare.descriptor)
    sockets = namespace.open_sockets_in(bare.descriptor)
    assert (len(sockets.datagram), len(sockets.listening)) == (1, 1)
    sockets.close()
    assert _attempt(bare, socket.AF_INET6, socket.SOCK_STREAM, DIRECT6, 443)[0] == "OSError"
    assert _attempt(bare, socket.AF_INET, socket.SOCK_STREAM, DIRECT4, 443)[0] == "ConnectionRefusedError"


def test_a_second_plug_is_refused_and_changes_nothing(plugged: Namespace) -> None:
    before = plugged.run("nft", "list", "ruleset")
    with pytest.raises(NamespaceError, match="exists") as raised:
        namespace.plug(plugged.descriptor, proxy_port=1)
    assert raised.value.code == "NamespaceUnusable"
    assert raised.value.remedy
    assert plugged.run("nft", "list", "ruleset") == before


def test_a_path_serves_as_well_as_a_descriptor(bare: Namespace) -> None:
    namespace.plug(f"/proc/self/fd/{bare.descriptor}")
    assert namespace.read_refused(f"/proc/self/fd/{bare.descriptor}") == 0


@pytest.mark.parametrize("action", [namespace.plug, namespace.open_sockets_in, namespace.read_refused])
def test_what_is_no_namespace_is_an_error_of_ours(action: object) -> None:
    assert callable(action)
    with pytest.raises(NamespaceError):
        action("/etc/hosts")
    with pytest.raises(NamespaceError):
        action("/no/such/namespace")


def test_the_calling_thread_stays_in_its_own_namespace(plugged: Namespace) -> None:
    with plugged.socket() as inside, socket.socket() as outside:
        assert inside.family == outside.family
    names = {name for _, name in socket.if_nameindex()}
    assert "gate0" not in names
