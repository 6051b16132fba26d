"""From a judged connection to the `flows` record. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from hopgate.audit.records import Flow
from sensor.connections import Seen
from sensor.events import TCP, UDP, Endpoint
from sensor.verdict import SENTENCES, Judgement, SpecialSocket

_PROTOCOLS: Final = {TCP: "TCP", UDP: "UDP"}


class Phase(StrEnum):
    """Where a connection is in its life when it is told of."""

    BEGUN = "Begun"
    ENDED = "Ended"


def identify(boot: str, key: object, place: object) -> str:
    """A connection's id: `key` is its socket's cookie, which the kernel gives once a boot, `place` which of its connections it is."""
    return hashlib.sha256(f"{boot} {key} {place}".encode()).hexdigest()[:32]


def flow(identifier: str, seen: Seen, judged: Judgement, phase: Phase, *, name: str, now_ns: int, wall_ns: Callable[[int], int]) -> Flow:
    """The record. `now_ns` is the kernel's clock, `wall_ns` turns its times into Unix ones."""
    ended = seen.closed if phase is Phase.ENDED else None
    return Flow(
        id=identifier,
        time=wall_ns(seen.began_ns) // 1000,
        phase=phase.value,
        agent=judged.agent,
        attribution=judged.attribution.value,
        verdict=judged.verdict.value,
        reason=judged.reason.value,
        message=SENTENCES[judged.reason],
        protocol=_protocol(seen),
        source=_text(seen.local),
        destination=_text(seen.connection.asked),
        went=_text(seen.connection.went),
        name=name,
        program=seen.program.command if seen.program is not None else "",
        pid=seen.connection.process,
        user=seen.uid,
        cgroup=seen.cgroup_id,
        namespace=seen.connection.netns_cookie,
        from_start=seen.connection.from_start,
        duration_us=max(0, (ended.time_ns if ended is not None else now_ns) - seen.began_ns) // 1000,
        sent_bytes=ended.sent_bytes if ended is not None else 0,
        received_bytes=ended.received_bytes if ended is not None else 0,
    )


def _protocol(seen: Seen) -> str:
    special, protocol = seen.connection.special, seen.connection.protocol
    if special is not None:
        return "Raw" if special is SpecialSocket.RAW else "Packet"
    return _PROTOCOLS.get(protocol, str(protocol))


def _text(endpoint: Endpoint | None) -> str:
    return "" if endpoint is None else str(endpoint)
