"""What a program is held for: a pure function of the evidence, of whether it is registered, and of whether it is known at all."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from sensor import evidence
from sensor.evidence import Evidence


class SightingClass(StrEnum):
    """What a program is held for. The values are stable: records hold them."""

    REGISTERED = "Registered"
    """A governed agent, or the gate itself: whatever it does is nothing unknown."""
    SHADOW = "Shadow"
    """An agent that nobody registered."""
    UNATTRIBUTABLE = "Unattributable"
    """It acts as an agent does, and neither the program nor a container or unit is known."""
    NOTHING = "Nothing"
    """There is too little that speaks for an agent."""


class Likelihood(StrEnum):
    """A weight in words."""

    UNLIKELY = "unlikely"
    POSSIBLE = "possible"
    LIKELY = "likely"
    VERY_LIKELY = "very likely"


# One handshake of a program that is neither a browser nor a command-line client is enough for a first look; what a governed
# organisation wants to know of is rather shown once too often. A single try with curl stays below.
SHADOW_WEIGHT: Final = 50
# The first weight of each word, the highest first.
_WORDS: Final = (
    (90, Likelihood.VERY_LIKELY),
    (70, Likelihood.LIKELY),
    (SHADOW_WEIGHT, Likelihood.POSSIBLE),
    (0, Likelihood.UNLIKELY),
)


def classify(pieces: Iterable[Evidence], *, registered: bool, attributed: bool) -> SightingClass:
    """The class of a program. `attributed`: the program, or at least its container or unit, is known."""
    if registered:
        return SightingClass.REGISTERED
    if evidence.weigh(pieces) < SHADOW_WEIGHT:
        return SightingClass.NOTHING
    return SightingClass.SHADOW if attributed else SightingClass.UNATTRIBUTABLE


def likelihood(weight: int) -> Likelihood:
    """`weight` (0 to 100) in words."""
    return next(word for first, word in _WORDS if weight >= first)
