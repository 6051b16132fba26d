"""Tokens that somebody else signed: the header that may choose a key, the key, audience and times. Pure.

What tokens of users and of Kubernetes' service accounts have in common. Keys come as an argument: nothing is fetched here, and a key id
that is not among them is refused. Refused too: every algorithm that is not asymmetric, keys that the token brings along, and other
kinds of JWT, hop tokens among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tokenmint import compact, jose, token_json, validity
from tokenmint.compact import Segments
from tokenmint.errors import TokenAlgorithmError, TokenAudienceError, TokenKeyUnknownError, TokenMalformedError, TokenTypeError
from tokenmint.jose import VerificationKey

# Issuers that put groups into tokens stay under the 8 KiB that most servers allow a header; twice that is generous.
MAX_TOKEN_LENGTH: Final = 16_384
# Members that bring a key along or say where to get one, and those that change what is signed or must be understood.
_REFUSED_MEMBERS: Final = ("jwk", "jku", "x5c", "x5u", "crit", "b64", "zip", "enc")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class UnverifiedToken:
    """A token taken apart. `algorithm` and `kid` only choose among keys that are known."""

    segments: Segments
    algorithm: str
    kid: str | None
    unverified_claims: Mapping[str, Any]


def take_apart(token: str, types: frozenset[str]) -> UnverifiedToken:
    """A token's header and claims, nothing of them verified. `types` are the accepted `typ` in lower case, `jwt` when there is none.

    Raises a TokenError.
    """
    segments = compact.split(token, MAX_TOKEN_LENGTH)
    header = token_json.parse_object(segments.unverified_header, "header")
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in jose.ALGORITHMS:
        raise TokenAlgorithmError(f"expected one of the asymmetric algorithms, got `{str(algorithm)[:40]!r}`")
    if not isinstance(kind, str) or kind.lower() not in types:
        expected = " or ".join(f"`{name}`" for name in sorted(types))
        raise TokenTypeError(f"expected `typ` to be {expected}, got `{str(kind)[:40]!r}`")
    for name in _REFUSED_MEMBERS:
        if name in header:
            raise TokenMalformedError(f"expected a header without `{name}`")
    if kid is not None and not isinstance(kid, str):
        raise TokenMalformedError("expected a key id that is text")
    claims = token_json.parse_object(segments.unverified_payload, "payload")
    return UnverifiedToken(segments=segments, algorithm=algorithm, kid=kid, unverified_claims=claims)


def verify_signature(token: UnverifiedToken, jwks: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The claims, once the issuer's key has been found to sign them. Raises a TokenError."""
    jose.verify(token.segments, token.algorithm, find_key(token, jwks))
    return token.unverified_claims


def find_key(token: UnverifiedToken, jwks: Mapping[str, Any] | None) -> VerificationKey:
    """The one key that the header names; without a key id the only one there is (OpenID Connect Core section 10.1).

    Raises TokenKeyUnknownError.
    """
    published = jwks.get("keys") if jwks is not None else None
    if not isinstance(published, Sequence) or not published:
        raise TokenKeyUnknownError("expected keys of the issuer, which are not there yet")
    usable = [key for key in published if isinstance(key, Mapping) and _is_usable(key, token.algorithm)]
    found = usable if token.kid is None else [key for key in usable if key.get("kid") == token.kid]
    if len(found) != 1:
        which = "that the token does not name" if token.kid is None else f"`{token.kid[:60]!r}`"
        raise TokenKeyUnknownError(f"expected one key of the issuer {which} for `{token.algorithm}`, found {len(found)}")
    return jose.from_jwk(found[0])


def _is_usable(key: Mapping[str, Any], algorithm: str) -> bool:
    """Whether an issuer's key is meant for this (RFC 7517 section 4). A private key that is published proves nothing any more."""
    operations = key.get("key_ops", ("verify",))
    return (
        "d" not in key
        and key.get("use", "sig") == "sig"
        and key.get("alg", algorithm) == algorithm
        and isinstance(operations, Sequence)
        and "verify" in operations
    )


def audiences(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Whom a token is for (RFC 7519 section 4.1.3). Raises TokenAudienceError."""
    given = claims.get("aud")
    found = [given] if isinstance(given, str) else given
    if not isinstance(found, list) or not all(isinstance(audience, str) for audience in found):
        raise TokenAudienceError("expected `aud` to be text, or an array of text")
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """When a token is valid, in Unix seconds; either end may have a fraction."""

    not_before: float
    expires_at: float


def period(claims: Mapping[str, Any]) -> Period:
    """When a token is valid. It must have an end. Raises TokenMalformedError."""
    expires_at = _moment(claims, "exp")
    if expires_at is None:
        raise TokenMalformedError("expected a token with an end (`exp`)")
    starts = [moment for name in ("nbf", "iat") if (moment := _moment(claims, name)) is not None]
    return Period(not_before=max(starts, default=0), expires_at=expires_at)


def require_current(claims: Mapping[str, Any], now: int) -> Period:
    """When a token is valid, which `now` (Unix seconds) is within. Raises a TokenError."""
    found = period(claims)
    validity.check(now=now, not_before=found.not_before, expires_at=found.expires_at)
    return found


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2), which may have a fraction."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise TokenMalformedError(f"expected `{name}` to be a time in Unix seconds")
    return value
