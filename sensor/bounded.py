"""Tables of a bounded size, which give up what was not met for longest."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def remember(held: OrderedDict[_Key, _Value], key: _Key, value: _Value, most: int) -> None:
    """Keep `value`, as what was met last; of more than `most` the one that was met first goes."""
    held[key] = value
    held.move_to_end(key)
    if len(held) > most:
        held.popitem(last=False)
