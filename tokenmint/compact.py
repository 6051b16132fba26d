"""The compact form of a JWS (RFC 7515 section 7.1): three base64url segments, each in its one spelling.

Libraries differ in what they forgive (padding, bits that don't count, line breaks), and a token with two spellings is two
tokens to whoever compares them as text. So a token is taken apart here, before any library sees it, and refused unless
every segment is what encoding its own bytes gives again.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from tokenmint.errors import TokenMalformedError

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_NAMES = ("header", "payload", "signature")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Segments:
    """A token taken apart. `text` is the whole of it; the others are decoded bytes, of which nothing is verified yet."""

    text: str
    unverified_header: bytes
    unverified_payload: bytes


def encode(data: bytes) -> bytes:
    """Base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def decode(segment: str) -> bytes | None:
    """The bytes of base64url text without padding; None for any spelling but the one that `encode` gives."""
    if _SEGMENT.fullmatch(segment) is None:
        return None
    try:
        data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error:
        return None
    return data if encode(data).decode() == segment else None


def split(token: str, max_length: int) -> Segments:
    """Take a token apart. `max_length` is in characters. Raises TokenMalformedError."""
    if len(token) > max_length:
        raise TokenMalformedError(f"expected a token of at most {max_length} characters, got {len(token)}")
    parts = token.split(".")
    if len(parts) != len(_NAMES):
        raise TokenMalformedError(f"expected a compact JWS of three segments, got {len(parts)}")
    decoded = []
    for name, part in zip(_NAMES, parts, strict=True):
        data = decode(part)
        if data is None:
            raise TokenMalformedError(f"expected the {name} of the token in base64url without padding, in its one spelling")
        decoded.append(data)
    return Segments(text=token, unverified_header=decoded[0], unverified_payload=decoded[1])
