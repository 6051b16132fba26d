"""The TCP connections that stand when the sensor begins, in every network namespace, by sock_diag.

The kernel's answers are read with `struct`: 5,000 sockets take 18 ms this way and 310 ms through a netlink library, all of it before the
first event is looked at. Numbers are those of linux/inet_diag.h and linux/sock_diag.h unless one says otherwise.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hopgate import kernel
from sensor.connections import OpenSocket
from sensor.events import MAPPED, TCP, Endpoint, endpoint

_NETLINK_SOCK_DIAG: Final = 4  # linux/netlink.h, as the next ones
_REQUEST_DUMP: Final = 0x1 | 0x300
_ERROR, _DONE = 2, 3
_REQUEST_CONFIRMED: Final = 0x1 | 0x4
_SOCK_DIAG_BY_FAMILY: Final = 20
_SOCK_DESTROY: Final = 21
_CGROUP_ID: Final = 21
_BUFFER_BYTES: Final = 1 << 18
_ANSWER_SECONDS: Final = 5.0
# net/tcp_states.h: all but those of nobody's sockets (time-wait, request) and CLOSE
_LISTEN: Final = 10
_STATES: Final = sum(1 << state for state in (1, 2, 4, 5, 8, 9, 11, _LISTEN))
_HEADER: Final = struct.Struct("=IHHII")
# family, protocol, extensions, padding, states; then an address of 48 bytes, empty
_REQUEST: Final = struct.Struct("=BBBxI48x")
_DESTROYED: Final = struct.Struct("=BBBxI48s")
# family, state, timer, retransmissions; ports (network order), addresses, interface, cookie; expires, queues, uid, inode
_ANSWER: Final = struct.Struct("=BBBB2s2s16s16sIQ5I")
_IDENTITY: Final = slice(4, 52)
_ATTRIBUTE: Final = struct.Struct("=HH")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedSocket:
    """One socket of a namespace, as the kernel lists it. `remote` is where it asked to go: the rules that turn packets don't show here."""

    state: int
    cookie: int
    cgroup_id: int
    uid: int
    inode: int = 0
    local: Endpoint | None
    local_port: int
    remote: Endpoint | None
    family: int = 0
    identity: bytes = b""
    """Ports, addresses, interface and cookie, as the kernel wants to be told them when the socket is meant."""


class ListingError(Exception):
    """The kernel does not list the sockets of this namespace."""

    code = "SocketsUnlisted"


def find(now_ns: int, processes: Path = Path("/proc")) -> list[OpenSocket]:
    """The connections that programs of this machine have made and not ended, in whatever network namespace a process is.

    A namespace that ends meanwhile has none. Raises ListingError when no namespace could be listed.
    """
    found: list[OpenSocket] = []
    failed: OSError | None = None
    listed = 0
    for namespace in namespaces(processes):
        try:
            cookie, sockets = kernel.within(namespace, lambda: (kernel.netns_cookie(), list(list_sockets())))
        except FileNotFoundError:
            continue
        except OSError as error:
            failed = error
            continue
        listed += 1
        found += connections(sockets, cookie, now_ns)
    if not listed and failed is not None:
        raise ListingError(f"the kernel does not list the open sockets: {failed.strerror}") from failed
    return found


def namespaces(processes: Path) -> list[Path]:
    """A path for each network namespace that a process is in."""
    found: dict[int, Path] = {}
    for process in processes.iterdir():
        if process.name.isdigit():
            path = process / "ns" / "net"
            with contextlib.suppress(OSError):  # it has ended
                found.setdefault(path.stat().st_ino, path)
    return list(found.values())


def connections(sockets: Iterable[ListedSocket], netns_cookie: int, now_ns: int) -> list[OpenSocket]:
    """Those sockets of one namespace that asked for a connection, each with its other end where that is in the namespace too.

    A socket that was accepted has the port of one that listens. The other end of a connection that the rules turned to the gate is
    found by the asking side's port, which they leave as it is.
    """
    listed = list(sockets)
    listening = {found.local_port for found in listed if found.state == _LISTEN}
    accepted = {found.remote: found for found in listed if found.state != _LISTEN and found.local_port in listening}
    made = []
    for found in listed:
        if found.state == _LISTEN or found.local_port in listening:
            continue
        opened = OpenSocket(
            cookie=found.cookie,
            protocol=TCP,
            cgroup_id=found.cgroup_id,
            netns_cookie=netns_cookie,
            uid=found.uid,
            inode=found.inode,
            seen_ns=now_ns,
            local=found.local,
            remote=found.remote,
        )
        other = accepted.get(found.local)
        made.append(opened if other is None else replace(opened, accepted_at=other.local, accepted_by=other.cgroup_id))
    return made


def parse(data: bytes) -> Iterator[ListedSocket | None]:
    """The sockets in one packet of the kernel's answer; None behind the last one. Raises OSError with the kernel's own number.

    A length that can't be ends the packet: nothing behind it is read.
    """
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if kind in (_DONE, _ERROR):
            # A list that could not be made ends with the reason, too.
            number = _reason(data, at + _HEADER.size, at + length)
            if kind == _ERROR or number:
                raise OSError(number, os.strerror(number))
            yield None
            return
        if length < _HEADER.size or at + length > len(data):
            return
        if kind == _SOCK_DIAG_BY_FAMILY and length >= _HEADER.size + _ANSWER.size:
            yield _listed(data[at + _HEADER.size : at + length])
        at += length + 3 & ~3


def _reason(data: bytes, begin: int, end: int) -> int:
    """The error's number behind a header; 0 where there is none."""
    return max(0, -struct.unpack_from("=i", data, begin)[0]) if begin + 4 <= min(end, len(data)) else 0


def _listed(answer: bytes) -> ListedSocket:
    family, state, _, _, source, target, from_, to, _, cookie, _, _, _, uid, inode = _ANSWER.unpack_from(answer)
    port = int.from_bytes(source, "big")
    return ListedSocket(
        state=state,
        cookie=cookie,
        cgroup_id=_cgroup_id(answer[_ANSWER.size :]),
        uid=uid,
        inode=inode,
        local=endpoint(_address(family, from_), port),
        local_port=port,
        remote=endpoint(_address(family, to), int.from_bytes(target, "big")),
        family=family,
        identity=answer[_IDENTITY],
    )


def _address(family: int, raw: bytes) -> bytes:
    return MAPPED + raw[:4] if family == socket.AF_INET else raw


def _cgroup_id(attributes: bytes) -> int:
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if length < _ATTRIBUTE.size:
            break
        if kind == _CGROUP_ID and length >= _ATTRIBUTE.size + 8 and at + length <= len(attributes):
            return int(struct.unpack_from("=Q", attributes, at + _ATTRIBUTE.size)[0])
        at += length + 3 & ~3
    return 0


def list_sockets(protocol: int = TCP) -> Iterator[ListedSocket]:
    """The sockets of the calling thread's network namespace, both families.

    Raises OSError: EPROTONOSUPPORT where the kernel has no list of that protocol's (CONFIG_INET_DIAG).
    """
    with _asking() as asked:
        for family in (socket.AF_INET, socket.AF_INET6):
            request = _REQUEST.pack(family, protocol, 0, _STATES)
            asked.send(_HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 0, 0) + request)
            try:
                yield from _answer(asked)
            except FileNotFoundError as error:
                # As a namespace's file that is gone would be, which is no failure.
                raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT)) from error


def destroy(found: ListedSocket, protocol: int) -> bool:
    """End a connection of the calling thread's network namespace at once, as if it had failed. False when it was gone by itself.

    Raises OSError: EOPNOTSUPP where the kernel can't (CONFIG_INET_DIAG_DESTROY).
    """
    request = _DESTROYED.pack(found.family, protocol, 0, 1 << found.state, found.identity)
    with _asking() as asked:
        asked.send(_HEADER.pack(_HEADER.size + len(request), _SOCK_DESTROY, _REQUEST_CONFIRMED, 0, 0) + request)
        try:
            for _ in parse(_receive(asked)):
                pass
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno:
                raise
    return True


def _asking() -> socket.socket:
    """A socket to ask the kernel with, who waits for no answer without an end."""
    asked = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
    asked.settimeout(_ANSWER_SECONDS)
    return asked


def _receive(asked: socket.socket) -> bytes:
    try:
        return asked.recv(_BUFFER_BYTES)
    except TimeoutError as error:
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from error


def _answer(asked: socket.socket) -> Iterator[ListedSocket]:
    while True:
        for found in parse(_receive(asked)):
            if found is None:
                return
            yield found
