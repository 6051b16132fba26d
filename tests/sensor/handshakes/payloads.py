"""Payloads as the kernel would tell them."""

from __future__ import annotations

from ipaddress import IPv4Address

from sensor.events import NO_FLAG, Endpoint, Flag, Kind, Payload

SERVER = Endpoint(IPv4Address("192.0.2.7"), 443)


def payload(
    kind: Kind,
    data: bytes,
    *,
    sequence: int = 1000,
    cookie: int = 1,
    time_ns: int = 0,
    flags: Flag = NO_FLAG,
    remote: Endpoint = SERVER,
    cgroup_id: int = 7,
) -> Payload:
    return Payload(kind=kind, time_ns=time_ns, data=data, flags=flags, cookie=cookie, cgroup_id=cgroup_id, sequence=sequence, remote=remote)
