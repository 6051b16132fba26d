"""Pairwise combinations: few rows in which every two values of every two keys occur together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# A row holds, for each key, which of its values it has.
Row = dict[str, int]


def rows(table: Mapping[str, Sequence[Any]], sensible: Callable[[Mapping[str, Any]], bool]) -> list[Row]:
    """Greedy, always the same for the same table. Pairs that no sensible row can have are left out.

    `sensible` is asked of incomplete rows too, as values by key, and says no only to what can't become sensible any more.
    """
    uncovered = {
        (first, second)
        for one, other in itertools.combinations(table, 2)
        for first in ((one, number) for number in range(len(table[one])))
        for second in ((other, number) for number in range(len(table[other])))
    }
    made: list[Row] = []
    while uncovered:
        first, second = min(uncovered)
        row: Row | None = _complete(table, dict((first, second)), uncovered, sensible)
        uncovered.discard((first, second))
        if row is not None:
            uncovered -= set(itertools.combinations(((key, row[key]) for key in table), 2))
            made.append(row)
    return made


def values(table: Mapping[str, Sequence[Any]], row: Row) -> dict[str, Any]:
    """A row as values by key."""
    return {key: table[key][number] for key, number in row.items()}


def _complete(
    table: Mapping[str, Sequence[Any]],
    begun: Row,
    uncovered: set[tuple[tuple[str, int], tuple[str, int]]],
    sensible: Callable[[Mapping[str, Any]], bool],
) -> Row | None:
    """The row with the values that cover most; None where nothing sensible begins like this."""
    if not sensible(values(table, begun)):
        return None
    open_keys = [key for key in table if key not in begun]
    if not open_keys:
        return begun
    key = open_keys[0]
    order = list(table)

    def gain(number: int) -> int:
        mine = (key, number)
        return sum(_pair(mine, (other, taken), order) in uncovered for other, taken in begun.items())

    for number in sorted(range(len(table[key])), key=gain, reverse=True):
        found = _complete(table, {**begun, key: number}, uncovered, sensible)
        if found is not None:
            return found
    return None


def _pair(one: tuple[str, int], other: tuple[str, int], order: list[str]) -> tuple[tuple[str, int], tuple[str, int]]:
    return (one, other) if order.index(one[0]) < order.index(other[0]) else (other, one)
