"""RFC 6902, as much of it as the injector writes: what applies its patches in the tests, written apart from what makes them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any


def apply(document: Any, patch: Sequence[Mapping[str, Any]]) -> Any:
    """The document after the patch. Raises KeyError or IndexError where the RFC has an error."""
    result = copy.deepcopy(document)
    for operation in patch:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        target = result
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target[part]
        value = copy.deepcopy(operation.get("value"))
        if isinstance(target, list):
            _change_list(target, operation["op"], int(last), value)
        elif operation["op"] == "add":
            target[last] = value
        elif operation["op"] == "replace":
            _ = target[last]
            target[last] = value
        else:
            del target[last]
    return result


def _change_list(target: list[Any], operation: str, index: int, value: Any) -> None:
    if operation == "add":
        if not 0 <= index <= len(target):
            raise IndexError(index)
        target.insert(index, value)
    elif operation == "replace":
        target[index] = value
    else:
        del target[index]
