"""Through the gate or around it: the verdict on one connection of a governed agent, from what the kernel saw of it. Pure.

Whose a connection is follows from its cgroup, which a process can't choose, and where none could be made for the agent, from its network
namespace. The user id plays no part: a program that runs as the gate's user is not the gate. Only what is certain is `ThroughGate`:
the packet was turned to where the gate listens, in the agent's own namespace, and the gate's own cgroup accepted it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sensor.events import TCP, Endpoint


class Verdict(StrEnum):
    """What can be said of a connection."""

    THROUGH_GATE = "ThroughGate"
    """The gate took it, and decided on what went over it."""
    BYPASS = "Bypass"
    """It went, or may have gone, where the gate does not see it."""
    LOCAL = "Local"
    """Nothing of it left the agent's own network namespace."""
    UNATTRIBUTABLE = "Unattributable"
    """Neither can be said with what was seen."""


class Reason(StrEnum):
    """Why. Each belongs to one verdict (`VERDICTS`) and has a sentence (`SENTENCES`)."""

    ACCEPTED_BY_GATE = "AcceptedByGate"
    ACCEPTED_AT_GATE = "AcceptedAtGate"
    ANSWERED_BY_GATE = "AnsweredByGate"
    NOT_REDIRECTED = "NotRedirected"
    REDIRECTED_ELSEWHERE = "RedirectedElsewhere"
    OTHER_NAMESPACE = "OtherNamespace"
    RAW_SOCKET = "RawSocket"
    PACKET_SOCKET = "PacketSocket"
    ACCEPTED_BY_ANOTHER = "AcceptedByAnother"
    LOOPBACK = "Loopback"
    GATE_PORT = "GatePort"
    NOTHING_SENT = "NothingSent"
    NOT_ACCEPTED = "NotAccepted"
    QUARANTINED = "Quarantined"
    BEGAN_BEFORE = "BeganBefore"
    NOT_CONFIRMED = "NotConfirmed"
    NOT_SEEN = "NotSeen"


VERDICTS: Final[Mapping[Reason, Verdict]] = {
    Reason.ACCEPTED_BY_GATE: Verdict.THROUGH_GATE,
    Reason.ACCEPTED_AT_GATE: Verdict.THROUGH_GATE,
    Reason.ANSWERED_BY_GATE: Verdict.THROUGH_GATE,
    Reason.NOT_REDIRECTED: Verdict.BYPASS,
    Reason.REDIRECTED_ELSEWHERE: Verdict.BYPASS,
    Reason.OTHER_NAMESPACE: Verdict.BYPASS,
    Reason.RAW_SOCKET: Verdict.BYPASS,
    Reason.PACKET_SOCKET: Verdict.BYPASS,
    Reason.ACCEPTED_BY_ANOTHER: Verdict.BYPASS,
    Reason.LOOPBACK: Verdict.LOCAL,
    Reason.GATE_PORT: Verdict.LOCAL,
    Reason.NOTHING_SENT: Verdict.LOCAL,
    Reason.NOT_ACCEPTED: Verdict.LOCAL,
    Reason.QUARANTINED: Verdict.LOCAL,
    Reason.BEGAN_BEFORE: Verdict.UNATTRIBUTABLE,
    Reason.NOT_CONFIRMED: Verdict.UNATTRIBUTABLE,
    Reason.NOT_SEEN: Verdict.UNATTRIBUTABLE,
}

SENTENCES: Final[Mapping[Reason, str]] = {
    Reason.ACCEPTED_BY_GATE: "the connection was turned to the gate, and the gate accepted it",
    Reason.ACCEPTED_AT_GATE: "the connection was turned to the gate and accepted there; by whose cgroup this kernel or loader does not say",
    Reason.ANSWERED_BY_GATE: "the datagram was turned to the gate's resolver",
    Reason.NOT_REDIRECTED: "the packet went where the program asked, not to the gate",
    Reason.REDIRECTED_ELSEWHERE: "the packet was turned to another place than the gate",
    Reason.OTHER_NAMESPACE: "the program used a network namespace that is not its agent's",
    Reason.RAW_SOCKET: "the program sends over a raw socket, whose packets no gate understands",
    Reason.PACKET_SOCKET: "the program asked for a packet socket, whose packets no rule turns to the gate",
    Reason.ACCEPTED_BY_ANOTHER: "a program that is neither the agent's nor the gate's accepted it inside the agent's namespace",
    Reason.LOOPBACK: "it stayed on the agent's own loopback",
    Reason.GATE_PORT: "the program asked for the gate's own port, which leads nowhere",
    Reason.NOTHING_SENT: "no packet of it left: a rule or a missing route refused it",
    Reason.NOT_ACCEPTED: "it was turned to the gate, and nobody accepted it there",
    Reason.QUARANTINED: "a quarantine refused it",
    Reason.BEGAN_BEFORE: "it began before the sensor did, and the gate has no connection that matches it",
    Reason.NOT_CONFIRMED: "it was turned to the gate, but that the gate accepted it was not seen",
    Reason.NOT_SEEN: "events of it were not seen, so where it went is not known",
}


class SpecialSocket(StrEnum):
    """A socket below the transport: no connection, and no destination that the kernel knows of."""

    RAW = "Raw"
    PACKET = "Packet"


class Attribution(StrEnum):
    """By what a connection is known to be its agent's."""

    CGROUP = "Cgroup"
    NAMESPACE = "Namespace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where a gate listens inside its agent's namespace. `cgroup_id` is the cgroup that accepts there, 0 when it is not known."""

    protocol: int
    endpoint: Endpoint
    cgroup_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Governed:
    """A governed agent as the kernel knows it. Without `cgroups` its namespaces alone tell whose a connection is."""

    agent: str
    cgroups: frozenset[int] = frozenset()
    namespaces: frozenset[int] = frozenset()
    listeners: tuple[Listener, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Governance:
    """All governed agents, and what is the gate's own: its cgroups, and its processes for where no cgroup tells them apart."""

    agents: tuple[Governed, ...] = ()
    gate_cgroups: frozenset[int] = frozenset()
    gate_processes: frozenset[int] = frozenset()

    def attribute(self, *, cgroups: frozenset[int], netns_cookie: int, process: int) -> tuple[Governed, Attribution] | None:
        """Whose a connection is: `cgroups` are those of the program that asked and of the socket. None: no governed agent's.

        The program's and the socket's cgroup differ when a socket was handed over; either makes it the agent's.
        """
        for governed in self.agents:
            if governed.cgroups & cgroups:
                return governed, Attribution.CGROUP
        if cgroups & self.gate_cgroups or process in self.gate_processes:
            return None
        for governed in self.agents:
            # An agent with a cgroup is told by that alone. No process: an event of the gate's own sockets can't be told from the agent's.
            if not governed.cgroups and process and netns_cookie in governed.namespaces:
                return governed, Attribution.NAMESPACE
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What is known of one connection, or of one datagram socket and one destination.

    `asked` is where the program wanted to go, `went` where its first packet went; None: not known, or there was none. `loopback`: that
    packet left by the loopback interface. `accepted_by` is the accepting socket's cgroup, None when no acceptance was seen. `whole` is
    false when the kernel had no room for events meanwhile, `from_start` when the connection is older than the sensor.
    """

    protocol: int
    cgroups: frozenset[int]
    netns_cookie: int
    process: int = 0
    asked: Endpoint | None = None
    went: Endpoint | None = None
    loopback: bool = False
    established: bool = False
    accepted_by: int | None = None
    special: SpecialSocket | None = None
    blocked: bool = False
    whole: bool = True
    from_start: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict on a connection of `agent`."""

    agent: str
    attribution: Attribution
    reason: Reason

    @property
    def verdict(self) -> Verdict:
        """What the reason amounts to."""
        return VERDICTS[self.reason]


def judge(connection: Connection, governance: Governance) -> Judgement | None:
    """The verdict. None for a connection that is no governed agent's, the gate's own among them."""
    found = governance.attribute(cgroups=connection.cgroups, netns_cookie=connection.netns_cookie, process=connection.process)
    if found is None:
        return None
    governed, attribution = found
    return Judgement(agent=governed.agent, attribution=attribution, reason=_reason(connection, governed, governance.gate_cgroups))


def _reason(connection: Connection, governed: Governed, gate_cgroups: frozenset[int]) -> Reason:
    if connection.blocked:
        return Reason.QUARANTINED
    if connection.special is not None:
        return Reason.RAW_SOCKET if connection.special is SpecialSocket.RAW else Reason.PACKET_SOCKET
    if _elsewhere(connection, governed) and (connection.went is not None or connection.established):
        return Reason.OTHER_NAMESPACE
    if connection.went is None:
        return _without_packet(connection)
    if connection.asked is None:
        # A TCP socket always has a destination when it sends; of datagrams the event that names it was lost.
        return Reason.RAW_SOCKET if connection.protocol == TCP else Reason.NOT_SEEN
    for listener in governed.listeners:
        if (listener.protocol, listener.endpoint) == (connection.protocol, connection.went):
            return _at_gate(connection, governed, listener)
    if connection.loopback or connection.went.ip.is_loopback:
        return _on_loopback(connection, governed, gate_cgroups)
    return Reason.NOT_REDIRECTED if connection.went == connection.asked else Reason.REDIRECTED_ELSEWHERE


def _elsewhere(connection: Connection, governed: Governed) -> bool:
    """Whether it is of another namespace than the agent's. 0: the kernel did not say which."""
    return bool(connection.netns_cookie and governed.namespaces) and connection.netns_cookie not in governed.namespaces


def _without_packet(connection: Connection) -> Reason:
    """No packet of it was seen: none was there, or it was not seen."""
    if not connection.from_start:
        own = connection.asked is not None and connection.asked.ip.is_loopback
        return Reason.LOOPBACK if own else Reason.BEGAN_BEFORE
    return Reason.NOT_SEEN if connection.established or not connection.whole else Reason.NOTHING_SENT


def _at_gate(connection: Connection, governed: Governed, listener: Listener) -> Reason:
    """Its packet went to where the gate listens; that alone is not yet the gate."""
    if connection.asked == connection.went:
        return Reason.GATE_PORT
    if connection.protocol != TCP:
        return Reason.ANSWERED_BY_GATE
    if connection.accepted_by is None:
        return Reason.NOT_CONFIRMED if connection.established or not connection.whole else Reason.NOT_ACCEPTED
    if connection.accepted_by in governed.cgroups:
        return Reason.LOOPBACK
    if 0 in (listener.cgroup_id, connection.accepted_by):
        return Reason.ACCEPTED_AT_GATE
    return Reason.ACCEPTED_BY_GATE if listener.cgroup_id == connection.accepted_by else Reason.ACCEPTED_BY_ANOTHER


def _on_loopback(connection: Connection, governed: Governed, gate_cgroups: frozenset[int]) -> Reason:
    """Who listens on the agent's loopback is the agent itself, or the gate; anybody else there could lead it on."""
    own = not connection.accepted_by or not governed.cgroups or connection.accepted_by in governed.cgroups | gate_cgroups
    return Reason.LOOPBACK if own else Reason.ACCEPTED_BY_ANOTHER
