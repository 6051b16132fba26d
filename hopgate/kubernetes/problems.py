"""What is wrong with one object of the cluster, for the person who reads its status, and what is in force meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hopgate.kubernetes.objects import ClusterObject
from hopgate.resources import fields
from hopgate.resources.fields import Path
from hopgate.resources.reference import ObjectReference


class Kept(StrEnum):
    """What is in force of an object with a mistake."""

    IN_FORCE = "InForce"  # the object as it is; what the mistake touches denies
    LAST_GOOD = "LastGood"  # the form that it had before the mistake
    FORBIDS = "Forbids"  # a policy that was never good: what it forbids, nothing that it permits
    NOTHING = "Nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake of one object. `reason` is a stable code; `field` is empty for the object as such."""

    reference: ObjectReference
    uid: str
    generation: int
    field: str
    reason: str
    message: str
    kept: Kept

    def __str__(self) -> str:
        place = f"{self.reference}: {self.field}" if self.field else str(self.reference)
        return f"{place}: {self.message} ({self.reason})"


def of(found: ClusterObject, path: Path, reason: str, message: str, kept: Kept) -> Problem:
    """A problem of this version of the object."""
    return Problem(
        reference=found.reference,
        uid=found.uid,
        generation=found.generation,
        field=fields.show(path),
        reason=reason,
        message=message,
        kept=kept,
    )


def of_spec(found: ClusterObject, kept: Kept) -> tuple[Problem, ...]:
    """What reading the object found."""
    return tuple(of(found, mistake.path, mistake.code, mistake.message, kept) for mistake in found.mistakes)


def order(problem: Problem) -> tuple[str, str, str, str, str]:
    """Problems by kind, namespace, name, field and reason."""
    own = problem.reference
    return own.kind, own.namespace or "", own.name, problem.field, problem.reason
