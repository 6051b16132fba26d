"""What first bytes said, as values for the rest of the sensor. All text is checked: names are host names, the rest has a known form."""

from __future__ import annotations

from dataclasses import dataclass

from sensor.events import Endpoint, Payload
from sensor.handshakes.client_hello import Ech, NameState
from sensor.handshakes.dns_answer import DnsAnswer
from sensor.handshakes.http_head import HttpHead


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Whose bytes they were: of which socket and cgroup, towards whom, and when the last of them were seen."""

    cookie: int
    cgroup_id: int
    process: int
    remote: Endpoint | None
    time_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """A TLS ClientHello, over TCP or inside of QUIC. `server_name` is in lower case, and empty unless `name_state` says that it is a host
    name; `alpn` has the protocols in the client's order, `supported_versions` are as TLS numbers them."""

    origin: Origin
    server_name: str
    name_state: NameState
    alpn: tuple[str, ...]
    supported_versions: tuple[int, ...]
    ja4: str
    ech: Ech
    quic: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An HTTP/1 request in clear; one with method CONNECT asks a proxy."""

    origin: Origin
    head: HttpHead


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2:
    """A stream that speaks HTTP/2 in clear. What it asks for is not read."""

    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer of DNS that came to a program; `origin.remote` is who answered."""

    origin: Origin
    answer: DnsAnswer


Seen = Hello | Request | Http2 | Answer


def origin_of(payload: Payload) -> Origin:
    """Whose bytes a payload is."""
    return Origin(
        cookie=payload.cookie, cgroup_id=payload.cgroup_id, process=payload.process, remote=payload.remote, time_ns=payload.time_ns
    )
