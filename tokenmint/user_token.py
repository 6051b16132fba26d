"""Tokens of users, as a configured issuer signed them: the one way to a `User`.

The issuer that the token names picks the provider; the provider's keys, audiences and claim names decide the rest. Keys
come as an argument or from the provider in place: nothing is fetched here, and a key id that is not among them is refused.
Refused too: every algorithm that is not asymmetric, keys that the token brings along, hop tokens and other kinds of JWT, a
token without an end, and a user or groups in any form but text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from hopgate.identity.names import User
from hopgate.resources.kinds import IdentityProvider
from tokenmint import compact, issued_token, token_json
from tokenmint.errors import TokenAudienceError, TokenError, TokenIssuerError, TokenUserError
from tokenmint.hop_claims import MAX_GROUPS, MAX_TEXT_LENGTH

# `typ` of a JWT that speaks of a user (RFC 7519 section 5.1, RFC 9068 section 2.1). Logout, event and hop tokens have others.
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})


def insecure_issuer(token: str) -> str | None:
    """The issuer that a token claims, nothing of it verified: good for choosing what to do with the token, not for trust."""
    try:
        segments = compact.split(token, issued_token.MAX_TOKEN_LENGTH)
        issuer = token_json.parse_object(segments.unverified_payload, "payload").get("iss")
    except TokenError:
        return None
    return issuer if isinstance(issuer, str) else None


def verify(token: str, *, providers: Iterable[IdentityProvider], keys: Mapping[str, Mapping[str, Any]], now: int) -> User:
    """Decode and check a user's token. `keys` maps issuers to their JWK Sets, before those in place; `now` is in Unix seconds.

    Raises a TokenError whose code says what is wrong.
    """
    unverified = issued_token.take_apart(token, _TYPES)
    provider = _provider(unverified.unverified_claims.get("iss"), providers)
    claims = issued_token.verify_signature(unverified, keys.get(provider.issuer) or provider.jwks)
    if not set(audiences := issued_token.audiences(claims)) & set(provider.audiences):
        given = ", ".join(audiences)[:80]
        raise TokenAudienceError(f"expected a token for {' or '.join(provider.audiences)}, got one for `{given!r}`")
    issued_token.require_current(claims, now)
    return User(issuer=provider.issuer, subject=_text(claims, provider.user_claim), groups=_groups(claims, provider))


def _provider(issuer: object, providers: Iterable[IdentityProvider]) -> IdentityProvider:
    found = [provider for provider in providers if provider.issuer == issuer]
    if len(found) != 1:
        count = "no" if not found else "more than one"
        raise TokenIssuerError(f"expected a token of a configured issuer, found {count} IdentityProvider for `{str(issuer)[:80]!r}`")
    return found[0]


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
