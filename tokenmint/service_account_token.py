"""Tokens of Kubernetes' service accounts, as the API server signed them for one pod: which pod, and as whom it runs. Pure.

A projected token (Kubernetes 1.22 and later, `serviceAccountToken` volume or TokenRequest with a pod as `boundObjectRef`). It is checked
without asking the API server: signature, issuer, audience, time, and the claims that bind it to a pod. It must be for this audience alone:
who else it were for could present it here.

Not here: that the pod still exists, and which Agent it is (`authz.workloads_cluster`). A token stays good offline when its pod is deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hopgate.identity import names
from tokenmint import issued_token
from tokenmint.errors import (
    TokenAlgorithmError,
    TokenAudienceError,
    TokenIssuerError,
    TokenMalformedError,
    TokenUnboundError,
    TokenWorkloadError,
)
from tokenmint.issued_token import Period

# What an API server signs with, by its key: RSA, or a curve (kubernetes 1.37, pkg/serviceaccount/jwt.go).
ALGORITHMS: Final = frozenset({"RS256", "ES256", "ES384", "ES512"})
# It writes no `typ`; a signer outside it (KEP-740) writes `JWT`.
_TYPES: Final = frozenset({"jwt"})
_CLAIM: Final = "kubernetes.io"
# A uid is a UUID of 36 characters; the API server takes any text, so only its length is bound here.
_MAX_UID_LENGTH: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class PodIdentity:
    """The pod that a token was made for, and the service account that it runs as. `period` is when the token is valid."""

    namespace: str
    service_account: str
    service_account_uid: str
    pod: str
    pod_uid: str
    period: Period


def verify(token: str, *, issuer: str, audience: str, jwks: Mapping[str, Any], now: int) -> PodIdentity:
    """Decode and check a token. `jwks` is the API server's JWK Set, `now` is in Unix seconds.

    Raises a TokenError whose code says what is wrong: TokenKeyUnknownError when the set has not the key that the token names.
    """
    unverified = issued_token.take_apart(token, _TYPES)
    if unverified.algorithm not in ALGORITHMS:
        raise TokenAlgorithmError(f"expected {', '.join(sorted(ALGORITHMS))}, got `{unverified.algorithm}`")
    if unverified.kid is None:
        raise TokenMalformedError("expected a token that names its key (`kid`)")
    claimed = unverified.unverified_claims.get("iss")
    if claimed != issuer:
        raise TokenIssuerError(f"expected a token of `{issuer}`, got one of `{str(claimed)[:80]!r}`")
    claims = issued_token.verify_signature(unverified, jwks)
    audiences = issued_token.audiences(claims)
    if audiences != (audience,):
        raise TokenAudienceError(f"expected a token for `{audience}` alone, got one for `{', '.join(audiences)[:80]!r}`")
    return _pod_identity(claims, issued_token.require_current(claims, now))


def _pod_identity(claims: Mapping[str, Any], period: Period) -> PodIdentity:
    bound = claims.get(_CLAIM)
    if not isinstance(bound, dict):
        raise TokenWorkloadError(f"expected the claims of a service account in `{_CLAIM}`")
    namespace = bound.get("namespace")
    if not isinstance(namespace, str) or not names.is_label(namespace):
        raise TokenWorkloadError(f"expected a namespace in `{_CLAIM}`")
    if "pod" not in bound:
        raise TokenUnboundError("expected a token that is bound to a pod, as a projected volume gives it")
    account, account_uid = _reference(bound, "serviceaccount")
    pod, pod_uid = _reference(bound, "pod")
    if claims.get("sub") != f"system:serviceaccount:{namespace}:{account}":
        raise TokenWorkloadError(f"expected `sub` and `{_CLAIM}` to name one service account")
    return PodIdentity(
        namespace=namespace, service_account=account, service_account_uid=account_uid, pod=pod, pod_uid=pod_uid, period=period
    )


def _reference(bound: Mapping[str, Any], member: str) -> tuple[str, str]:
    """The name and uid of an object that the token is bound to."""
    value = bound.get(member)
    name, uid = (value.get("name"), value.get("uid")) if isinstance(value, dict) else (None, None)
    if not isinstance(name, str) or not names.is_subdomain(name):
        raise TokenWorkloadError(f"expected the name of the {member} in `{_CLAIM}`")
    if not isinstance(uid, str) or not 0 < len(uid) <= _MAX_UID_LENGTH:
        raise TokenWorkloadError(f"expected the uid of the {member} in `{_CLAIM}`")
    return name, uid
