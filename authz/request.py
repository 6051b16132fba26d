"""A check request as a value: what Envoy saw, before anything of it is believed.

Names carry trust: whatever the app can write is `unverified_`. Addresses, direction and SNI are Envoy's own words.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Direction(StrEnum):
    """Which way a hop crosses the gate: out of its own agent, into it, or through an Envoy of a mesh, which is nobody's own."""

    OUTBOUND = "Outbound"
    INBOUND = "Inbound"
    MESH = "Mesh"


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketAddress:
    """An IP address (no brackets) and a port."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """The HTTP part. `headers` keeps every occurrence in order, names in lower case, without pseudo-headers.

    `path` is the raw path with query, as the upstream will see it. `body_complete` is false when Envoy cut the body.
    """

    method: str
    scheme: str
    unverified_host: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    body_complete: bool

    def values(self, name: str) -> tuple[str, ...]:
        """Every value of header `name` (lower case)."""
        return tuple(value for key, value in self.headers if key == name)

    def single(self, name: str) -> str | None:
        """The value of a header that occurs once; None when it is absent. Raises ValueError when repeated."""
        found = self.values(name)
        if len(found) > 1:
            raise ValueError(f"header `{name}` occurs {len(found)} times, expected once")
        return found[0] if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckInput:
    """One Check. `http` is None for a network (TCP) check. `sni` is None without TLS, "" for TLS without a name.

    `principal` is whom Envoy verified by a client certificate, and `destination_name` what its own configuration says that it stands
    before, `KIND:NAMESPACE/NAME`; both are empty where there is none.
    """

    request_id: str
    direction: Direction
    source: SocketAddress
    destination: SocketAddress
    sni: str | None
    http: HttpRequest | None
    principal: str = ""
    destination_name: str = ""
