"""From a sighting to the `sightings` record: unregistered programs only. Pure."""

from __future__ import annotations

from typing import Final

from hopgate.audit import records
from sensor.classify import SightingClass
from sensor.sightings import Sighting

_TOLD: Final = frozenset({SightingClass.SHADOW, SightingClass.UNATTRIBUTABLE})


def record(seen: Sighting, wall_ns: int) -> records.Sighting | None:
    """The record, written at `wall_ns` (Unix); None for a registered agent, and for what is no agent."""
    if seen.kind not in _TOLD:
        return None
    program = seen.program
    return records.Sighting(
        id=program.id,
        time=wall_ns // 1000,
        name=program.name,
        kind=seen.kind.value,
        weight=seen.weight,
        program=program.executable,
        command=program.shown,
        pid=seen.process,
        user=max(0, program.uid),
        cgroup=program.cgroup,
        place=str(program.placement),
        evidence=tuple(piece.sentence for piece in seen.evidence),
        reached=tuple(place.host for place in seen.reached),
        connections=seen.connections,
        first_seen=seen.first_seen_ns // 1000,
        last_seen=seen.last_seen_ns // 1000,
    )
