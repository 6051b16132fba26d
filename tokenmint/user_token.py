"""Tokens of users, as a configured issuer signed them: the one way to a `User`.

The issuer that the token names picks the provider; the provider's keys, audiences and claim names decide the rest. Keys
come as an argument or from the provider in place: nothing is fetched here, and a key id that is not among them is refused.
Refused too: every algorithm that is not asymmetric, keys that the token brings along, hop tokens and other kinds of JWT, a
token without an end, and a user or groups in any form but text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hopgate.identity.names import User
from hopgate.resources.kinds import IdentityProvider
from tokenmint import compact, jose, strict_json, validity
from tokenmint.compact import Segments
from tokenmint.errors import (
    TokenAlgorithmError,
    TokenAudienceError,
    TokenError,
    TokenIssuerError,
    TokenKeyUnknownError,
    TokenMalformedError,
    TokenTypeError,
    TokenUserError,
)
from tokenmint.hop_claims import MAX_GROUPS, MAX_TEXT_LENGTH
from tokenmint.jose import VerificationKey

# Issuers that put groups into tokens stay under the 8 KiB that most servers allow a header; twice that is generous.
MAX_TOKEN_LENGTH: Final = 16_384
# `typ` of a JWT that speaks of a user (RFC 7519 section 5.1, RFC 9068 section 2.1). Logout, event and hop tokens have others.
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
# Members that bring a key along or say where to get one, and those that change what is signed or must be understood.
_REFUSED_MEMBERS: Final = ("jwk", "jku", "x5c", "x5u", "crit", "b64", "zip", "enc")


@dataclass(frozen=True, slots=True)
class _Header:
    """The part of a header that chooses a key."""

    algorithm: str
    kid: str | None


def insecure_issuer(token: str) -> str | None:
    """The issuer that a token claims, nothing of it verified: good for choosing what to do with the token, not for trust."""
    try:
        segments = compact.split(token, MAX_TOKEN_LENGTH)
        issuer = strict_json.parse_object(segments.unverified_payload, "payload").get("iss")
    except TokenError:
        return None
    return issuer if isinstance(issuer, str) else None


def verify(token: str, *, providers: Iterable[IdentityProvider], keys: Mapping[str, Mapping[str, Any]], now: int) -> User:
    """Decode and check a user's token. `keys` maps issuers to their JWK Sets, before those in place; `now` is in Unix seconds.

    Raises a TokenError whose code says what is wrong.
    """
    segments = compact.split(token, MAX_TOKEN_LENGTH)
    header = _header(segments)
    unverified_claims = strict_json.parse_object(segments.unverified_payload, "payload")
    provider = _provider(unverified_claims.get("iss"), providers)
    jose.verify(segments, header.algorithm, _find_key(header, keys.get(provider.issuer) or provider.jwks))
    claims = unverified_claims  # signed by the issuer's key from here on
    _require_audience(claims, provider)
    _require_current(claims, now)
    return User(issuer=provider.issuer, subject=_text(claims, provider.user_claim), groups=_groups(claims, provider))


def _header(segments: Segments) -> _Header:
    header = strict_json.parse_object(segments.unverified_header, "header")
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in jose.ALGORITHMS:
        raise TokenAlgorithmError(f"expected one of the asymmetric algorithms, got `{str(algorithm)[:40]!r}`")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenTypeError(f"expected a token that speaks of a user (`JWT` or `at+jwt`), got `{str(kind)[:40]!r}`")
    for name in _REFUSED_MEMBERS:
        if name in header:
            raise TokenMalformedError(f"expected a header without `{name}`")
    if kid is not None and not isinstance(kid, str):
        raise TokenMalformedError("expected a key id that is text")
    return _Header(algorithm, kid)


def _provider(issuer: object, providers: Iterable[IdentityProvider]) -> IdentityProvider:
    found = [provider for provider in providers if provider.issuer == issuer]
    if len(found) != 1:
        count = "no" if not found else "more than one"
        raise TokenIssuerError(f"expected a token of a configured issuer, found {count} IdentityProvider for `{str(issuer)[:80]!r}`")
    return found[0]


def _find_key(header: _Header, jwks: Mapping[str, Any] | None) -> VerificationKey:
    """The one key that the header names; without a key id the only one there is (OpenID Connect Core section 10.1)."""
    published = jwks.get("keys") if jwks is not None else None
    if not isinstance(published, Sequence) or not published:
        raise TokenKeyUnknownError("expected keys of the issuer, which are not there yet")
    usable = [key for key in published if isinstance(key, Mapping) and _is_usable(key, header.algorithm)]
    found = usable if header.kid is None else [key for key in usable if key.get("kid") == header.kid]
    if len(found) != 1:
        which = "that the token does not name" if header.kid is None else f"`{header.kid[:60]!r}`"
        raise TokenKeyUnknownError(f"expected one key of the issuer {which} for `{header.algorithm}`, found {len(found)}")
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


def _require_audience(claims: Mapping[str, Any], provider: IdentityProvider) -> None:
    given = claims.get("aud")
    audiences = [given] if isinstance(given, str) else given
    if not isinstance(audiences, list) or not all(isinstance(audience, str) for audience in audiences):
        raise TokenAudienceError("expected `aud` to be text, or an array of text")
    if not set(audiences) & set(provider.audiences):
        raise TokenAudienceError(f"expected a token for {' or '.join(provider.audiences)}, got one for `{str(given)[:80]!r}`")


def _require_current(claims: Mapping[str, Any], now: int) -> None:
    expires_at = _moment(claims, "exp")
    if expires_at is None:
        raise TokenMalformedError("expected a token with an end (`exp`)")
    starts = [moment for name in ("nbf", "iat") if (moment := _moment(claims, name)) is not None]
    validity.check(now=now, not_before=max(starts, default=0), expires_at=expires_at)


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2), which may have a fraction."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise TokenMalformedError(f"expected `{name}` to be a time in Unix seconds")
    return value


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not _is_text(value):
        raise TokenUserError(f"expected the user's id in `{name}` as text of 1 to {MAX_TEXT_LENGTH} printable characters")
    return value


def _groups(claims: Mapping[str, Any], provider: IdentityProvider) -> tuple[str, ...]:
    """The user's groups. None at all is an answer; groups that are kept elsewhere or cut are not, since a `forbid` could miss them."""
    name = provider.groups_claim
    if name is None:
        return ()
    elsewhere = claims.get("_claim_names")  # OpenID Connect Core section 5.6.2; how a directory says "too many"
    if isinstance(elsewhere, dict) and name in elsewhere:
        raise TokenUserError(f"expected the user's groups in `{name}`, got a reference to them: have the issuer put fewer into the token")
    value = claims.get(name, [])
    if not isinstance(value, list) or not all(isinstance(group, str) and _is_text(group) for group in value):
        raise TokenUserError(f"expected the user's groups in `{name}` as an array of text")
    if len(value) > MAX_GROUPS:
        raise TokenUserError(
            f"expected at most {MAX_GROUPS} groups in `{name}`, got {len(value)}: have the issuer put fewer into the token"
        )
    return tuple(value)


def _is_text(value: str) -> bool:
    """Printable text that a hop token can carry on; lone surrogates are not printable either."""
    return 0 < len(value) <= MAX_TEXT_LENGTH and value.isprintable()
