"""Hop tokens: made for one hop, checked in one call.

A hop token is a JWT (`typ: hop+jwt`) signed with Ed25519. Its header has exactly one form, so a token can choose neither
algorithm nor key material. `verify` decodes and checks in one call and needs everything that there is to check against;
there is no other way to the claims. The payload is not parsed before the signature has been found good.

Not here: that a token is accepted once (`tokenmint.replay`), and who may call whom (the policies).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, NoReturn

from hopgate.identity.names import DestinationName, ObjectName, User
from tokenmint import compact, hop_claims, jose, token_json, validity
from tokenmint.errors import (
    TokenAlgorithmError,
    TokenAudienceError,
    TokenIssuerError,
    TokenKeyRetiredError,
    TokenKeyUnknownError,
    TokenMalformedError,
    TokenTypeError,
)
from tokenmint.hop_claims import HopClaims, RequestBinding, next_claims
from tokenmint.keys import ALGORITHM, PublicKey, SigningKey
from tokenmint.redacted import Redacted

__all__ = ["HopClaims", "HopToken", "RequestBinding", "VerifiedHop", "mint", "next_claims", "verify"]

TYPE: Final = "hop+jwt"
# A token travels in one header: eight agents with names of usual length, a user and thirty groups need under 4,000.
MAX_TOKEN_LENGTH: Final = 8192
# The one header, with a `kid` that is an RFC 7638 thumbprint: 32 bytes in base64url.
_HEADER: Final = re.compile(rb'\{"alg":"EdDSA","kid":"([A-Za-z0-9_-]{43})","typ":"hop\+jwt"\}')
# Header members that bring a key along, or say where to get one (RFC 7515 section 4.1).
KEY_MEMBERS: Final = ("jwk", "jku", "x5c", "x5u")


class HopToken(Redacted):
    """A minted token. `reveal()` is for the one header of the one request that it is bound to."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The token's text. Whoever calls this is responsible for where it goes."""
        return self._text


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedHop:
    """What a token proved. `actors` is every agent of the chain, the calling one first; times are Unix seconds."""

    issuer: str
    user: User | None
    actors: tuple[ObjectName, ...]
    audience: DestinationName
    token_id: str
    transaction: str
    issued_at: int
    expires_at: int
    binding: RequestBinding
    key_id: str


def mint(key: SigningKey, claims: HopClaims) -> HopToken:
    """The token of one hop. Raises TokenMalformedError for claims that are too long for a header."""
    header = f'{{"alg":"{ALGORITHM}","kid":"{key.kid}","typ":"{TYPE}"}}'.encode()
    signed = compact.encode(header) + b"." + compact.encode(hop_claims.encode(claims))
    token = signed + b"." + compact.encode(key.sign(signed))
    if len(token) > MAX_TOKEN_LENGTH:
        raise TokenMalformedError(f"expected claims that fit into a token of {MAX_TOKEN_LENGTH} characters, got {len(token)}")
    return HopToken(token.decode())


def verify(
    token: str,
    *,
    audience: DestinationName,
    issuers: AbstractSet[str],
    keys: Mapping[str, PublicKey],
    now: int,
    binding: RequestBinding,
) -> VerifiedHop:
    """Decode and check a token: what it proves for this receiver, this request and this moment.

    `keys` are the accepted public halves by `kid`. Raises a TokenError whose code says what is wrong; ValueError when no
    issuer is given, since an empty list is a mistake and not "any".
    """
    if not issuers:
        raise ValueError("expected at least one issuer to accept")
    segments = compact.split(token, MAX_TOKEN_LENGTH)
    key = _find_key(segments.unverified_header, keys, now)
    jose.verify(segments, ALGORITHM, key.verification)
    payload = hop_claims.decode(segments.unverified_payload)  # signed by a known key from here on
    if payload.iss not in issuers:
        raise TokenIssuerError(f"expected a token of {', '.join(sorted(issuers))}, got one of `{payload.iss[:80]!r}`")
    if payload.aud != str(audience):
        raise TokenAudienceError(f"expected a token for {audience} alone, got one for `{str(payload.aud)[:80]!r}`")
    validity.check(now=now, not_before=payload.iat, expires_at=payload.exp)
    claims = HopClaims(
        issuer=payload.iss,
        user=hop_claims.user(payload),
        actors=hop_claims.actors(payload),
        audience=audience,
        token_id=payload.jti,
        transaction=payload.txn,
        issued_at=payload.iat,
        expires_at=payload.exp,
        binding=binding,
    )
    hop_claims.require_bound(payload, binding)
    return _verified(claims, key.kid)


def _verified(claims: HopClaims, key_id: str) -> VerifiedHop:
    return VerifiedHop(
        issuer=claims.issuer,
        user=claims.user,
        actors=claims.actors,
        audience=claims.audience,
        token_id=claims.token_id,
        transaction=claims.transaction,
        issued_at=claims.issued_at,
        expires_at=claims.expires_at,
        binding=claims.binding,
        key_id=key_id,
    )


def _find_key(unverified_header: bytes, keys: Mapping[str, PublicKey], now: int) -> PublicKey:
    match = _HEADER.fullmatch(unverified_header)
    if match is None:
        _refuse_header(unverified_header)
    kid = match[1].decode()
    key = keys.get(kid)
    if key is None or key.kid != kid:
        raise TokenKeyUnknownError(f"expected a key that is published, got `{kid}`")
    if now >= key.valid_until:
        raise TokenKeyRetiredError(f"expected a key that is still accepted, got `{kid}`, retired {now - key.valid_until} s ago")
    return key


def _refuse_header(unverified_header: bytes) -> NoReturn:
    """Say what is wrong with a header that is not the one; whatever it says, it is refused."""
    header = token_json.parse_object(unverified_header, "header")
    if header.get("typ") != TYPE:
        raise TokenTypeError(f"expected `typ` to be `{TYPE}`, got `{str(header.get('typ'))[:40]!r}`")
    if header.get("alg") != ALGORITHM:
        raise TokenAlgorithmError(f"expected `alg` to be `{ALGORITHM}`, got `{str(header.get('alg'))[:40]!r}`")
    for name in KEY_MEMBERS:
        if name in header:
            raise TokenKeyUnknownError(f"expected a published key, got a token that brings its own (`{name}`)")
    if set(header) == {"alg", "kid", "typ"}:
        kid = header["kid"]
        if isinstance(kid, str) and re.fullmatch(r"[A-Za-z0-9_-]{43}", kid) is None:
            raise TokenKeyUnknownError(f"expected a key id that is a thumbprint, got `{kid[:60]!r}`")
    raise TokenMalformedError("expected the header of a hop token: `alg`, `kid` and `typ`, in their one spelling")
