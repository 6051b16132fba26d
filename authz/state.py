"""What the gate tells its authz process beside the resources, as values and as JSON lines.

The gate owns the namespaces and the Envoys, so it knows which workload credentials are alive, where inbound gates
listen and what outside names resolve to. Each message is the whole state: losing one loses nothing. A workload
credential travels as its SHA-256 only.
"""

from __future__ import annotations

import hashlib

import msgspec

from hopgate.identity import names
from hopgate.resources.kinds import DialAddress
from hopgate.snapshot import ResolvedHost, Upstreams


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's running gate: the hash of its workload credential (hex SHA-256) and the agent's `namespace/name`."""

    credential_sha256: str
    agent: str


class InboundGate(msgspec.Struct, frozen=True, kw_only=True):
    """Where an agent's inbound gate listens."""

    agent: str
    ip: str
    port: int


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """What an outside name resolved to, and when (Unix seconds)."""

    host: str
    addresses: tuple[str, ...]
    resolved_at: int


class MeshPeers(msgspec.Struct, frozen=True, kw_only=True):
    """Whose peers are believed: the hash of the credential of the mesh's Envoys, and the trust domains."""

    credential_sha256: str
    trust_domains: tuple[str, ...]


class State(msgspec.Struct, frozen=True, kw_only=True, tag="state", forbid_unknown_fields=True):
    """All that is alive at the gate. `sequence` rises by one with each message and is acknowledged by `Applied`."""

    sequence: int
    workloads: tuple[Workload, ...] = ()
    gates: tuple[InboundGate, ...] = ()
    hosts: tuple[Resolution, ...] = ()
    mesh: MeshPeers | None = None


class ReportRequest(msgspec.Struct, frozen=True, kw_only=True, tag="report", forbid_unknown_fields=True):
    """Asks for one `Report`."""


class Applied(msgspec.Struct, frozen=True, kw_only=True, tag="applied"):
    """The state of this sequence number is in force."""

    sequence: int


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The process can take the gate's state; it answers checks once the first one is in force."""


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The process can't start: what is wrong, in lines for a person."""

    messages: tuple[str, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True, tag="report"):
    """How the process is: its snapshot, what stands against a newer one, and its counters."""

    snapshot_digest: str
    snapshot_loaded_at: int
    mistakes: tuple[str, ...]
    counters: dict[str, int]


FromGate = State | ReportRequest
FromAuthz = Applied | Ready | Failed | Report

_from_gate = msgspec.json.Decoder(FromGate)
_from_authz = msgspec.json.Decoder(FromAuthz)


class StateError(ValueError):
    """A line between gate and authz that is not one of the messages above."""


def encode(message: FromGate | FromAuthz) -> bytes:
    """One message as one line."""
    return msgspec.json.encode(message) + b"\n"


def decode_from_gate(line: bytes) -> FromGate:
    """A line that the gate wrote. Raises StateError."""
    try:
        message: FromGate = _from_gate.decode(line)
    except msgspec.MsgspecError as error:
        raise StateError(f"expected a message of the gate, got something else: {error}") from error
    return message


def decode_from_authz(line: bytes) -> FromAuthz:
    """A line that the authz process wrote. Raises StateError."""
    try:
        message: FromAuthz = _from_authz.decode(line)
    except msgspec.MsgspecError as error:
        raise StateError(f"expected a message of the authz process, got something else: {error}") from error
    return message


def credential_sha256(credential: str) -> str:
    """The hash by which a workload credential is known outside its own Envoy."""
    return hashlib.sha256(credential.encode()).hexdigest()


def upstreams(state: State) -> Upstreams:
    """The part of a state that decisions read. Raises hopgate.identity.errors.InvalidNameError."""
    return Upstreams(
        hosts={item.host: ResolvedHost(addresses=item.addresses, resolved_at=item.resolved_at) for item in state.hosts},
        gates={names.parse(item.agent): DialAddress(ip=item.ip, port=item.port) for item in state.gates},
    )
