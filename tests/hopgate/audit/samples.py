"""Records and spools that the tests of the record share: each test says only what it is about."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hopgate.audit.records import Change, Decision, Flow, Name, Sighting
from hopgate.audit.spool import Durability, Spool

WRITER = "authz-1"
_DEFAULTS: dict[str, Any] = {"str": "", "int": 0, "tuple[str, ...]": (), "Mapping[str, Any]": {}, "bool": False}
_EMPTY = {item.name: _DEFAULTS[str(item.type)] for item in dataclasses.fields(Decision)}


def decision(number: int = 0, **changes: Any) -> Decision:
    """A decision whose id and time follow from `number`; all else is empty unless it is said."""
    return Decision(**{**_EMPTY, "id": f"{number:032x}", "time": 1_800_000_000_000_000 + number, "verdict": "Allow", **changes})


def name(number: int = 0, **changes: Any) -> Name:
    """A question to the resolver."""
    told = {"agent": "demo/planner", "name": "a.example", "type": "A", "answer": "Answered", "transport": "UDP"}
    return Name(**{"id": f"{number:032x}", "time": 1_800_000_000_000_000 + number, **told, **changes})


def change(number: int = 0, **changes: Any) -> Change:
    """The start of a run."""
    told = {"who": "1000", "operation": "Start", "kind": "Run", "name": "demo/planner", "before": {}, "after": {"pid": 1}}
    return Change(**{"id": f"{number:032x}", "time": 1_800_000_000_000_000 + number, **told, **changes})


def flow(number: int = 0, **changes: Any) -> Flow:
    """A connection that went through the gate and ended."""
    told = {
        **{item.name: _DEFAULTS[str(item.type)] for item in dataclasses.fields(Flow)},
        "phase": "Ended",
        "agent": "demo/planner",
        "verdict": "ThroughGate",
        "protocol": "TCP",
        "from_start": True,
    }
    return Flow(**{**told, "id": f"{number:032x}", "time": 1_800_000_000_000_000 + number, **changes})


def sighting(number: int = 0, **changes: Any) -> Sighting:
    """A program that nobody registered."""
    told = {**{item.name: _DEFAULTS[str(item.type)] for item in dataclasses.fields(Sighting)}, "name": "demo/planner", "kind": "Shadow"}
    return Sighting(**{**told, "id": f"{number:032x}", "time": 1_800_000_000_000_000 + number, **changes})


def spool(folder: Path, writer: str = WRITER, clock: Callable[[], float] = lambda: 0.0, **settings: Any) -> Spool:
    """A spool whose clock stands still unless one is given."""
    return Spool(folder, writer, clock=clock, **{"durability": Durability.WRITE, **settings})


def written(folder: Path, count: int, writer: str = WRITER, **settings: Any) -> list[Path]:
    """`count` decisions in `folder`, closed; the segments they are in."""
    made = spool(folder, writer, **settings)
    for number in range(count):
        made.append(decision(number, caller="demo/planner", message="höflich"))
    made.close()
    return sorted((folder / "decisions").glob(f"{writer}-*.jsonl"))
