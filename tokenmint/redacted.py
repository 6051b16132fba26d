"""Values that never print: what keys, tokens and credential headers have in common.

`repr`, `str`, `format` and so every error and log line show what kind of value it is and nothing of it; pickling and
copying are refused, since a copy on disk or in another process would be a second way out. The one way is `reveal()`.
"""

from __future__ import annotations

from typing import NoReturn, SupportsIndex


class Redacted:
    """A value that never prints and is not pickled or copied. Subclasses are slotted, so there is no `__dict__` to print either."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._shown()})"

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, format_spec: str) -> str:
        return format(repr(self), format_spec)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} is neither pickled nor copied")

    def _shown(self) -> str:
        """What may be seen of the value: public parts only."""
        return "redacted"
