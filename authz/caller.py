"""Who is calling, for whom, and through which chain: from verified credentials only.

Outbound, the agent is the one whose workload credential its gate presented, and the user is the one that a token of a
configured issuer in the request's `Authorization` names. Inbound, all of it comes from the hop token. A token that
claims a configured issuer and does not verify is a Deny: it never silently turns the user's call into the agent's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from authz.request import HttpRequest
from authz.verdict import Reason
from hopgate.identity.names import DestinationName, ObjectName, User
from hopgate.snapshot import Snapshot
from tokenmint import hop_token, user_token
from tokenmint.errors import TokenError
from tokenmint.hop_token import RequestBinding
from tokenmint.keys import PublicKey

HOP_TOKEN_HEADER = "x-hopgate-token"  # noqa: S105 - a header's name, not a secret
ISSUER = "hopgate"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKeys:
    """The public keys that signatures are checked with: of hop tokens by key id, of users' tokens by issuer (JWKS)."""

    hop: Mapping[str, PublicKey] = field(default_factory=dict)
    users: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """`chain` is every agent of the hop so far, the calling one first. The token's fields are set inbound only."""

    agent: ObjectName
    user: User | None
    chain: tuple[ObjectName, ...]
    transaction: str | None = None
    hop_token_id: str | None = None
    hop_token_expires_at: int | None = None


class CallerError(Exception):
    """The credential that should say who calls does not."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def outbound(http: HttpRequest | None, agent: ObjectName, snapshot: Snapshot, keys: VerificationKeys, now: int) -> Caller:
    """The agent itself, and the user whose token it carries. Raises CallerError for a user token that does not verify."""
    user = None if http is None else _user(http, snapshot, keys, now)
    return Caller(agent=agent, user=user, chain=(agent,))


def _user(http: HttpRequest, snapshot: Snapshot, keys: VerificationKeys, now: int) -> User | None:
    authorization = http.single("authorization")
    if authorization is None or not snapshot.identity_providers:
        return None
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or user_token.insecure_issuer(token) not in _issuers(snapshot):
        return None  # the agent's own credential for the destination, which is taken off further on
    try:
        return user_token.verify(token, providers=tuple(snapshot.identity_providers.values()), keys=keys.users, now=now)
    except TokenError as error:
        raise CallerError(Reason.INVALID_USER_TOKEN, f"the user's token was not accepted: {error} ({error.code})") from error


def _issuers(snapshot: Snapshot) -> frozenset[str]:
    return frozenset(provider.issuer for provider in snapshot.identity_providers.values())


def inbound(http: HttpRequest | None, receiver: DestinationName, keys: VerificationKeys, now: int) -> Caller:
    """Whom the hop token names, once it verified for this receiver and this very request. Raises CallerError."""
    token = None if http is None else http.single(HOP_TOKEN_HEADER)
    if http is None or token is None:
        raise CallerError(Reason.HOP_TOKEN_MISSING, f"{receiver} is reached through the caller's gate only: no hop token came")
    binding = RequestBinding.of(http.method, http.unverified_host.lower(), http.path, http.body)
    if not http.body_complete:
        raise CallerError(Reason.BODY_INCOMPLETE, "the hop token is bound to the whole body, and the body came cut")
    try:
        hop = hop_token.verify(token, audience=receiver, issuers=frozenset({ISSUER}), keys=keys.hop, now=now, binding=binding)
    except TokenError as error:
        raise CallerError(Reason.HOP_TOKEN_INVALID, f"the hop token was not accepted: {error} ({error.code})") from error
    return Caller(
        agent=hop.actors[0],
        user=hop.user,
        chain=hop.actors,
        transaction=hop.transaction,
        hop_token_id=hop.token_id,
        hop_token_expires_at=hop.expires_at,
    )
