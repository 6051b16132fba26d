"""What the gate tells its authz process beside the resources, and what that reports (`hopgate.children` has the rest).

The gate owns the namespaces and the Envoys, so it knows which workload credentials are alive, where inbound gates
listen and what outside names resolve to. A workload credential travels as its SHA-256 only.
"""

from __future__ import annotations

import hashlib

import msgspec

from hopgate import children
from hopgate.children import Applied, Failed, GateState, Ready, ReportRequest
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


class State(GateState, frozen=True, kw_only=True, tag="state", forbid_unknown_fields=True):
    """All that is alive at the gate."""

    workloads: tuple[Workload, ...] = ()
    gates: tuple[InboundGate, ...] = ()
    hosts: tuple[Resolution, ...] = ()
    mesh: MeshPeers | None = None


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


def decode_from_gate(line: bytes) -> FromGate:
    """A line that the gate wrote. Raises hopgate.children.MessageError."""
    message: FromGate = children.decode(_from_gate, line, "the gate")
    return message


def decode_from_authz(line: bytes) -> FromAuthz:
    """A line that the authz process wrote. Raises hopgate.children.MessageError."""
    message: FromAuthz = children.decode(_from_authz, line, "the authz process")
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
