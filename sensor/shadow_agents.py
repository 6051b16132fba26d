"""A sighting of an agent that nobody registered, as the `ShadowAgent` that people decide about. Pure.

The object is the same on one machine, where it is a file, and in a cluster. Its `spec` is people's: it is made once, and never written
again. Its `status` is the sensor's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hopgate.resources.kinds import API_VERSION
from sensor.classify import SightingClass
from sensor.sightings import Program, Sighting

KIND: Final = "ShadowAgent"
# As many as the schema of the kind has room for.
MOST_EVIDENCE: Final = 32
MOST_REACHED: Final = 32
# `lastSeen` alone is no reason to write more often.
_AGAIN: Final = timedelta(minutes=1)
_LABEL_CHARACTERS: Final = 63
_NO_LABEL: Final = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where a program runs; empty where it is not known.

    `cgroup` is a path below the cgroup2 mount, `workload` is what a pod belongs to, `KIND/NAME`, `image_digest` has its algorithm.
    """

    node: str = ""
    namespace: str = ""
    workload: str = ""
    pod: str = ""
    container: str = ""
    image_digest: str = ""
    service_account: str = ""
    unit: str = ""
    cgroup: str = ""

    def fields(self) -> dict[str, str]:
        """What is known, under the names that the object has for it."""
        named = {
            "node": self.node,
            "namespace": self.namespace,
            "workload": self.workload,
            "pod": self.pod,
            "container": self.container,
            "imageDigest": self.image_digest,
            "serviceAccount": self.service_account,
            "unit": self.unit,
            "cgroup": self.cgroup,
        }
        return {name: value for name, value in named.items() if value}


def where(program: Program) -> Where:
    """What a program's own placement says; a cluster knows more."""
    placed = program.placement
    return Where(pod=placed.pod, container=placed.container, unit=placed.unit, cgroup=program.cgroup)


def is_told(seen: Sighting) -> bool:
    """Whether this is an agent that nobody registered, and whose program or place is known."""
    return seen.kind is SightingClass.SHADOW


def name(program: Program) -> str:
    """The object's name: a DNS label (RFC 1123) of the program's name, so that people know it, and its id, so that it is the only one."""
    shown = _NO_LABEL.sub("-", (program.name or program.executable.rpartition("/")[2]).lower()).strip("-") or "program"
    return f"{shown[: _LABEL_CHARACTERS - 1 - len(program.id)].rstrip('-')}-{program.id}"


def new(seen: Sighting, place: Where) -> dict[str, Any]:
    """The object as it is first written: not quarantined."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name(seen.program)},
        "spec": {"quarantine": False},
        "status": status(seen, place, {}),
    }


def status(seen: Sighting, place: Where, previous: Mapping[str, Any]) -> dict[str, Any]:
    """The status after a sighting. What `previous` (the status that stands) has of earlier is kept, as much of it as there is room for."""
    program = seen.program
    told = {"name": program.name, "executable": program.executable, "command": program.shown, "user": program.user}
    first, last = _time(seen.first_seen_ns), _time(seen.last_seen_ns)
    made = {
        # Times of one format and zone are in the order of their text.
        "firstSeen": min(first, str(previous.get("firstSeen") or first)),
        "lastSeen": max(last, str(previous.get("lastSeen") or last)),
        "program": {field: value for field, value in told.items() if value},
        "where": place.fields(),
        "evidence": _evidence([piece.sentence for piece in seen.evidence], last, _mappings(previous.get("evidence"))),
        "reached": _reached(seen, _mappings(previous.get("reached"))),
    }
    # What others write there (conditions) is theirs.
    return {**previous, **made}


def is_old_news(status: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether `status` says no more than `before` did, but for a moment a little later."""
    if {**status, "lastSeen": ""} != {**before, "lastSeen": ""}:
        return False
    try:
        return datetime.fromisoformat(str(status["lastSeen"])) - datetime.fromisoformat(str(before.get("lastSeen"))) < _AGAIN
    except (ValueError, TypeError):
        return False


def _evidence(sentences: Collection[str], last: str, previous: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    known = {str(each.get("message")): str(each.get("time")) for each in previous}
    known.update({sentence: last for sentence in sentences if sentence not in known})
    # The newest are kept.
    kept = sorted(known.items(), key=lambda each: each[1])[-MOST_EVIDENCE:]
    return [{"time": time, "message": message} for message, time in kept]


def _reached(seen: Sighting, previous: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What it talks to: what was just seen, models first, then what is known from before."""
    found = {place.host: place.provider for place in seen.reached}
    for each in previous:
        found.setdefault(str(each.get("host")), str(each.get("provider") or ""))
    kept = list(found.items())[:MOST_REACHED]
    return [{"host": host, **({"provider": provider} if provider else {})} for host, provider in kept]


def _mappings(found: object) -> list[Mapping[str, Any]]:
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


def _time(unix_ns: int) -> str:
    """RFC 3339, as objects have it: whole seconds of UTC."""
    return datetime.fromtimestamp(unix_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
