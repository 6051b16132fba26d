"""What changed between two JSON values, as an RFC 6902 patch.

Lists of named things (containers, volumes, variables, mounts) are compared by name, so that a patch adds what is new where it belongs
and leaves the rest as it is; other lists are replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

Operation = Mapping[str, Any]

# What names an item of a list in a pod's spec. A mount is named by its path: one volume may be mounted twice.
_KEYS: Final = ("mountPath", "name")


def difference(before: Any, after: Any, path: str = "") -> list[Operation]:
    """The operations that turn `before` into `after`, in order."""
    if before == after and type(before) is type(after):
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        return _of_mappings(before, after, path)
    if isinstance(before, list) and isinstance(after, list):
        changed = _of_named(before, after, path)
        if changed is not None:
            return changed
    return [{"op": "replace", "path": path, "value": after}]


def _of_mappings(before: Mapping[str, Any], after: Mapping[str, Any], path: str) -> list[Operation]:
    removed: list[Operation] = [{"op": "remove", "path": _join(path, key)} for key in before if key not in after]
    kept = [operation for key in after if key in before for operation in difference(before[key], after[key], _join(path, key))]
    added: list[Operation] = [{"op": "add", "path": _join(path, key), "value": value} for key, value in after.items() if key not in before]
    return [*removed, *kept, *added]


def _of_named(before: Sequence[Any], after: Sequence[Any], path: str) -> list[Operation] | None:
    """None when the items have no names, or when those that stay change places."""
    old, new = _names(before), _names(after)
    if old is None or new is None or [name for name in old if name in new] != [name for name in new if name in old]:
        return None
    gone = [index for index, name in enumerate(old) if name not in new]
    operations: list[Operation] = [{"op": "remove", "path": f"{path}/{index}"} for index in reversed(gone)]
    by_name = dict(zip(old, before, strict=True))
    for index, (name, item) in enumerate(zip(new, after, strict=True)):
        if name in by_name:
            operations += difference(by_name[name], item, f"{path}/{index}")
        else:
            operations.append({"op": "add", "path": f"{path}/{index}", "value": item})
    return operations


def _names(items: Sequence[Any]) -> list[str] | None:
    for key in _KEYS:
        names = [item.get(key) if isinstance(item, dict) else None for item in items]
        if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
            return [str(name) for name in names]
    return None


def _join(path: str, key: str) -> str:
    return f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
