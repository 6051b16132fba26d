"""What is seen and what is stopped on this node, as a table for who signs off the risk. Pure: it judges what the probes found.

A cell is what was tried, never what a version promises. What no probe can show is a row of its own kind, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Answer(StrEnum):
    """One cell."""

    YES = "yes"
    PART = "in part"
    NO = "no"
    ABSENT = "not there"
    """The kernel has not got it, so nobody can use it."""
    UNKNOWN = "not known"
    """It could not be tried."""


class Outcome(StrEnum):
    """How a way went that was tried."""

    DONE = "done"
    REFUSED = "refused"
    ABSENT = "absent"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One way, tried once. `seen`: what the kernel's programs told of it; `why` it did not go through."""

    outcome: Outcome
    why: str = ""
    seen: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What was tried: freely, in quarantine, and as a governed program. None: could not be, and why."""

    free: Mapping[str, Tried] | None
    quarantined: Mapping[str, Tried] | None
    governed: Mapping[str, Tried] | None
    not_free: str = ""
    not_quarantined: str = ""
    not_governed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. `expected`: the sensor is made to see it, and where it does not, that is a fault."""

    key: str
    way: str
    seen: Answer
    how: str
    quarantine: Answer
    gate: Answer
    why: str
    expected: bool = False

    @property
    def fault(self) -> bool:
        """Whether something is not as it should be, or could not be tried."""
        return self.expected and self.seen in {Answer.NO, Answer.UNKNOWN}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """`needs`: what must have been told for `yes`; with `event` alone it is `in part`, as it always is where there is a `limit`."""

    key: str
    title: str
    how: str = ""
    needs: frozenset[str] = field(default=frozenset({"event"}))
    limit: str = ""
    expected: bool = True
    why_not: str = ""


_EVENT: Final = "event"

_WAYS: Final = (
    _Way(key="tcp4", title="TCP over IPv4", how="connect hook, first packet"),
    _Way(key="tcp6", title="TCP over IPv6", how="connect hook, first packet"),
    _Way(key="udp4", title="UDP over IPv4", how="sendmsg hook, first packet"),
    _Way(key="udp6", title="UDP over IPv6", how="sendmsg hook, first packet"),
    _Way(key="tls", title="TLS: the server's name", how="first bytes of the stream", needs=frozenset({_EVENT, "name"})),
    _Way(
        key="ech",
        title="TLS with Encrypted Client Hello",
        how="first bytes, marked ECH",
        needs=frozenset({_EVENT, "ech"}),
        limit="only the outer name can be read; the true one is encrypted",
    ),
    _Way(key="quic", title="QUIC: the server's name", how="first datagram, opened", needs=frozenset({_EVENT, "name"})),
    _Way(key="dns_udp", title="DNS over UDP, names and answers", how="answers from port 53", needs=frozenset({_EVENT, "name"})),
    _Way(key="dns_tcp", title="DNS over TCP", how="connect hook", limit="the connection is seen, its names are not read"),
    _Way(key="fast_open", title="TCP Fast Open", how="connect hook"),
    _Way(key="mptcp", title="Multipath TCP", how="connect hook"),
    _Way(key="sctp", title="SCTP", expected=False, why_not="no hook of the sensor is made for it"),
    _Way(key="io_uring", title="connect through io_uring", how="connect hook"),
    _Way(key="raw4", title="raw sockets, IPv4", how="socket hook", limit="the socket is told, not each packet's purpose"),
    _Way(key="raw6", title="raw sockets, IPv6", how="socket hook", limit="the socket is told, not each packet's purpose"),
    _Way(key="packet", title="packet sockets", how="system call", limit="the socket is told; its packets pass all hooks unseen"),
    _Way(key="ping", title="ICMP sockets", how="first packet", expected=False, why_not="no hook told of it"),
    _Way(key="vsock", title="sockets between virtual machines", expected=False, why_not="they are no IP; no hook of the sensor sees them"),
    _Way(key="unix", title="Unix sockets", expected=False, why_not="they stay on this machine; no hook of the sensor sees them"),
    _Way(key="handed_over", title="a socket made in another cgroup", how="connect hook, by who connects"),
    _Way(
        key="gone_at_once",
        title="a program that ends as it connects",
        how="connect hook",
        limit="cgroup and process are told; /proc may be gone before program and variables are read",
    ),
    _Way(
        key="standing",
        title="connections from before the sensor",
        how="sock_diag",
        needs=frozenset({"listed"}),
        limit="by socket; first bytes are past",
    ),
    _Way(key="own_network", title="programs in this process's own network", how="connect hook at the root cgroup"),
    _Way(
        key="root_cgroup", title="programs in the root cgroup", how="connect hook", limit="told by process only: the cgroup is everybody's"
    ),
)

# What no probe can show, since what is to be seen is hidden on purpose or has no mark.
_UNPROVABLE: Final = (
    (
        "static_tls",
        "statically linked TLS libraries",
        "the hello is seen as any; which library made it is read from mapped files, and it maps none",
    ),
    ("encrypted_dns", "names asked over TLS or HTTPS", "the connection is seen, the question is encrypted"),
    ("late_hello", "TLS that begins later (STARTTLS)", "only a stream's first bytes are read, and what follows CONNECT"),
    ("content", "what is said inside of TLS", "never read; the gate alone opens what it was given a certificate for"),
)


def rows(probed: Probed) -> tuple[Row, ...]:
    """The table."""
    made = [_row(way, probed) for way in _WAYS]
    made += [
        Row(
            key=key,
            way=title,
            seen=Answer.NO,
            how="no probe can show it",
            quarantine=Answer.UNKNOWN,
            gate=Answer.UNKNOWN,
            why=why,
        )
        for key, title, why in _UNPROVABLE
    ]
    return tuple(made)


def summary(table: tuple[Row, ...]) -> str:
    """One line."""
    count = {answer: sum(row.seen is answer for row in table) for answer in Answer}
    told = [f"{count[Answer.YES]} seen", f"{count[Answer.PART]} in part", f"{count[Answer.NO]} not"]
    if count[Answer.ABSENT]:
        told.append(f"{count[Answer.ABSENT]} not in this kernel")
    if count[Answer.UNKNOWN]:
        told.append(f"{count[Answer.UNKNOWN]} not known")
    return ", ".join(told)


def _row(way: _Way, probed: Probed) -> Row:
    free = probed.free.get(way.key) if probed.free is not None else None
    reasons: list[str] = []
    if free is None:
        seen = Answer.UNKNOWN
        reasons.append(probed.not_free or "it was not tried")
    elif free.outcome is Outcome.ABSENT:
        return Row(
            key=way.key,
            way=way.title,
            seen=Answer.ABSENT,
            how="",
            quarantine=Answer.ABSENT,
            gate=Answer.ABSENT,
            why=free.why,
            expected=False,
        )
    elif free.outcome is not Outcome.DONE:
        seen = Answer.UNKNOWN
        reasons.append(f"the probe did not go through: {free.why}")
    elif way.needs <= free.seen:
        seen = Answer.PART if way.limit else Answer.YES
        reasons += [way.limit] if way.limit else []
    elif _EVENT in free.seen:
        seen = Answer.PART
        reasons.append(f"not told: {', '.join(sorted(way.needs - free.seen))}")
    else:
        seen = Answer.NO
        reasons.append(way.why_not or "the hook did not tell of it")
    standing_ended = way.key == "standing" and free is not None and "ended" in free.seen
    quarantine = Answer.YES if standing_ended else _stopped(way, probed.quarantined)
    gate = _governed(way, probed.governed)
    if quarantine is Answer.NO and way.key != "unix":
        reasons.append("quarantine does not stop it")
    return Row(
        key=way.key,
        way=way.title,
        seen=seen,
        how=way.how if seen in {Answer.YES, Answer.PART} else "",
        quarantine=quarantine,
        gate=gate,
        why="; ".join(reasons),
        expected=way.expected,
    )


def _stopped(way: _Way, tried: Mapping[str, Tried] | None) -> Answer:
    """Whether a program in quarantine was refused it."""
    found = tried.get(way.key) if tried is not None else None
    if found is None:
        return Answer.UNKNOWN
    if found.outcome is Outcome.REFUSED:
        return Answer.YES
    return Answer.NO if found.outcome is Outcome.DONE else Answer.UNKNOWN


def _governed(way: _Way, tried: Mapping[str, Tried] | None) -> Answer:
    """Refused, or absent by the filter, is `yes`. What goes through is held in a namespace: `in part`."""
    found = tried.get(way.key) if tried is not None else None
    if found is None:
        return Answer.UNKNOWN
    if found.outcome in {Outcome.REFUSED, Outcome.ABSENT}:
        return Answer.YES
    return Answer.PART if found.outcome is Outcome.DONE else Answer.UNKNOWN
