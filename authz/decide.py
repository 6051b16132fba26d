"""The decision: one pure function from a check, a snapshot, the verification keys and the time to a verdict.

Caller, destination, operation, policy: in this order, and the first that is not clean ends in a Deny with its reason.
Nothing is read but the arguments; replay and the tests call the same function. What needs state (a token seen once,
the mint, the record) comes after it, in `authz.check`, and can only turn an Allow into a Deny.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from authz import caller as callers
from authz import destination as destinations
from authz import operations
from authz.caller import HOP_TOKEN_HEADER, Caller, CallerError, VerificationKeys
from authz.destination import DestinationError
from authz.operations.errors import OperationError
from authz.request import CheckInput, Direction, HttpRequest
from authz.verdict import Operation, Reason, Verdict
from hopgate.identity.names import ObjectName
from hopgate.policy.question import ContextValue, Entity, Judgement, Question
from hopgate.resources.kinds import Agent
from hopgate.resources.registry import Endpoint
from hopgate.snapshot import Snapshot
from tokenmint.credential import CALLER_CREDENTIAL_HEADERS

# Names that only gates write: whatever an app sends under them is taken off, in both directions.
RESERVED_HEADER_PREFIXES = ("x-hopgate-", "x-envoy-")
# A header that decides something must have one value: with two, the gate could judge one and the upstream obey the other.
SINGLE_VALUED_HEADERS = frozenset(
    {
        "content-encoding",
        "content-length",
        "content-type",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "mcp-session-id",
        "transfer-encoding",
        HOP_TOKEN_HEADER,
        *(name for name in CALLER_CREDENTIAL_HEADERS if name != "cookie"),  # RFC 9113 8.2.3 lets cookies be split
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """What is judged: a check, and the agent whose credential the gate presented with it (None: no valid one)."""

    check: CheckInput
    workload: ObjectName | None


def decide(hop: Hop, snapshot: Snapshot, keys: VerificationKeys, now: int) -> Verdict:
    """Judge one hop. `now` is in Unix seconds. Raises nothing for any input that `CheckInput` can hold."""
    verdict = Verdict(direction=hop.check.direction, reason=Reason.INTERNAL_ERROR, message="the decision did not finish")
    try:
        return _decide(hop, snapshot, keys, now, verdict)
    except _RefusedError as refused:
        return refused.verdict


class _RefusedError(Exception):
    """Carries the verdict of the step that ended a decision."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason.value)
        self.verdict = verdict


def _decide(hop: Hop, snapshot: Snapshot, keys: VerificationKeys, now: int, verdict: Verdict) -> Verdict:
    check = hop.check
    agent = _require_workload(hop.workload, snapshot, verdict)
    if check.direction is Direction.OUTBOUND:
        verdict = replace(verdict, caller=agent.name)
    _require_single_headers(check.http, verdict)
    endpoint = _find_endpoint(check, agent, snapshot, verdict)
    verdict = replace(verdict, destination=endpoint.destination.name, protocol=endpoint.destination.protocol)
    verdict, caller = _identify(check, agent, endpoint, snapshot, keys, now, verdict)
    operation = _find_operation(check, endpoint, verdict)
    verdict = replace(verdict, operation=operation, rpc=operation.rpc)
    context = _context(check, caller, operation, now)
    question = Question(
        principal=Entity("Agent", str(caller.agent)),
        action=operation.action,
        resource=operation.resource,
        server=operation.server,
        context=context,
        caller_namespace=caller.agent.namespace,
        destination_namespace=endpoint.destination.name.name.namespace,
    )
    judgement = snapshot.policies.judge(question)
    verdict = _judged(replace(verdict, context=context), judgement, question)
    if not verdict.allowed or check.direction is Direction.INBOUND:
        return replace(verdict, remove_headers=_reserved(check.http))
    return _route(check, endpoint, snapshot, now, verdict)


def _require_workload(workload: ObjectName | None, snapshot: Snapshot, verdict: Verdict) -> Agent:
    if workload is None:
        raise _refuse(verdict, Reason.UNKNOWN_CALLER, "the caller presented no valid workload credential")
    agent = snapshot.registry.agents.get(workload)
    if agent is None:
        raise _refuse(replace(verdict, caller=workload), Reason.UNKNOWN_CALLER, f"agent {workload} is not registered")
    return agent


def _require_single_headers(http: HttpRequest | None, verdict: Verdict) -> None:
    if http is None:
        return
    seen: set[str] = set()
    for name, _ in http.headers:
        if name in SINGLE_VALUED_HEADERS:
            if name in seen:
                raise _refuse(verdict, Reason.REPEATED_HEADER, f"header `{name}` occurs more than once")
            seen.add(name)


def _find_endpoint(check: CheckInput, agent: Agent, snapshot: Snapshot, verdict: Verdict) -> Endpoint:
    try:
        if check.direction is Direction.OUTBOUND:
            return destinations.find_outbound(check, snapshot)
        return destinations.find_inbound(check, agent, snapshot)
    except DestinationError as error:
        raise _refuse(replace(verdict, destination=error.destination), error.reason, error.message) from error


def _identify(
    check: CheckInput, agent: Agent, endpoint: Endpoint, snapshot: Snapshot, keys: VerificationKeys, now: int, verdict: Verdict
) -> tuple[Verdict, Caller]:
    """Who calls, for whom, through which chain: outbound from this gate's own agent, inbound from the hop token."""
    try:
        if check.direction is Direction.OUTBOUND:
            caller = callers.outbound(check.http, agent.name, snapshot, keys, now)
        else:
            caller = callers.inbound(check.http, endpoint.destination.name, keys, now)
    except CallerError as error:
        raise _refuse(verdict, error.reason, error.message) from error
    verdict = replace(
        verdict,
        caller=caller.agent,
        user=caller.user,
        chain=caller.chain,
        transaction=caller.transaction,
        hop_token_id=caller.hop_token_id,
        hop_token_expires_at=caller.hop_token_expires_at,
    )
    if caller.agent not in snapshot.registry.agents:
        raise _refuse(verdict, Reason.UNKNOWN_CALLER, f"agent {caller.agent} is not registered")
    return verdict, caller


def _find_operation(check: CheckInput, endpoint: Endpoint, verdict: Verdict) -> Operation:
    try:
        if check.http is None:
            return operations.connect(check.sni or "", check.destination.port, endpoint.destination)
        operation = operations.extract(check.http, endpoint.destination)
    except OperationError as error:
        raise _refuse(replace(verdict, rpc=error.rpc), error.reason, error.message) from error
    if destinations.is_governed(endpoint) and not check.http.body_complete:
        raise _refuse(
            replace(verdict, operation=operation, rpc=operation.rpc),
            Reason.BODY_INCOMPLETE,
            f"a request to another agent is bound to its whole body, at most {operations.BODY_LIMIT} bytes",
        )
    return operation


def _context(check: CheckInput, caller: Caller, operation: Operation, now: int) -> Mapping[str, ContextValue]:
    actors: list[ContextValue] = [str(agent) for agent in caller.chain]
    context: dict[str, ContextValue] = {**operation.context, "now": now, "chain": {"depth": len(caller.chain), "actors": actors}}
    if check.http is not None:
        host = check.http.unverified_host.lower().partition(":")[0]  # agrees with the registry by now
        context["http"] = {"method": check.http.method, "path": check.http.path.partition("?")[0], "host": host}
    if caller.user is not None:
        context["onBehalfOf"] = {"user": caller.user.subject, "issuer": caller.user.issuer, "groups": list(caller.user.groups)}
    return context


def _judged(verdict: Verdict, judgement: Judgement, question: Question) -> Verdict:
    verdict = replace(verdict, policies=judgement.policies, errors=judgement.errors, observed=judgement.observed)
    asked = f"{question.principal.id} may not {question.action.value} {question.resource.id}"
    if judgement.errors:
        return replace(verdict, reason=Reason.POLICY_ERROR, message=f"{asked}: a policy could not be evaluated")
    if judgement.allowed:
        return replace(verdict, reason=Reason.PERMITTED, message=f"permitted by {', '.join(judgement.policies)}")
    if judgement.forbidden:
        return replace(verdict, reason=Reason.FORBIDDEN, message=f"{asked}: forbidden by {', '.join(judgement.policies)}")
    return replace(verdict, reason=Reason.NO_PERMIT, message=f"{asked}: no policy permits it")


def _route(check: CheckInput, endpoint: Endpoint, snapshot: Snapshot, now: int, verdict: Verdict) -> Verdict:
    """What an allowed outbound hop is given: the address to dial, a token or a credential, and what is taken off."""
    authority = check.http.unverified_host if check.http is not None else check.sni or ""
    try:
        dial = destinations.find_dial(endpoint, authority, snapshot, now)
    except DestinationError as error:
        return replace(verdict, reason=error.reason, message=error.message)
    governed = destinations.is_governed(endpoint)
    record = endpoint.destination.record
    credential = None if isinstance(record, Agent) else record.credential
    written = {HOP_TOKEN_HEADER} if governed else set()
    if credential is not None:
        written.add(credential.header)
    return replace(verdict, dial=dial, mint=governed, credential=credential, remove_headers=_taken_off(check.http, written))


def _reserved(http: HttpRequest | None) -> tuple[str, ...]:
    if http is None:
        return ()
    return tuple(dict.fromkeys(name for name, _ in http.headers if name.startswith(RESERVED_HEADER_PREFIXES)))


def _taken_off(http: HttpRequest | None, written: AbstractSet[str]) -> tuple[str, ...]:
    """The caller's own credentials and reserved names. Envoy removes after it sets, so what the gate writes is not listed."""
    return tuple(
        name
        for name in dict.fromkeys(name for name, _ in (http.headers if http is not None else ()))
        if name not in written and (name in CALLER_CREDENTIAL_HEADERS or name.startswith(RESERVED_HEADER_PREFIXES))
    )


def _refuse(verdict: Verdict, reason: Reason, message: str) -> _RefusedError:
    return _RefusedError(replace(verdict, reason=reason, message=message))
