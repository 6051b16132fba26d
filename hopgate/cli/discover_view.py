"""Sightings for people and for programs: a table that fits the terminal, a line for each, an object for each. Pure but for drawing."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from hopgate.cli.output import visible
from sensor import shadow_agents
from sensor.classify import Likelihood, SightingClass
from sensor.evidence import DEFINITIONS
from sensor.sightings import Sighting

if TYPE_CHECKING:
    from rich.table import Table

# From so many columns on, each fact has a column of its own.
WIDE: Final = 120
# The rest of each is in the JSON form.
_SHOWN_PLACES: Final = 4
_SHOWN_REASONS: Final = 4
_ALARMING: Final = frozenset({Likelihood.LIKELY, Likelihood.VERY_LIKELY})


def held_for(sighting: Sighting) -> str:
    """What a program is held for, in words."""
    match sighting.kind:
        case SightingClass.REGISTERED:
            return f"registered as {sighting.agent}"
        case SightingClass.UNATTRIBUTABLE:
            return f"{sighting.likelihood}, whose is not known"
        case _:
            return sighting.likelihood.value


def who(sighting: Sighting) -> str:
    """The program."""
    program = sighting.program
    return program.shown or program.executable or program.name or "not known"


def where(sighting: Sighting) -> str:
    """User, container or unit, process."""
    program = sighting.program
    user = program.user or (f"user {program.uid}" if program.uid >= 0 else "")
    count = f" and {sighting.processes - 1} more" if sighting.processes > 1 else ""
    process = f"process {sighting.process}{count}" if sighting.process else ""
    return ", ".join(part for part in (user, str(program.placement), process) if part)


def talks_to(sighting: Sighting) -> list[str]:
    """What it reached, models first, with how often."""
    shown = [
        place.host + (f" ({place.provider})" if place.provider else "") + (f", {place.connections} times" if place.connections > 1 else "")
        for place in sighting.reached[:_SHOWN_PLACES]
    ]
    more = sighting.connections - sum(place.connections for place in sighting.reached[:_SHOWN_PLACES])
    return [*shown, *([f"and {more} connections to others"] if more > 0 else [])]


def because(sighting: Sighting) -> list[str]:
    """Why it is held for that: the weightiest first."""
    # A look-up before a handshake for the same name says nothing more.
    named = {(DEFINITIONS[piece.kind].aspect, piece.subject): piece for piece in reversed(sighting.evidence)}
    reasons = [piece.sentence for piece in sighting.evidence if named[DEFINITIONS[piece.kind].aspect, piece.subject] is piece]
    return [*reasons[:_SHOWN_REASONS], *([f"and {len(reasons) - _SHOWN_REASONS} reasons more"] if len(reasons) > _SHOWN_REASONS else [])]


def line(sighting: Sighting) -> str:
    """All of it in one line."""
    seen = datetime.datetime.fromtimestamp(sighting.last_seen_ns / 1e9, tz=datetime.UTC).astimezone()
    reached = ", ".join(talks_to(sighting))
    return (
        f"{seen:%H:%M:%S}  {held_for(sighting)}: {who(sighting)} ({where(sighting)})"
        + (f" talks to {reached}" if reached else "")
        + f"; {'; '.join(because(sighting))}"
    )


def headings_and_rows(sightings: Sequence[Sighting]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A column for each fact, as where no terminal's width limits them."""
    rows: list[tuple[str, ...]] = [
        (held_for(sighting), who(sighting), where(sighting), ", ".join(talks_to(sighting)), "; ".join(because(sighting)))
        for sighting in sightings
    ]
    return ("agent?", "program", "where", "talks to", "because"), rows


def as_json(sighting: Sighting) -> Mapping[str, Any]:
    """All of it, named as the columns of the record `sightings` where they are the same."""
    program, placed = sighting.program, sighting.program.placement
    return {
        "id": program.id,
        "shadow_agent": shadow_agents.name(program) if shadow_agents.is_told(sighting) else "",
        "kind": sighting.kind.value,
        "likelihood": sighting.likelihood.value,
        "weight": sighting.weight,
        "agent": sighting.agent,
        "program": program.executable,
        "name": program.name,
        "command": program.shown,
        "pid": sighting.process,
        "processes": sighting.processes,
        "user": program.uid if program.uid >= 0 else None,
        "user_name": program.user,
        "cgroup": program.cgroup,
        "pod": placed.pod,
        "container": placed.container,
        "runtime": placed.runtime,
        "unit": placed.unit,
        "reached": [{"host": place.host, "provider": place.provider, "connections": place.connections} for place in sighting.reached],
        "connections": sighting.connections,
        "evidence": [{"kind": piece.kind.value, "weight": piece.weight, "sentence": piece.sentence} for piece in sighting.evidence],
        "first_seen": sighting.first_seen_ns // 1000,
        "last_seen": sighting.last_seen_ns // 1000,
    }


def table(sightings: Sequence[Sighting], width: int) -> Table:
    """A table for a terminal of `width` columns: below WIDE, who and where share a column, and so do what and why."""
    from rich import box  # noqa: PLC0415 - for a terminal only
    from rich.table import Table  # noqa: PLC0415

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    if width >= WIDE:
        for heading, share in (("agent?", 2), ("program", 4), ("where", 3), ("talks to", 4), ("because", 6)):
            drawn.add_column(heading, ratio=share, overflow="fold")
    else:
        for heading, share in (("agent?", 2), ("program", 4), ("talks to, because", 6)):
            drawn.add_column(heading, ratio=share, overflow="fold")
    for sighting in sightings:
        drawn.add_row(*(_cell(lines, sighting) for lines in _cells(sighting, wide=width >= WIDE)))
    return drawn


def _cells(sighting: Sighting, *, wide: bool) -> list[list[tuple[str, str]]]:
    """Lines of each cell with their style."""
    style = "red" if sighting.kind is not SightingClass.REGISTERED and sighting.likelihood in _ALARMING else ""
    word = [(held_for(sighting), style)]
    program, place = [(who(sighting), "bold")], [(where(sighting), "")]
    reached, reasons = [(text, style) for text in talks_to(sighting)], [(text, "") for text in because(sighting)]
    if wide:
        return [word, program, place, reached, reasons]
    return [word, program + [(text, "dim") for text, _ in place], reached + [(text, "dim") for text, _ in reasons]]


def _cell(lines: Sequence[tuple[str, str]], sighting: Sighting) -> Any:
    from rich.text import Text  # noqa: PLC0415 - for a terminal only

    faint = sighting.likelihood is Likelihood.UNLIKELY
    return Text("\n").join(Text(visible(text), style="dim" if faint else style) for text, style in lines)
