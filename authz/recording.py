"""From a verdict to the `decisions` record. The record's form is hopgate.audit's; nothing secret is in a verdict."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable

from authz.request import CheckInput
from authz.verdict import Verdict
from hopgate.audit import records
from hopgate.audit.records import Decision, Name
from hopgate.identity.names import ObjectName
from hopgate.policy.question import EvaluationError
from hopgate.snapshot import Snapshot

# W3C Trace Context, section 3.2: version, trace id, parent id, flags.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
# What a program chose and the record repeats is cut here.
_MAX_TEXT = 1024


def decision(
    *,
    decision_id: str,
    wall_ns: int,
    latency_ns: int,
    check: CheckInput | None,
    verdict: Verdict,
    minted_token_id: str | None,
    snapshot: Snapshot,
) -> Decision:
    """The record of one check; `check` is None when it could not be read. Times are in nanoseconds."""
    http = check.http if check is not None else None
    trace_id, span_id = _trace(http.values("traceparent")) if http is not None else ("", "")
    user, operation, observed = verdict.user, verdict.operation, verdict.observed
    credential = verdict.credential if verdict.allowed else None
    return Decision(
        id=decision_id,
        time=wall_ns // 1000,
        direction=verdict.direction.value,
        verdict="Allow" if verdict.allowed else "Deny",
        reason=verdict.reason.value,
        message=verdict.message,
        caller=_text(verdict.caller),
        user=user.subject if user is not None else "",
        user_issuer=user.issuer if user is not None else "",
        user_groups=user.groups if user is not None else (),
        chain=tuple(str(agent) for agent in verdict.chain),
        transaction=verdict.transaction or "",
        destination=_text(verdict.destination),
        protocol=verdict.protocol.value if verdict.protocol is not None else "",
        action=operation.action.value if operation is not None else "",
        resource=str(operation.resource) if operation is not None else "",
        context=records.shorten(verdict.context or {}),
        policies=verdict.policies,
        policy_digest=snapshot.policies.digest,
        snapshot_digest=snapshot.digest,
        errors=_errors(verdict.errors),
        observed_verdict="" if observed is None else "Allow" if observed.allowed else "Deny",
        observed_policies=observed.policies if observed is not None else (),
        observed_errors=_errors(observed.errors) if observed is not None else (),
        latency_us=latency_ns // 1000,
        request_id=check.request_id[:_MAX_TEXT] if check is not None else "",
        trace_id=trace_id,
        span_id=span_id,
        presented_token_id=verdict.hop_token_id or "",
        minted_token_id=minted_token_id or "",
        credential=f"{credential.secret.secret}:{credential.secret.key}" if credential is not None else "",
        source=_text(check.source if check is not None else None),
        address=_text(check.destination if check is not None else None),
        dial=_text(verdict.dial),
        sni=(check.sni or "")[:_MAX_TEXT] if check is not None else "",
        method=http.method[:_MAX_TEXT] if http is not None else "",
        host=http.unverified_host[:_MAX_TEXT] if http is not None else "",
        path=http.path.partition("?")[0][:_MAX_TEXT] if http is not None else "",
        body_bytes=len(http.body) if http is not None else 0,
        truncated=False,
    )


def name_question(agent: ObjectName, name: str, kind: str, answer: str, transport: str, wall_ns: int) -> Name:
    """A question to the resolver. `wall_ns` is in Unix nanoseconds."""
    return Name(id=secrets.token_hex(16), time=wall_ns // 1000, agent=str(agent), name=name, type=kind, answer=answer, transport=transport)


def _errors(errors: Iterable[EvaluationError]) -> tuple[str, ...]:
    return tuple(f"{error.policy}: {error.message}" for error in errors)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _trace(values: tuple[str, ...]) -> tuple[str, str]:
    """Trace id and parent id of the one `traceparent`; both are empty without one that is well formed."""
    match = _TRACEPARENT.fullmatch(values[0]) if len(values) == 1 else None
    return (match[1], match[2]) if match is not None else ("", "")
