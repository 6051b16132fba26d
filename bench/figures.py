"""A measured figure, and what percentiles are here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """`target` is what the figure should not exceed; empty where none is set."""

    what: str
    value: str
    target: str = ""

    def __str__(self) -> str:
        return f"{self.what:72}{self.value:>28}   {self.target}"


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def spread(values: Sequence[float], unit: str) -> str:
    """Minimum, median and maximum."""
    return f"{min(values):.2f} / {percentile(values, 0.5):.2f} / {max(values):.2f} {unit}"
