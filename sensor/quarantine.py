"""Quarantines as values: who is cut off, since when and why, what he may still reach, and what to do so that it becomes what is wanted.

Pure. `bpf/quarantine.h` has the same structures, byte by byte; a test holds the two together.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Final

from sensor.events import Endpoint, endpoint

# Part of the pins' name: programs of another layout are never taken for these.
LAYOUT: Final = 1
KEY: Final = struct.Struct("=Q")
# since_ns, origin, subject: how a value begins in every layout. Then this layout's counters.
HEAD: Final = struct.Struct("=QI4x128s")
_COUNTERS: Final = struct.Struct("=QQQ")
VALUE_BYTES: Final = HEAD.size + _COUNTERS.size
ALLOWED: Final = struct.Struct("=Q16sHB5x")
_SUBJECT_BYTES: Final = 128
_MAPPED: Final = bytes(10) + b"\xff\xff"


class QuarantineError(Exception):
    """What was asked for can't be done. `code` is stable; `remedy` says what to do."""

    code = "QuarantineRefused"

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class Origin(IntEnum):
    """Who asked for a quarantine: only he ends it, but for a person, who ends any."""

    COMMAND = 1
    RESOURCE = 2


@dataclass(frozen=True, slots=True, order=True)
class Destination:
    """What a quarantined cgroup may still reach. `protocol` is IP's number."""

    endpoint: Endpoint
    protocol: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A cgroup that is to be cut off. `subject` is what people know it by: an agent, a shadow agent, a cgroup's path."""

    cgroup_id: int
    subject: str
    allowed: frozenset[Destination] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """One that is in force. `since_ns` is on the clock of events; the counters are of what was refused since then."""

    cgroup_id: int
    subject: str
    origin: Origin
    since_ns: int
    allowed: frozenset[Destination] = frozenset()
    refused_connections: int = field(default=0, compare=False)
    refused_sockets: int = field(default=0, compare=False)
    dropped_packets: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What makes the actual state the wanted one."""

    begin: tuple[Wanted, ...]
    end: tuple[int, ...]


def plan(wanted: Collection[Wanted], actual: Collection[Quarantine], origin: Origin) -> Plan:
    """What `origin` has to do. Those that another origin began stay, also when they are wanted here; what is wanted twice is wanted once.

    A quarantine that is to allow something else begins anew, over the one that is in force, so that nothing is open in between.
    """
    standing = {each.cgroup_id: each for each in actual}
    asked = {each.cgroup_id: each for each in wanted}
    return Plan(
        begin=tuple(each for each in asked.values() if _differs(each, standing.get(each.cgroup_id), origin)),
        end=tuple(sorted(each.cgroup_id for each in actual if each.origin is origin and each.cgroup_id not in asked)),
    )


def _differs(wanted: Wanted, standing: Quarantine | None, origin: Origin) -> bool:
    if standing is None:
        return True
    return standing.origin is origin and (standing.allowed, standing.subject) != (wanted.allowed, wanted.subject)


def refuse_unsafe(cgroup_id: int, *, root: int, own: Collection[int]) -> None:
    """Raise QuarantineError for a cgroup that must never be cut off. `own` are those of hopgate's processes, with all above them."""
    if cgroup_id == root:
        raise QuarantineError(
            "expected a cgroup of its own, got the root cgroup, which every program of this machine is in",
            remedy="start the program in a cgroup of its own (`hopgate run` and systemd do), or end it; "
            "where controllers are mounted the old way, containers have none",
        )
    if cgroup_id in own:
        raise QuarantineError(
            "expected a cgroup without hopgate in it, got one that a process of hopgate is in, or that stands above it",
            remedy="name the cgroup that only the agent is in",
        )


def pack_value(subject: str, origin: Origin, since_ns: int) -> bytes:
    """A value of the map, with nothing counted yet. A longer name is cut."""
    name = subject.encode()[: _SUBJECT_BYTES - 1].decode("utf-8", "ignore").encode()
    return HEAD.pack(since_ns, origin, name) + bytes(_COUNTERS.size)


def read_value(cgroup_id: int, value: bytes, allowed: frozenset[Destination]) -> Quarantine:
    """A value of the map, of this layout or, without what was counted, of another one. Raises QuarantineError."""
    try:
        since_ns, origin, name = HEAD.unpack_from(value)
        counted = _COUNTERS.unpack_from(value, HEAD.size) if len(value) == VALUE_BYTES else (0, 0, 0)
        return Quarantine(
            cgroup_id=cgroup_id,
            subject=name.split(b"\0", 1)[0].decode("utf-8", "replace"),
            origin=Origin(origin),
            since_ns=since_ns,
            allowed=allowed,
            refused_connections=counted[0],
            refused_sockets=counted[1],
            dropped_packets=counted[2],
        )
    except (struct.error, ValueError) as error:
        raise QuarantineError(
            f"the quarantine of cgroup {cgroup_id} can't be read: {error}", remedy="use the version of hopgate that made it"
        ) from error


def pack_allowed(cgroup_id: int, destination: Destination) -> bytes:
    """A key of the map of what is allowed: IPv4 as mapped IPv6, as the programs ask."""
    ip = destination.endpoint.ip
    address = _MAPPED + ip.packed if isinstance(ip, IPv4Address) else ip.packed
    return ALLOWED.pack(cgroup_id, address, destination.endpoint.port, destination.protocol)


def read_allowed(key: bytes) -> tuple[int, Destination | None]:
    """The cgroup that a key of that map is of, and what it lets it reach; None for the unspecified address."""
    cgroup_id, address, port, protocol = ALLOWED.unpack(key)
    reached = endpoint(address, port)
    return cgroup_id, None if reached is None else Destination(reached, protocol)
