"""JSON as one reader and no other would read it (RFC 8259), or an error.

What two parsers could read differently is refused: repeated keys (also those that differ in case only, since some
parsers match keys so), other encodings than UTF-8, a byte order mark, NaN and infinities, lone surrogates, numbers beyond a
double's range, nesting without end. Whatever the bytes are, the outcome is a value or JsonError.
"""

from __future__ import annotations

import json
import math
from itertools import accumulate
from typing import Any, Final, NoReturn

# Real requests nest some ten levels; parsers that recurse fail at a thousand.
MAX_DEPTH: Final = 64
# Digits of an integer: RFC 8259 section 6 warns beyond 2^53; Python itself refuses from 4,300 on.
MAX_DIGITS: Final = 40
_LEVELS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NEITHER_BRACKET_NOR_QUOTE: Final = bytes(byte for byte in range(256) if byte not in _LEVELS and byte != ord('"'))


class JsonError(ValueError):
    """The bytes are not JSON that everybody reads alike. The message holds nothing of them."""


def parse(body: bytes) -> Any:
    """The value that `body` holds. Raises JsonError."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonError(f"expected UTF-8, got another byte at {error.start}") from None
    if text.startswith("\ufeff"):
        raise JsonError("expected JSON, got a byte order mark before it")
    _require_shallow(body)
    try:
        value = _decoder.decode(text)
    except JsonError:
        raise
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "a number"
        raise JsonError(f"expected JSON: {reason}") from None
    if "\\u" in text:
        _require_characters(value)
    return value


def _require_shallow(body: bytes) -> None:
    """Levels are counted before anything recurses, on the brackets that are left when texts are cut out.

    Up to a parser's first error the count is that parser's own depth: it stops at the first bracket that closes nothing.
    """
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    marks = body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NEITHER_BRACKET_NOR_QUOTE)
    brackets = b"".join(marks.split(b'"')[::2])
    deepest = max(accumulate(map(_LEVELS.__getitem__, brackets)), default=0)
    if deepest > MAX_DEPTH:
        raise JsonError(f"expected at most {MAX_DEPTH} levels, got {deepest}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs) or len(set(map(str.casefold, made))) != len(made):
        raise JsonError("expected each key of an object once, got one again (or in another case)")
    return made


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise JsonError(f"expected an integer of at most {MAX_DIGITS} digits, got {len(digits)}")
    return int(digits)


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise JsonError("expected a number within a double's range, got a larger one")
    return value


def _constant(_: str) -> NoReturn:
    raise JsonError("expected a number, got NaN or an infinity")


def _require_characters(value: Any) -> None:
    """An escape can write half of a surrogate pair, which is no character and has no UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise JsonError("expected characters, got a lone surrogate") from None


_decoder: Final = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_constant)
