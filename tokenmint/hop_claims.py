"""What a hop token says, as values, and the one form in which it is written.

`HopClaims` can only be built well-formed: a life within the limit, a chain that is not empty, not too deep and never comes
back to itself, a user that the text form can hold. The payload has one spelling: `decode` refuses every JSON text that
encoding what it says would not give again, which takes repeated, unknown and reordered members, white space, escapes and
other forms of numbers with it.

The claims (registered names: RFC 7519, RFC 8693, RFC 7643 for `groups`, draft-ietf-oauth-transaction-tokens for `txn`):
`iss`, `sub` (the user, else the agent that began the chain), `act` (the agents since, the calling one outermost), `aud`,
`iat`, `exp`, `jti`, `txn`, `groups` (the user's) and `req` (the request that the token is bound to).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Annotated, Final, Self

import msgspec

from hopgate.identity import names
from hopgate.identity.errors import InvalidNameError
from hopgate.identity.names import DestinationName, ObjectName, User
from tokenmint import validity
from tokenmint.compact import encode as base64url
from tokenmint.errors import TokenBindingError, TokenChainError, TokenError, TokenLifeError, TokenMalformedError, TokenUserError

# Agents in a chain. People follow a handful; what is deeper is a loop that changes its names. Each adds some 80 bytes.
MAX_CHAIN_DEPTH: Final = 8
# As directories have it: a user is in tens of groups. More would not fit into a header together with the rest.
MAX_GROUPS: Final = 128
# Ids are made by the gate (32 hexadecimal digits); the bound keeps what receivers remember of them small.
_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}")
# OpenID Connect Core section 2: a subject has at most 255 characters. Issuers and groups are given the same.
MAX_TEXT_LENGTH: Final = 255

_AGENT = "agent:"
_USER = "user:"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBinding:
    """The request that a token is good for. `path` is raw, with its query; `body_sha256` has 32 bytes."""

    method: str
    authority: str
    path: str
    body_sha256: bytes

    @classmethod
    def of(cls, method: str, authority: str, path: str, body: bytes) -> Self:
        """The binding of a request, from its whole body."""
        return cls(method=method, authority=authority, path=path, body_sha256=hashlib.sha256(body).digest())


@dataclass(frozen=True, slots=True, kw_only=True)
class HopClaims:
    """What is to be minted. `actors` is every agent of the chain, the calling one first; times are Unix seconds.

    Raises TokenLifeError, TokenChainError, TokenUserError and TokenMalformedError when it would not be accepted.
    """

    issuer: str
    user: User | None
    actors: tuple[ObjectName, ...]
    audience: DestinationName
    token_id: str
    transaction: str
    issued_at: int
    expires_at: int
    binding: RequestBinding

    def __post_init__(self) -> None:
        _require_text(self.issuer, "issuer", TokenMalformedError)
        for name, value in (("token id", self.token_id), ("transaction", self.transaction)):
            if _ID.fullmatch(value) is None:
                raise TokenMalformedError(f"expected a {name} of at most 64 letters, digits and `._~-`, got `{value[:80]!r}`")
        if not 0 < self.expires_at - self.issued_at <= validity.MAX_TOKEN_LIFE_SECONDS:
            raise TokenLifeError(f"expected a life of 1 to {validity.MAX_TOKEN_LIFE_SECONDS} s, got {self.expires_at - self.issued_at} s")
        _require_chain(self.actors)
        if self.user is not None:
            _require_user(self.user)

    @property
    def subject(self) -> str:
        """On whose behalf: the user, else the agent that began the chain, in the token's form."""
        return agent_text(self.actors[-1]) if self.user is None else f"{_USER}{self.user.issuer}#{self.user.subject}"


def next_claims(
    *,
    issuer: str,
    caller: ObjectName,
    chain: tuple[ObjectName, ...],
    user: User | None,
    audience: DestinationName,
    token_id: str,
    transaction: str,
    now: int,
    binding: RequestBinding,
) -> HopClaims:
    """The claims of the next hop: the caller's chain so far (the latest agent first, may be empty) with the caller before it.

    Nothing of the chain can be left out or altered here, and the life is the mint's own. Raises TokenChainError when the
    caller is in the chain already or the chain would be too deep, and what HopClaims raises.
    """
    if caller in chain:
        raise TokenChainError(f"expected an agent that is not in the chain yet, got `{caller}` again")
    return HopClaims(
        issuer=issuer,
        user=user,
        actors=(caller, *chain),
        audience=audience,
        token_id=token_id,
        transaction=transaction,
        issued_at=now,
        expires_at=now + validity.TOKEN_LIFE_SECONDS,
        binding=binding,
    )


# Unix seconds that a double holds exactly (RFC 8259 section 6): no reader of a token sees another time than the next.
Moment = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class Actor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """`act` of RFC 8693 section 4.1: who acts, and who acted before."""

    sub: str
    act: Actor | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bound request as the token carries it: a path can hold what is nobody else's business, so only its hash goes along."""

    method: str
    authority: str
    path_sha256: str
    body_sha256: str


class Payload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The payload in the order in which it is written. `aud` is read as an array too, to say what is wrong with it."""

    iss: str
    sub: str
    act: Actor | None = None
    aud: str | list[str]
    iat: Moment
    exp: Moment
    jti: str
    txn: str
    groups: tuple[str, ...] = ()
    req: Request


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Payload)


def agent_text(agent: ObjectName) -> str:
    """An agent's identity in a token."""
    return f"{_AGENT}{agent}"


def encode(claims: HopClaims) -> bytes:
    """The payload of a token. Raises TokenMalformedError for text that has no UTF-8 form."""
    acting = claims.actors if claims.user is not None else claims.actors[:-1]
    act: Actor | None = None
    for agent in reversed(acting):
        act = Actor(sub=agent_text(agent), act=act)
    payload = Payload(
        iss=claims.issuer,
        sub=claims.subject,
        act=act,
        aud=str(claims.audience),
        iat=claims.issued_at,
        exp=claims.expires_at,
        jti=claims.token_id,
        txn=claims.transaction,
        groups=() if claims.user is None else claims.user.groups,
        req=_request(claims.binding),
    )
    try:
        return _encoder.encode(payload)
    except UnicodeEncodeError as error:
        raise TokenMalformedError("expected claims of text that has a UTF-8 form") from error


def decode(payload: bytes) -> Payload:
    """What a payload says, none of it judged yet. Raises TokenMalformedError for any spelling but the one of `encode`."""
    try:
        decoded = _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TokenMalformedError("expected the claims of a hop token, got others") from error
    if _encoder.encode(decoded) != payload:
        raise TokenMalformedError("expected the claims of a hop token in their one spelling")
    return decoded


def actors(payload: Payload) -> tuple[ObjectName, ...]:
    """Every agent of the chain, the calling one first. Raises TokenChainError."""
    found: list[str] = []
    act = payload.act
    while act is not None:
        found.append(act.sub)
        act = act.act
        if len(found) > MAX_CHAIN_DEPTH:
            raise TokenChainError(f"expected at most {MAX_CHAIN_DEPTH} agents in the chain, got more")
    if not payload.sub.startswith(_USER):
        found.append(payload.sub)
    return tuple(_agent(text) for text in found)


def user(payload: Payload) -> User | None:
    """On whose behalf, or None when an agent began the chain. Raises TokenUserError."""
    if not payload.sub.startswith(_USER):
        if payload.groups:
            raise TokenUserError("expected groups with a user only")
        return None
    issuer, separator, subject = payload.sub.removeprefix(_USER).partition("#")
    if not separator:
        raise TokenUserError("expected a user as ISSUER#SUBJECT")
    return User(issuer=issuer, subject=subject, groups=payload.groups)


def require_bound(payload: Payload, binding: RequestBinding) -> None:
    """Refuse a token of another request, naming what differs. Every part is compared, each in constant time. Raises TokenBindingError."""
    bound, expected = payload.req, _request(binding)
    pairs = (
        ("method", bound.method, expected.method),
        ("authority", bound.authority, expected.authority),
        ("path", bound.path_sha256, expected.path_sha256),
        ("body", bound.body_sha256, expected.body_sha256),
    )
    differing = [name for name, left, right in pairs if not hmac.compare_digest(_bytes(left), _bytes(right))]
    if differing:
        raise TokenBindingError(f"expected a token of this request, got one of a request with another {' and '.join(differing)}")


def _request(binding: RequestBinding) -> Request:
    return Request(
        method=binding.method,
        authority=binding.authority,
        path_sha256=base64url(hashlib.sha256(_bytes(binding.path)).digest()).decode(),
        body_sha256=base64url(binding.body_sha256).decode(),
    )


def _bytes(text: str) -> bytes:
    """Distinct bytes for distinct text, also for text without a UTF-8 form."""
    return text.encode("utf-8", "surrogatepass")


def _agent(text: str) -> ObjectName:
    if not text.startswith(_AGENT):
        raise TokenChainError(f"expected an agent as `{_AGENT}NAMESPACE/NAME`, got `{text[:80]!r}`")
    try:
        return names.parse(text.removeprefix(_AGENT))
    except InvalidNameError as error:
        raise TokenChainError(f"expected an agent as `{_AGENT}NAMESPACE/NAME`: {error}") from error


def _require_chain(chain: tuple[ObjectName, ...]) -> None:
    if not 1 <= len(chain) <= MAX_CHAIN_DEPTH:
        raise TokenChainError(f"expected 1 to {MAX_CHAIN_DEPTH} agents in the chain, got {len(chain)}")
    if len(set(chain)) < len(chain):
        raise TokenChainError("expected a chain in which no agent occurs twice")


def _require_user(someone: User) -> None:
    _require_text(someone.issuer, "user's issuer", TokenUserError)
    _require_text(someone.subject, "user's id", TokenUserError)
    if "#" in someone.issuer:  # the separator; OpenID Connect Discovery section 3 allows no fragment in an issuer
        raise TokenUserError("expected a user's issuer without `#`")
    if len(someone.groups) > MAX_GROUPS:
        raise TokenUserError(f"expected at most {MAX_GROUPS} groups, got {len(someone.groups)}")
    for group in someone.groups:
        _require_text(group, "group", TokenUserError)


def _require_text(text: str, name: str, error: type[TokenError]) -> None:
    if not 0 < len(text) <= MAX_TEXT_LENGTH:
        raise error(f"expected the {name} in 1 to {MAX_TEXT_LENGTH} characters, got {len(text)}")
