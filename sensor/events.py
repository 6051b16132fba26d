"""What the kernel tells, as values: small events of one size, and pieces of what was sent, each in a ring of its own.

The structs are those of `bpf/events.h`, byte by byte; a test holds the two together. Addresses are 16 bytes, IPv4 as mapped IPv6
(RFC 4291 2.5.5.2), since a socket of one family can speak the other. Times are nanoseconds since boot (CLOCK_BOOTTIME).

An event is judged by its cgroup, which a process can't choose, and never by its process id alone: ids are used again, so `started_ns`
stands beside each.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Container, Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, TypeVar

TCP: Final = 6
UDP: Final = 17


class Operation(IntEnum):
    """What happened, and which fields of an Event say more of it. What is not named for an operation is 0."""

    CONNECT = 1
    """A program asked for a connection, or to send a datagram to an address that is new to its socket (cgroup connect and sendmsg hooks):
    `remote` is what it asked for, before any redirection."""
    SENT = 2
    """The first packet of a connection, or of a datagram socket to this address, leaves (cgroup_skb egress, after NAT): `remote` is where
    the packet goes, `asked` what the socket asked for (unspecified when it is not connected). No process is known here, the cgroup is."""
    ESTABLISHED = 3
    """A connection that was asked for stands (sock_ops): `local` and `remote` as the socket has them."""
    ACCEPTED = 4
    """A connection was accepted (sock_ops): `local` and `remote` as the socket has them. The cgroup is the accepting socket's."""
    CLOSED = 5
    """A connection ended (sock_ops): `sent_bytes` and `received_bytes` of its stream."""
    SPECIAL_SOCKET = 6
    """A raw or packet socket was asked for: `family` is the socket's (2, 10, 17), `protocol` its protocol."""
    EXECUTED = 7
    """A process began a program; `other_process` is its parent. The file's name comes as a Payload of its own with the same process."""
    FORKED = 8
    """A process made another one: `process` is the parent, `other_process` the child."""
    EXITED = 9
    """A process has ended (its last thread)."""
    RING_MADE = 10
    """A process asked for io_uring, whose file and network calls no system call hook sees; the cgroup hooks do."""


class Flag(IntFlag):
    """Marks of an Event or a Payload."""

    BLOCKED = 1
    """It was refused by a quarantine."""
    DATAGRAM_HOOK = 2
    """The event is of a sendmsg hook, not of a connect hook."""
    CUT = 4
    """More was sent than the Payload holds."""


NO_FLAG: Final = Flag(0)


class Kind(IntEnum):
    """What a Payload is a piece of."""

    TLS = 1
    """The first bytes of a TCP stream, from the first byte that makes it a TLS handshake record on; a hello may take several pieces."""
    QUIC = 2
    """A UDP datagram that may be a QUIC Initial packet."""
    HTTP = 3
    """The first bytes of a TCP stream that begins with an HTTP method (or the HTTP/2 preface): request line and headers in clear."""
    DNS = 4
    """A DNS answer that came in over UDP."""
    EXECUTED = 5
    """The name of the file that a process executes, as the kernel resolved it."""


# struct event: 152 bytes. u8 operation, family, flags, _; u16 protocol, _; u32 uid; u32 process, other_process; u32 interface;
# u64 time_ns, cookie, cgroup_id, netns_cookie, started_ns, sent_bytes, received_bytes; u8 remote[16], local[16], asked[16];
# u16 remote_port, local_port, asked_port, _; char command[16]
EVENT: Final = struct.Struct("=BBBxHxxIIII7Q16s16s16sHHHxx16s")
# struct payload, which `size` bytes follow: u8 kind, family, flags, _; u32 size; u32 sequence (TCP), process; u64 time_ns, cookie,
# cgroup_id; u8 local[16], remote[16]; u16 local_port, remote_port, protocol, _
PAYLOAD: Final = struct.Struct("=BBBxIII3Q16s16sHHHxx")

# Of an event, what tells whether it is wanted: operation, cookie, cgroup_id, netns_cookie.
_WHOSE: Final = struct.Struct("=B31xQQQ96x")

# RFC 4291 2.5.5.2: what stands before the four bytes of IPv4.
MAPPED: Final = bytes(10) + b"\xff\xff"
_UNSPECIFIED: Final = frozenset({bytes(16), MAPPED + bytes(4)})


_Named = TypeVar("_Named", Operation, Kind)


class EventError(ValueError):
    """Bytes that are no event: the BPF programs and this reader are not of one version."""

    code = "EventUnreadable"


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """An address, IPv4 as itself however the socket spelt it, and a port."""

    ip: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        return f"{self.ip}:{self.port}" if self.ip.version == 4 else f"[{self.ip}]:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One small event. `process` is the thread group's id in the first pid namespace, 0 where no process is known."""

    operation: Operation
    time_ns: int
    flags: Flag = NO_FLAG
    family: int = 0
    protocol: int = 0
    cookie: int = 0
    cgroup_id: int = 0
    netns_cookie: int = 0
    process: int = 0
    started_ns: int = 0
    other_process: int = 0
    uid: int = 0
    command: str = ""
    interface: int = 0
    remote: Endpoint | None = None
    local: Endpoint | None = None
    asked: Endpoint | None = None
    sent_bytes: int = 0
    received_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A piece of what was sent. `sequence` is TCP's number of its first byte, so that pieces can be put in order."""

    kind: Kind
    time_ns: int
    data: bytes
    flags: Flag = NO_FLAG
    protocol: int = 0
    cookie: int = 0
    cgroup_id: int = 0
    sequence: int = 0
    process: int = 0
    local: Endpoint | None = None
    remote: Endpoint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events are worth reading: those of these operations, cgroups, network namespaces or sockets, and all others of a socket that
    one of them named. Reading one takes 10 µs, passing it over 0.2 µs; a busy machine has 100,000 a second, most of them nobody's here.
    """

    operations: Container[int] = ()
    cgroups: Container[int] = ()
    namespaces: Container[int] = ()
    cookies: Container[object] = ()


def read_events(region: bytes | memoryview, wanted: Wanted | None = None, *, head_bytes: int = 0) -> Iterator[Event]:
    """The events that lie one after the other in `region`, each behind `head_bytes` that are not its own; None: all are wanted.

    Raises EventError.
    """
    if len(region) % (head_bytes + EVENT.size):
        raise EventError(f"expected events of {EVENT.size} bytes each, got {len(region)} bytes: build the BPF programs anew")
    for row in _behind(EVENT, head_bytes).iter_unpack(region) if wanted is None else _rows(region, wanted, head_bytes):
        (operation, family, flags, protocol, uid, process, other_process, interface, time_ns, cookie, cgroup_id) = row[:11]
        (netns_cookie, started_ns, sent_bytes, received_bytes, remote, local, asked, remote_port, local_port, asked_port, command) = row[
            11:
        ]
        yield Event(
            operation=_known(Operation, operation),
            time_ns=time_ns,
            flags=Flag(flags),
            family=family,
            protocol=protocol,
            cookie=cookie,
            cgroup_id=cgroup_id,
            netns_cookie=netns_cookie,
            process=process,
            started_ns=started_ns,
            other_process=other_process,
            uid=uid,
            command=command.split(b"\0", 1)[0].decode("utf-8", "replace"),
            interface=interface,
            remote=endpoint(remote, remote_port),
            local=endpoint(local, local_port),
            asked=endpoint(asked, asked_port),
            sent_bytes=sent_bytes,
            received_bytes=received_bytes,
        )


@functools.cache
def _behind(fields: struct.Struct, head_bytes: int) -> struct.Struct:
    """The same behind a head; all of them are `=`, so that nothing is aligned anew."""
    return struct.Struct(f"={head_bytes}x{fields.format.removeprefix('=')}")


def _rows(region: bytes | memoryview, wanted: Wanted, head_bytes: int) -> Iterator[tuple[Any, ...]]:
    operations, cgroups, namespaces, cookies = wanted.operations, wanted.cgroups, wanted.namespaces, wanted.cookies
    named: set[int] = set()
    step = head_bytes + EVENT.size
    for place, (operation, cookie, cgroup_id, netns_cookie) in enumerate(_behind(_WHOSE, head_bytes).iter_unpack(region)):
        if cgroup_id in cgroups or netns_cookie in namespaces or cookie in cookies or cookie in named:
            if cookie:
                named.add(cookie)
            yield EVENT.unpack_from(region, place * step + head_bytes)
        elif operation in operations:
            yield EVENT.unpack_from(region, place * step + head_bytes)


def read_payload(record: bytes | memoryview) -> Payload:
    """The payload that `record` is. Raises EventError."""
    if len(record) < PAYLOAD.size:
        raise EventError(f"expected a payload of {PAYLOAD.size} bytes or more, got {len(record)}: build the BPF programs anew")
    (kind, _, flags, size, sequence, process, time_ns, cookie, cgroup_id, local, remote, local_port, remote_port, protocol) = (
        PAYLOAD.unpack_from(record)
    )
    data = bytes(record[PAYLOAD.size : PAYLOAD.size + size])
    if len(data) != size:
        raise EventError(f"expected {size} bytes after the payload's head, got {len(data)}: build the BPF programs anew")
    return Payload(
        kind=_known(Kind, kind),
        time_ns=time_ns,
        data=data,
        flags=Flag(flags),
        protocol=protocol,
        cookie=cookie,
        cgroup_id=cgroup_id,
        sequence=sequence,
        process=process,
        local=endpoint(local, local_port),
        remote=endpoint(remote, remote_port),
    )


def endpoint(address: bytes, port: int) -> Endpoint | None:
    """What 16 bytes and a port name; None for the unspecified address, which names nothing."""
    if address in _UNSPECIFIED:
        return None
    if address.startswith(MAPPED):
        return Endpoint(IPv4Address(address[12:]), port)
    return Endpoint(IPv6Address(address), port)


def _known(kind: type[_Named], number: int) -> _Named:
    try:
        return kind(number)
    except ValueError as error:
        raise EventError(f"expected a number that {kind.__name__} names, got {number}: build the BPF programs anew") from error
