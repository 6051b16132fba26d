"""What a gate tells its sensor, and what that reports (`hopgate.children` has the rest).

The gate makes the agents' network namespaces and cgroups, and knows where its Envoys and resolvers listen inside them; the sensor asks
nobody else whose a connection is.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

import msgspec

from hopgate import children
from hopgate.children import Applied, Failed, GateState, Ready, ReportRequest
from sensor.events import Endpoint
from sensor.quarantine import Destination
from sensor.verdict import Governance, Governed, Listener


class GateListener(msgspec.Struct, frozen=True, kw_only=True):
    """Where a gate listens inside an agent's namespace. `protocol` is IP's; `cgroup_id` is 0 where the acceptor has none of its own."""

    protocol: int
    ip: str
    port: int
    cgroup_id: int


class GovernedAgent(msgspec.Struct, frozen=True, kw_only=True):
    """A running agent, `namespace/name`. `cgroup_id` is 0 when none could be made for it; `quarantine`: it is to be cut off."""

    agent: str
    cgroup_id: int
    netns_cookie: int
    listeners: tuple[GateListener, ...]
    quarantine: bool = False


class State(GateState, frozen=True, kw_only=True, tag="state", forbid_unknown_fields=True):
    """All governed agents of the gate; the cgroups and processes that are the gate's own."""

    agents: tuple[GovernedAgent, ...] = ()
    gate_cgroups: tuple[int, ...] = ()
    gate_processes: tuple[int, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True, tag="report"):
    """How the sensor is: which loader and why, what it can't see, a sentence each, and its counters.

    `unenforced` says which quarantines are not in force as they are asked for, and why; a sentence each.
    """

    loader: str
    why: str
    unseen: tuple[str, ...]
    counters: dict[str, int]
    unenforced: tuple[str, ...] = ()


FromGate = State | ReportRequest
FromSensor = Applied | Ready | Failed | Report

_from_gate = msgspec.json.Decoder(FromGate)
_from_sensor = msgspec.json.Decoder(FromSensor)


def decode_from_gate(line: bytes) -> FromGate:
    """A line that the gate wrote. Raises hopgate.children.MessageError."""
    message: FromGate = children.decode(_from_gate, line, "the gate")
    return message


def decode_from_sensor(line: bytes) -> FromSensor:
    """A line that the sensor wrote. Raises hopgate.children.MessageError."""
    message: FromSensor = children.decode(_from_sensor, line, "the sensor")
    return message


def reachable(listeners: Iterable[GateListener]) -> frozenset[Destination]:
    """What a quarantined agent may still reach: its gate. Raises ValueError for an address that is none."""
    return frozenset(Destination(Endpoint(ip_address(each.ip), each.port), each.protocol) for each in listeners)


def governance(state: State) -> Governance:
    """The state as verdicts read it. Raises ValueError for a listener's address that is none."""
    return Governance(
        agents=tuple(_governed(agent) for agent in state.agents),
        gate_cgroups=frozenset(state.gate_cgroups),
        gate_processes=frozenset(state.gate_processes),
    )


def _governed(agent: GovernedAgent) -> Governed:
    return Governed(
        agent=agent.agent,
        cgroups=frozenset({agent.cgroup_id} - {0}),
        namespaces=frozenset({agent.netns_cookie} - {0}),
        listeners=tuple(
            Listener(protocol=item.protocol, endpoint=Endpoint(ip_address(item.ip), item.port), cgroup_id=item.cgroup_id)
            for item in agent.listeners
        ),
    )
