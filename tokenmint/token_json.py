"""The JSON objects of tokens that others write: what two parsers could read differently is refused."""

from __future__ import annotations

from typing import Any

from hopgate import strict_json
from hopgate.strict_json import JsonError
from tokenmint.errors import TokenMalformedError


def parse_object(data: bytes, name: str) -> dict[str, Any]:
    """The members of a JSON object (`name` says which one in the error). Raises TokenMalformedError."""
    try:
        value = strict_json.parse(data)
    except JsonError as error:
        raise TokenMalformedError(f"expected the {name} of the token to be strict JSON: {error}") from None
    if not isinstance(value, dict):
        raise TokenMalformedError(f"expected the {name} of the token to be a JSON object")
    return value
