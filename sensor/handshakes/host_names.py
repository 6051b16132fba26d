"""Host names that strangers wrote, made fit to compare and to show. Pure.

What is no host name is never handed on as text: it could break a line, forge a column or look like another name.
"""

from __future__ import annotations

import re
from typing import Final

# RFC 1123 2.1 with the underscore that many names on the network have; an international name is spelt in its ASCII form (RFC 5890).
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*".encode())
# A last label of digits makes it an address (RFC 1123 2.1), which is no name (RFC 6066 3).
_NUMBER: Final = re.compile(rb"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.DOTALL)
MAX_LENGTH: Final = 253


def host_name(written: bytes) -> str:
    """`written` in lower case without its last dot; empty when it is no host name."""
    name = written.lower().removesuffix(b".")
    if len(name) > MAX_LENGTH or _HOST_NAME.fullmatch(name) is None or _NUMBER.fullmatch(name) is not None:
        return ""
    return name.decode("ascii")
