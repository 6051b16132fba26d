"""A cluster's workloads: the service account's token of a pod that exists, of an account that an Agent has.

The costly part, whether a token is genuine, is remembered until the token ends or the API server's keys change. Whether its pod exists and
which Agent it is are looked up at each check in the values that are in force, so a pod that is deleted or an Agent that is removed is
refused by the next check after the value is swapped, whatever is remembered.

Only genuine tokens are remembered, so nobody can push others out by sending nonsense. A token travels no further than this: what is
remembered is its SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from authz.workloads import NO_CREDENTIAL, Refusal
from hopgate.identity.names import ObjectName
from hopgate.kubernetes.pods import Pods
from tokenmint import service_account_token, validity
from tokenmint.errors import TokenError, TokenKeyUnknownError
from tokenmint.service_account_token import PodIdentity

# Twice 5,000 pods with two tokens each, the new one and the one before; about 1 KB a token.
MAX_TOKENS: Final = 20_000
# A key id that is not known may be a new key's, or anybody's invention: the keys are asked for again at most this often.
SECONDS_BETWEEN_REFRESHES: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What a token is checked against: the API server's JWK Set, the pods that exist, and the agents by service account."""

    jwks: Mapping[str, Any] = field(default_factory=dict)
    pods: Pods = field(default_factory=Pods)
    agents: Mapping[tuple[str, str], ObjectName] = field(default_factory=dict)


def locate(identity: PodIdentity, cluster: Cluster) -> ObjectName | Refusal:
    """The Agent that a genuine token speaks for, if its pod exists as the token says."""
    pod = cluster.pods.by_uid.get(identity.pod_uid)
    if pod is None:
        return Refusal(code="PodUnknown", message=f"the token's pod {identity.namespace}/{identity.pod} does not exist (any more)")
    if (pod.namespace, pod.name) != (identity.namespace, identity.pod):
        return Refusal(code="PodMismatch", message=f"the token names the pod {identity.namespace}/{identity.pod}, whose uid is another's")
    if pod.service_account != identity.service_account:
        return Refusal(
            code="ServiceAccountMismatch",
            message=f"the pod {pod.namespace}/{pod.name} does not run as the token's service account `{identity.service_account}`",
        )
    agent = cluster.agents.get((identity.namespace, identity.service_account))
    if agent is None:
        account = f"{identity.namespace}/{identity.service_account}"
        return Refusal(code="AgentUnknown", message=f"no Agent has the service account {account}")
    return agent


@dataclass(frozen=True, slots=True)
class _Genuine:
    """A token that was found genuine, and the keys that it was found so with."""

    identity: PodIdentity
    jwks: Mapping[str, Any]


class ClusterWorkloads:
    """Knows workloads by their tokens. `cluster` is what is in force: swap it as a whole.

    `request_keys` asks for the API server's keys to be read again; it must return at once. Not safe to use from several threads.
    """

    def __init__(self, *, issuer: str, audience: str, request_keys: Callable[[], None], capacity: int = MAX_TOKENS) -> None:
        if not issuer or not audience or capacity < 1:
            raise ValueError("expected an issuer, an audience and room for at least one token")
        self.cluster = Cluster()
        self.counters: dict[str, int] = {"remembered": 0, "verified": 0}
        self._issuer = issuer
        self._audience = audience
        self._request_keys = request_keys
        self._requested_at: int | None = None
        self._capacity = capacity
        self._genuine: dict[bytes, _Genuine] = {}

    def __len__(self) -> int:
        return len(self._genuine)

    def identify(self, credential: str | None, now: int, /) -> ObjectName | Refusal:
        """The agent whose pod this token was made for."""
        found = self._identify(credential, now)
        if isinstance(found, Refusal):
            self.counters[found.code] = self.counters.get(found.code, 0) + 1
        return found

    def _identify(self, credential: str | None, now: int) -> ObjectName | Refusal:
        if credential is None:
            return NO_CREDENTIAL
        digest = hashlib.sha256(credential.encode(errors="surrogateescape")).digest()
        cluster = self.cluster
        genuine = self._genuine.get(digest)
        if genuine is not None and genuine.jwks is cluster.jwks and _is_current(genuine.identity, now):
            self.counters["remembered"] += 1
            return locate(genuine.identity, cluster)
        self._genuine.pop(digest, None)
        try:
            identity = service_account_token.verify(credential, issuer=self._issuer, audience=self._audience, jwks=cluster.jwks, now=now)
        except TokenError as error:
            if isinstance(error, TokenKeyUnknownError):
                self._ask_for_keys(now)
            return Refusal(code=error.code, message=f"the workload's token was not accepted: {error}")
        self.counters["verified"] += 1
        self._remember(digest, _Genuine(identity, cluster.jwks))
        return locate(identity, cluster)

    def _remember(self, digest: bytes, genuine: _Genuine) -> None:
        """Keep it; in a full cache in the place of the one that came first."""
        if len(self._genuine) >= self._capacity:
            del self._genuine[next(iter(self._genuine))]
        self._genuine[digest] = genuine

    def _ask_for_keys(self, now: int) -> None:
        if self._requested_at is None or not 0 <= now - self._requested_at < SECONDS_BETWEEN_REFRESHES:
            self._requested_at = now
            self._request_keys()


def _is_current(identity: PodIdentity, now: int) -> bool:
    try:
        validity.check(now=now, not_before=identity.period.not_before, expires_at=identity.period.expires_at)
    except TokenError:
        return False
    return True
