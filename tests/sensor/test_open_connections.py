"""The connections that stand at the start, from the kernel's own list; and whatever that may look like."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopgate import kernel
from hopgate.local import cgroups
from sensor import open_connections
from sensor.connections import OpenSocket
from sensor.events import Endpoint
from sensor.open_connections import ListedSocket, ListingError
from tests.network_namespaces import Namespace
from tests.sensor.flow_events import at

SO_COOKIE = 57  # asm-generic/socket.h
PRIME = 13


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace()
    made.raise_loopback()
    yield made
    made.close()


def cookie(held: socket.socket) -> int:
    return int.from_bytes(held.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), sys.byteorder)


@pytest.mark.root
@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_each_connection_of_a_namespace_is_found_once_with_its_other_end(namespace: Namespace, family: int, address: str) -> None:
    with contextlib.ExitStack() as opened, namespace.entered():
        listening = opened.enter_context(socket.create_server((address, 0), family=family))
        made = [opened.enter_context(socket.create_connection(listening.getsockname()[:2])) for _ in range(PRIME)]
        for _ in made:
            opened.enter_context(listening.accept()[0])
        own_cookie = kernel.netns_cookie()
        found = [each for each in open_connections.find(77) if each.netns_cookie == own_cookie]
        assert {each.cookie for each in found} == {cookie(each) for each in made}
        assert len(found) == PRIME
        where = at(address, listening.getsockname()[1])
        own_cgroup = _own_cgroup()
        for each in found:
            assert (each.remote, each.accepted_at, each.accepted_by, each.cgroup_id) == (where, where, own_cgroup, own_cgroup)
            assert (each.uid, each.seen_ns) == (os.getuid(), 77)


def _own_cgroup() -> int:
    path = cgroups.own()
    assert path is not None
    return cgroups.identify(path)


@pytest.mark.root
def test_a_machine_whose_processes_can_t_be_seen_has_none(tmp_path: Path) -> None:
    assert open_connections.find(0, tmp_path) == []


def test_a_namespace_that_can_t_be_entered_is_said_when_there_is_no_other(tmp_path: Path) -> None:
    (tmp_path / "1" / "ns").mkdir(parents=True)
    (tmp_path / "1" / "ns" / "net").write_text("no namespace")
    with pytest.raises(ListingError, match="does not list"):
        open_connections.find(0, tmp_path)


def listed(state: int, local: Endpoint | None, remote: Endpoint | None, number: int) -> ListedSocket:
    port = local.port if local is not None else 15001
    return ListedSocket(state=state, cookie=number, cgroup_id=number, uid=0, local=local, local_port=port, remote=remote)


def test_the_other_end_of_a_connection_that_was_turned_is_found_by_the_asking_side_s_port() -> None:
    client, wanted, proxy = at("192.0.2.2", 40_000), at("198.18.0.7", 443), at("127.0.0.1", 15001)
    sockets = [
        listed(10, None, None, 1),  # the gate's, on every address
        listed(1, client, wanted, 2),
        listed(1, proxy, client, 3),
        listed(1, at("192.0.2.2", 40_001), wanted, 4),
    ]
    found = open_connections.connections(sockets, 9, 5)
    assert [(each.cookie, each.accepted_at, each.accepted_by) for each in found] == [(2, proxy, 3), (4, None, None)]
    assert found[0] == OpenSocket(
        cookie=2, protocol=6, cgroup_id=2, netns_cookie=9, uid=0, seen_ns=5, local=client, remote=wanted, accepted_at=proxy, accepted_by=3
    )


@given(st.binary(max_size=400))
def test_any_bytes_are_read_to_an_end(data: bytes) -> None:
    with contextlib.suppress(OSError):
        list(open_connections.parse(data))


@given(st.integers(0, 200), st.binary(max_size=200), st.integers(0, 2**16 - 1))
def test_a_message_of_any_length_and_any_attributes_is_read_to_an_end(length: int, body: bytes, kind: int) -> None:
    with contextlib.suppress(OSError):
        list(open_connections.parse(struct.pack("=IHHII", length, 20, 0, 0, 0) + body))
        list(open_connections.parse(struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body + bytes(16)))


def test_a_protocol_that_the_kernel_has_no_list_of_is_said() -> None:
    with pytest.raises(OSError, match="Protocol not supported"):
        list(open_connections.list_sockets(socket.IPPROTO_RSVP))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ports = {found.local_port for found in open_connections.list_sockets(socket.IPPROTO_TCP)}
        assert listening.getsockname()[1] in ports


def test_an_answer_that_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_connections, "_ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(open_connections, "_DONE", -1)  # as if the end of the kernel's answer were lost
    with pytest.raises(OSError, match=os.strerror(errno.ETIMEDOUT)) as raised:
        list(open_connections.list_sockets())
    assert raised.value.errno == errno.ETIMEDOUT
