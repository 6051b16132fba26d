"""One check from bytes to bytes: decode, decide, mint, record, answer. Every exit writes exactly one record first.

What can fail after the decision (the mint, a missing secret, the caller's deadline, the record itself) can only turn an
Allow into a Deny. The answer that allows is built before the record is written and leaves after it.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from authz import denial, mesh, recording, wire
from authz.caller import HOP_TOKEN_HEADER, ISSUER, VerificationKeys
from authz.decide import Hop, decide
from authz.mesh import Mesh
from authz.request import CheckInput, Direction
from authz.server import Call
from authz.verdict import Reason, Verdict
from authz.wire import WireError
from authz.workloads import Refusal, Workloads
from hopgate.audit.records import Decision
from hopgate.identity.names import ObjectName
from hopgate.snapshot import Snapshot
from tokenmint import credential, hop_token
from tokenmint.errors import CredentialError, TokenError
from tokenmint.hop_token import RequestBinding
from tokenmint.keys import PublicKey, SigningKey
from tokenmint.replay import ReplayCache

_log = logging.getLogger(__name__)
# Upper bounds: a check takes some 200 µs, an Envoy of ours waits for 5 s at most.
LATENCY_BOUNDS_NS: Final = tuple(int(us * 1000) for us in (100, 200, 300, 500, 750, 1e3, 2e3, 4e3, 8e3, 16e3, 50e3, 250e3, 1e6, 5e6))
_DIRECTIONS = {"outbound": Direction.OUTBOUND, "inbound": Direction.INBOUND, "mesh": Direction.MESH}


@dataclass(slots=True)
class Counters:
    """What has been answered since the start.

    `allowed_on_failure` counts answers that let a hop pass although something had failed: it is always 0.
    `last_seen` has the agents that something was decided for, with the time of the last decision (Unix nanoseconds).
    `latencies` has how many answers took as long as `LATENCY_BOUNDS_NS` says, `latency_ns` what all took together.
    """

    checks: int = 0
    allowed: int = 0
    denied: int = 0
    allowed_on_failure: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    last_seen: dict[ObjectName, int] = field(default_factory=dict)
    latencies: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_NS) + 1))
    latency_ns: int = 0

    def count(self, verdict: Verdict, wall_ns: int, latency_ns: int) -> None:
        """Count one answer, given at `wall_ns` after `latency_ns`."""
        self.checks += 1
        self.latencies[bisect.bisect_left(LATENCY_BOUNDS_NS, latency_ns)] += 1
        self.latency_ns += latency_ns
        self.reasons[verdict.reason.value] = self.reasons.get(verdict.reason.value, 0) + 1
        if verdict.allowed:
            self.allowed += 1
            self.allowed_on_failure += bool(verdict.errors)
        else:
            self.denied += 1
        if verdict.caller is not None:
            self.last_seen[verdict.caller] = wall_ns

    def seen_since(self, wall_ns: int) -> dict[ObjectName, int]:
        """The agents that were seen since then. Who was not is forgotten: agents come and go as long as a process lives."""
        self.last_seen = {agent: at for agent, at in self.last_seen.items() if at >= wall_ns}
        return self.last_seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where a check gets what is not in its request. Times are Unix nanoseconds and monotonic nanoseconds.

    `mesh` says which Envoys of a mesh are believed; by default none is.
    """

    snapshot: Callable[[], Snapshot]
    workloads: Callable[[], Workloads]
    wall_ns: Callable[[], int]
    monotonic_ns: Callable[[], int]
    new_id: Callable[[], str]
    mesh: Callable[[], Mesh] = Mesh


@dataclass(frozen=True, slots=True, kw_only=True)
class _Allowance:
    """What an allowed hop is given: headers to write, and the id of the token among them."""

    headers: tuple[tuple[str, str], ...] = ()
    hop_token_id: str | None = None


class Keys(Protocol):
    """The keys of hop tokens: a KeyRing, or SharedKeys where there are several processes."""

    def signing_key(self, now: int, /) -> SigningKey:
        """The key to sign with at `now` (Unix seconds)."""

    def public_keys(self, now: int, /) -> Mapping[str, PublicKey]:
        """The public halves that are accepted, by `kid`."""


class Checker:
    """Answers checks. `record` writes one decision durably or raises AuditError."""

    def __init__(self, sources: Sources, keys: Keys, replay: ReplayCache, record: Callable[[Decision], None]) -> None:
        self._sources = sources
        self._keys = keys
        self._replay = replay
        self._record = record
        self.counters = Counters()

    def check(self, request: bytes, call: Call) -> bytes:
        """The CheckResponse to a CheckRequest, both as bytes. Never raises."""
        started = self._sources.monotonic_ns()
        decision_id = self._sources.new_id()
        snapshot = self._sources.snapshot()
        check: CheckInput | None = None
        allowance = _Allowance()
        try:
            check = wire.decode(request, _direction(call))
            verdict = self._decide(check, call, snapshot)
            if verdict.allowed:
                verdict, allowance = self._equip(check, verdict, snapshot, decision_id)
            verdict = _in_time(verdict, call)
            answer = self._encode(check, verdict, allowance, decision_id)
        except WireError as error:
            verdict = _denied(call, Reason.MALFORMED_REQUEST, str(error))
            answer = wire.deny_connection(decision_id=decision_id)
        except Exception:  # noqa: BLE001 - the one outermost guard: whatever breaks inside is a Deny with a record
            _log.exception("a check failed inside; it is denied (decision %s)", decision_id)
            verdict = _denied(call, Reason.INTERNAL_ERROR, "the gate failed to judge this hop")
            answer = self._encode(check, verdict, _Allowance(), decision_id)
        wall_ns, latency_ns = self._sources.wall_ns(), self._sources.monotonic_ns() - started
        try:
            self._record(
                recording.decision(
                    decision_id=decision_id,
                    wall_ns=wall_ns,
                    latency_ns=latency_ns,
                    check=check,
                    verdict=verdict,
                    minted_token_id=allowance.hop_token_id if verdict.allowed else None,
                    snapshot=snapshot,
                )
            )
        except Exception as error:  # noqa: BLE001 - whatever keeps a record from being written keeps the hop from passing
            _log.error("a decision could not be recorded; it is denied (decision %s): %s", decision_id, error)
            verdict = replace(verdict, reason=Reason.RECORD_FAILED, message="the decision could not be recorded")
            answer = self._encode(check, verdict, _Allowance(), decision_id)
        self.counters.count(verdict, wall_ns, self._sources.monotonic_ns() - started)
        return answer

    def replay_counters(self) -> dict[str, int]:
        """What the cache of used hop tokens has refused, and why."""
        return {
            f"replay.{name}": count
            for name, count in (
                ("seen", self._replay.refused_seen),
                ("full", self._replay.refused_full),
                ("expired", self._replay.refused_expired),
            )
        }

    def _decide(self, check: CheckInput, call: Call, snapshot: Snapshot) -> Verdict:
        now = self._sources.wall_ns() // 1_000_000_000
        keys = VerificationKeys(hop=self._keys.public_keys(now))
        if check.direction is not Direction.MESH:
            workload = self._sources.workloads().identify(call.credential, now)
            return decide(Hop(check=check, workload=workload), snapshot, keys, now)
        believed = self._sources.mesh()
        reach = mesh.admit(believed, call.credential, call.envoy)
        if isinstance(reach, Refusal):
            return decide(Hop(check=check, workload=reach), snapshot, keys, now)
        peer = mesh.identify(believed, check.principal, snapshot.registry.by_service_account)
        return decide(Hop(check=check, workload=peer, reach=reach), snapshot, keys, now)

    def _equip(self, check: CheckInput, verdict: Verdict, snapshot: Snapshot, decision_id: str) -> tuple[Verdict, _Allowance]:
        """What needs state or secrets: a presented token is used up, a new one minted, the upstream's credential fetched."""
        now = self._sources.wall_ns() // 1_000_000_000
        if verdict.hop_token_id is not None and not self._replay.claim(verdict.hop_token_id, verdict.hop_token_expires_at or now, now):
            return replace(verdict, reason=Reason.HOP_TOKEN_REPLAYED, message="the hop token was used before"), _Allowance()
        if verdict.mint:
            return self._mint(check, verdict, decision_id, now)
        if verdict.credential is not None:
            try:
                header = credential.header_value(verdict.credential, snapshot.secrets)
            except CredentialError as error:
                return replace(verdict, reason=Reason.CREDENTIAL_UNAVAILABLE, message=str(error)), _Allowance()
            return verdict, _Allowance(headers=((header.name, header.reveal()),))
        return verdict, _Allowance()

    def _mint(self, check: CheckInput, verdict: Verdict, decision_id: str, now: int) -> tuple[Verdict, _Allowance]:
        if check.http is None or verdict.destination is None or verdict.caller is None:
            return replace(verdict, reason=Reason.INTERNAL_ERROR, message="a hop token needs an HTTP request"), _Allowance()
        try:
            claims = hop_token.next_claims(
                issuer=ISSUER,
                caller=verdict.caller,
                chain=verdict.chain[1:],
                user=verdict.user,
                audience=verdict.destination,
                token_id=self._sources.new_id(),
                transaction=verdict.transaction or decision_id,
                now=now,
                binding=RequestBinding.of(check.http.method, check.http.unverified_host.lower(), check.http.path, check.http.body),
            )
            token = hop_token.mint(self._keys.signing_key(now), claims)
        except TokenError as error:
            return replace(verdict, reason=Reason.HOP_TOKEN_INVALID, message=f"no hop token for this hop: {error}"), _Allowance()
        verdict = replace(verdict, transaction=claims.transaction)
        return verdict, _Allowance(headers=((HOP_TOKEN_HEADER, token.reveal()),), hop_token_id=claims.token_id)

    def _encode(self, check: CheckInput | None, verdict: Verdict, allowance: _Allowance, decision_id: str) -> bytes:
        if verdict.allowed:
            return wire.allow(
                dial=verdict.dial, set_headers=allowance.headers, remove_headers=verdict.remove_headers, decision_id=decision_id
            )
        if check is None or check.http is None:
            return wire.deny_connection(decision_id=decision_id)
        rendered = denial.render(verdict, decision_id, check)
        return wire.deny(status=rendered.status, headers=rendered.headers, body=rendered.body, decision_id=decision_id)


def _direction(call: Call) -> Direction:
    try:
        return _DIRECTIONS[call.direction or ""]
    except KeyError:
        raise WireError("expected the direction `outbound`, `inbound` or `mesh` from the gate's own configuration") from None


def _denied(call: Call, reason: Reason, message: str) -> Verdict:
    return Verdict(direction=_DIRECTIONS.get(call.direction or "", Direction.OUTBOUND), reason=reason, message=message)


def _in_time(verdict: Verdict, call: Call) -> Verdict:
    """An Allow that nobody waits for any more was a denial to the caller: Envoy has answered in the meantime."""
    left = call.seconds_left()
    if verdict.allowed and left is not None and left <= 0:
        return replace(verdict, reason=Reason.DEADLINE_EXCEEDED, message="the gate stopped waiting for this decision")
    return verdict
