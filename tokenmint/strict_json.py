"""JSON objects of tokens that others write, read strictly: what two parsers could read differently is refused.

Refused: repeated members at any depth, bytes that are not UTF-8, a byte order mark, `NaN` and `Infinity`, numbers beyond
what a double holds, integers of absurd length, nesting that exhausts the parser, anything that is not an object.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from tokenmint.errors import TokenMalformedError

# 2**63 has 19 digits; no claim of a token counts further.
MAX_NUMBER_LENGTH = 32


def parse_object(data: bytes, name: str) -> dict[str, Any]:
    """The members of a JSON object (`name` says which one in the error). Raises TokenMalformedError."""
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant, parse_float=_float, parse_int=_integer
        )
    except (ValueError, RecursionError):
        # not chained: the parser's errors hold the text that they are about
        raise TokenMalformedError(f"expected the {name} of the token to be strict JSON") from None
    if not isinstance(value, dict):
        raise TokenMalformedError(f"expected the {name} of the token to be a JSON object")
    return value


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise ValueError("a member occurs twice")
    return found


def _constant(text: str) -> NoReturn:
    raise ValueError(f"`{text}` is no number of JSON")


def _float(text: str) -> float:
    value = float(text)
    if len(text) > MAX_NUMBER_LENGTH or not math.isfinite(value):
        raise ValueError("a number that a double does not hold")
    return value


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER_LENGTH:
        raise ValueError("a number of too many digits")
    return int(text)
