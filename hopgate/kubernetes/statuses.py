"""What stands in `status` of an object: conditions, digest, addresses, pods. Pure: what is in force in, the `status` to write out.

Conditions follow Kubernetes' conventions: `lastTransitionTime` changes with `status` and with nothing else. Conditions of other types, and
fields that are not named here, are left as they are.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from hopgate.kubernetes.objects import ClusterObject
from hopgate.kubernetes.problems import Kept, Problem
from hopgate.resources.kinds import Policy

# The condition of each kind. A ShadowAgent's status is the sensor's.
CONDITIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Agent": "Ready",
        "ToolServer": "Ready",
        "ModelProvider": "Ready",
        "IdentityProvider": "Ready",
        "Policy": "Valid",
        "ClusterPolicy": "Valid",
    }
)
# The reason of a condition that is true; that of one that is false is the code of the first problem.
IN_FORCE: Final = "InForce"
# An agent that is asked about all the time is written so often, and no more.
LAST_SEEN_SECONDS: Final = 60
_SHOWN_PROBLEMS: Final = 10
# A condition's message may have 32,768 characters (meta/v1 Condition); nobody reads that many.
_MAX_MESSAGE: Final = 4_096
_REMAINS: Final[Mapping[Kept, str]] = {
    Kept.IN_FORCE: "it is in force, and what this touches is denied",
    Kept.LAST_GOOD: "its last good form stays in force",
    Kept.FORBIDS: "what it forbids is in force, and nothing that it permits",
    Kept.NOTHING: "nothing of it is in force",
}
_VOLATILE: Final = frozenset({"pods", "lastSeen"})

Status = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is the matter with one version of an object, as one condition. `status` is `True` or `False`."""

    type: str
    status: str
    reason: str
    message: str
    generation: int


def judge(found: ClusterObject, problems: Sequence[Problem]) -> Verdict:
    """The condition of an object with these problems, which are in order."""
    type_ = CONDITIONS[found.reference.kind]
    if not problems:
        return Verdict(type=type_, status="True", reason=IN_FORCE, message="it is in force", generation=found.generation)
    return Verdict(
        type=type_,
        status="False",
        reason=problems[0].reason,
        message=_explain(problems),
        generation=found.generation,
    )


def _explain(problems: Sequence[Problem]) -> str:
    lines = [f"{each.field}: {each.message}" if each.field else each.message for each in problems[:_SHOWN_PROBLEMS]]
    left = len(problems) - len(lines)
    more = [f"and {left} more"] if left else []
    remains = _REMAINS[problems[0].kept]
    return _cut("; ".join((*lines, *more)), _MAX_MESSAGE - len(remains) - 2) + f"; {remains}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def digest(form: ClusterObject | None) -> str | None:
    """Hex SHA-256 of the Cedar text that is in force."""
    if form is None or not isinstance(form.resource, Policy):
        return None
    return hashlib.sha256(form.resource.cedar.encode()).hexdigest()


def address_entries(addresses: Mapping[str, str]) -> list[dict[str, str]]:
    """`status.addresses`, by name."""
    return [{"host": host, "address": addresses[host]} for host in sorted(addresses)]


def last_seen(current: Status, told: int | None, now: float) -> str | None:
    """What `lastSeen` should be. `told` is the last decision (Unix seconds): a decision that its process no longer tells of stays written.

    A time that lies ahead was not written here.
    """
    written = _seconds(current.get("lastSeen"))
    if written is not None and written > now + LAST_SEEN_SECONDS:
        written = None
    if told is None or (written is not None and told < written + LAST_SEEN_SECONDS):
        return None if written is None else str(current["lastSeen"])
    return show(min(told, now))


def plan(current: Status, verdict: Verdict, fields: Mapping[str, Any], now: float) -> dict[str, Any]:
    """What to merge into `status` (RFC 7396: None takes a field away); empty where all is as it should be. `now` in Unix seconds."""
    wanted = {"observedGeneration": verdict.generation, **fields}
    changed = {
        name: value for name, value in wanted.items() if (current.get(name) or None) != (value or None) or _is_missing(current, name, value)
    }
    changed_conditions = conditions(current, verdict, now)
    return changed if changed_conditions is None else {**changed, "conditions": changed_conditions}


def _is_missing(current: Status, name: str, value: Any) -> bool:
    """0 pods are something else than pods that nobody counted."""
    return value == 0 and current.get(name) is None


def is_volatile(planned: Mapping[str, Any]) -> bool:
    """Whether nothing but counts of what comes and goes would be written: these can wait and be merged."""
    return _VOLATILE.issuperset(planned)


def condition(current: Status, type_: str) -> Mapping[str, Any] | None:
    """The condition of a type that stands in a status."""
    listed = current.get("conditions")
    found = (each for each in listed if isinstance(each, Mapping) and each.get("type") == type_) if isinstance(listed, list) else ()
    return next(iter(found), None)


def conditions(current: Status, verdict: Verdict, now: float) -> list[Any] | None:
    """All conditions with this one; None where it stands so already."""
    before = condition(current, verdict.type)
    same_status = before is not None and before.get("status") == verdict.status
    since = str(before.get("lastTransitionTime")) if before is not None and same_status else show(now)
    written = {
        "type": verdict.type,
        "status": verdict.status,
        "observedGeneration": verdict.generation,
        "lastTransitionTime": since,
        "reason": verdict.reason,
        "message": verdict.message,
    }
    if before == written:
        return None
    others = [each for each in current.get("conditions") or () if not isinstance(each, Mapping) or each.get("type") != verdict.type]
    return [*others, written]


def show(seconds: float) -> str:
    """Unix seconds as Kubernetes writes times."""
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(text: object) -> float | None:
    try:
        return dt.datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError):
        return None
