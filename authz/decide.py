"""The decision: one pure function from a check, a snapshot, the verification keys and the time to a verdict.

Caller, destination, operation, policy: in this order, and the first that is not clean ends in a Deny with its reason.
Nothing is read but the arguments; replay and the tests call the same function. What needs state (a token seen once,
the mint, the record) comes after it, in `authz.check`, and can only turn an Allow into a Deny.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from authz import caller as callers
from authz import destination as destinations
from authz import operations
from authz.caller import HOP_TOKEN_HEADER, Caller, CallerError, VerificationKeys
from authz.destination import DestinationError
from authz.mesh import EVERYWHERE, Reach
from authz.operations.errors import OperationError
from authz.request import CheckInput, Direction, HttpRequest
from authz.verdict import Operation, Reason, RpcEnvelope, Verdict
from authz.workloads import Refusal
from hopgate.identity.names import DestinationName, ObjectName
from hopgate.policy.question import ContextValue, Entity, Judgement, Question
from hopgate.resources.kinds import Agent, Credential, DialAddress
from hopgate.resources.registry import Endpoint, Protocol
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
    """What is judged: a check, and the agent whose credential the gate presented with it, or why it is nobody's.

    `reach` is what a mesh's Envoy stands before; other gates stand before one agent.
    """

    check: CheckInput
    workload: ObjectName | Refusal
    reach: Reach = EVERYWHERE


def decide(hop: Hop, snapshot: Snapshot, keys: VerificationKeys, now: int) -> Verdict:
    """Judge one hop. `now` is in Unix seconds. Raises nothing for any input that `CheckInput` can hold."""
    draft = _Draft(hop.check.direction)
    try:
        return _decide(hop, snapshot, keys, now, draft)
    except _RefusedError as refused:
        return draft.verdict(refused.reason, refused.message)


class _RefusedError(Exception):
    """Ends a decision at the step that was not clean."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.message = message


@dataclass(slots=True)
class _Draft:
    """What is known so far of the hop; the verdict is made of it once, at the end."""

    direction: Direction
    caller: ObjectName | None = None
    identity: Caller | None = None
    destination: DestinationName | None = None
    protocol: Protocol | None = None
    operation: Operation | None = None
    rpc: RpcEnvelope | None = None
    context: Mapping[str, ContextValue] | None = None
    judgement: Judgement | None = None
    dial: DialAddress | None = None
    credential: Credential | None = None
    mint: bool = False
    remove_headers: tuple[str, ...] = ()

    def verdict(self, reason: Reason, message: str) -> Verdict:
        """The verdict; what came before it is in it whatever the reason is."""
        identity, judgement = self.identity, self.judgement
        return Verdict(
            direction=self.direction,
            reason=reason,
            message=message,
            caller=self.caller,
            user=identity.user if identity is not None else None,
            chain=identity.chain if identity is not None else (),
            transaction=identity.transaction if identity is not None else None,
            destination=self.destination,
            protocol=self.protocol,
            operation=self.operation,
            rpc=self.rpc,
            context=self.context,
            policies=judgement.policies if judgement is not None else (),
            errors=judgement.errors if judgement is not None else (),
            observed=judgement.observed if judgement is not None else None,
            dial=self.dial,
            credential=self.credential,
            mint=self.mint,
            hop_token_id=identity.hop_token_id if identity is not None else None,
            hop_token_expires_at=identity.hop_token_expires_at if identity is not None else None,
            remove_headers=self.remove_headers,
        )


def _decide(hop: Hop, snapshot: Snapshot, keys: VerificationKeys, now: int, draft: _Draft) -> Verdict:
    check = hop.check
    agent = _require_workload(hop.workload, snapshot, draft)
    _require_single_headers(check.http)
    endpoint = _find_endpoint(hop, agent, snapshot, draft)
    caller = _identify(check, agent, endpoint, snapshot, keys, now, draft)
    operation = _find_operation(check, endpoint, draft)
    draft.context = _context(check, caller, operation, now)
    question = Question(
        principal=Entity("Agent", str(caller.agent)),
        action=operation.action,
        resource=operation.resource,
        server=operation.server,
        context=draft.context,
        caller_namespace=caller.agent.namespace,
        destination_namespace=endpoint.destination.name.name.namespace,
    )
    draft.judgement = snapshot.policies.judge(question)
    reason, message = _judged(draft.judgement, question)
    if reason is Reason.PERMITTED:
        if check.direction is Direction.OUTBOUND:
            _route(check, endpoint, snapshot, now, draft)
        elif check.direction is Direction.MESH:
            _equip_mesh(check, endpoint, draft)
        else:
            draft.remove_headers = _reserved(check.http)
    return draft.verdict(reason, message)


def _require_workload(workload: ObjectName | Refusal, snapshot: Snapshot, draft: _Draft) -> Agent:
    """The agent behind this gate, or the mesh's peer: the caller. Inbound the hop token says who that is."""
    if isinstance(workload, Refusal):
        raise _RefusedError(Reason.UNKNOWN_CALLER, f"{workload.message} ({workload.code})")
    if draft.direction is not Direction.INBOUND:
        draft.caller = workload
    agent = snapshot.registry.agents.get(workload)
    if agent is None:
        raise _RefusedError(Reason.UNKNOWN_CALLER, f"agent {workload} is not registered")
    _refuse_quarantined(agent)
    return agent


def _refuse_quarantined(agent: Agent) -> None:
    """A quarantined agent is reached by nobody and reaches nobody: its gate is the one thing that its quarantine leaves open."""
    if agent.quarantine:
        raise _RefusedError(Reason.QUARANTINED, f"agent {agent.name} is quarantined")


def _require_single_headers(http: HttpRequest | None) -> None:
    if http is None:
        return
    seen: set[str] = set()
    for name, _ in http.headers:
        if name in SINGLE_VALUED_HEADERS:
            if name in seen:
                raise _RefusedError(Reason.REPEATED_HEADER, f"header `{name}` occurs more than once")
            seen.add(name)


def _find_endpoint(hop: Hop, agent: Agent, snapshot: Snapshot, draft: _Draft) -> Endpoint:
    check = hop.check
    try:
        if check.direction is Direction.OUTBOUND:
            endpoint = destinations.find_outbound(check, snapshot)
        elif check.direction is Direction.MESH:
            endpoint = destinations.find_mesh(check, hop.reach, snapshot)
        else:
            endpoint = destinations.find_inbound(check, agent, snapshot)
    except DestinationError as error:
        draft.destination = error.destination
        raise _RefusedError(error.reason, error.message) from error
    draft.destination, draft.protocol = endpoint.destination.name, endpoint.destination.protocol
    return endpoint


def _identify(
    check: CheckInput, agent: Agent, endpoint: Endpoint, snapshot: Snapshot, keys: VerificationKeys, now: int, draft: _Draft
) -> Caller:
    """Who calls, for whom, through which chain: inbound from the hop token, else the agent itself and the user's token that it carries."""
    try:
        if check.direction is Direction.INBOUND:
            caller = callers.inbound(check.http, endpoint.destination.name, keys, now)
        else:
            caller = callers.outbound(check.http, agent.name, snapshot, keys, now)
    except CallerError as error:
        raise _RefusedError(error.reason, error.message) from error
    draft.caller, draft.identity = caller.agent, caller
    calling = snapshot.registry.agents.get(caller.agent)
    if calling is None:
        raise _RefusedError(Reason.UNKNOWN_CALLER, f"agent {caller.agent} is not registered")
    _refuse_quarantined(calling)
    return caller


def _find_operation(check: CheckInput, endpoint: Endpoint, draft: _Draft) -> Operation:
    try:
        if check.http is None:
            draft.operation = operations.connect(check.sni or "", check.destination.port, endpoint.destination)
            return draft.operation
        operation = operations.extract(check.http, endpoint.destination)
    except OperationError as error:
        draft.rpc = error.rpc
        raise _RefusedError(error.reason, error.message) from error
    draft.operation, draft.rpc = operation, operation.rpc
    if check.direction is not Direction.MESH and destinations.is_governed(endpoint) and not check.http.body_complete:
        raise _RefusedError(
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


def _judged(judgement: Judgement, question: Question) -> tuple[Reason, str]:
    if judgement.allowed:
        return Reason.PERMITTED, f"permitted by {', '.join(judgement.policies)}"
    asked = f"{question.principal.id} may not {question.action.value} {question.resource.id}"
    if judgement.errors:
        return Reason.POLICY_ERROR, f"{asked}: a policy could not be evaluated"
    if judgement.forbidden:
        return Reason.FORBIDDEN, f"{asked}: forbidden by {', '.join(judgement.policies)}"
    return Reason.NO_PERMIT, f"{asked}: no policy permits it"


def _route(check: CheckInput, endpoint: Endpoint, snapshot: Snapshot, now: int, draft: _Draft) -> None:
    """What an allowed outbound hop is given: the address to dial, a token or a credential, and what is taken off."""
    authority = check.http.unverified_host if check.http is not None else check.sni or ""
    try:
        draft.dial = destinations.find_dial(endpoint, authority, snapshot, now)
    except DestinationError as error:
        raise _RefusedError(error.reason, error.message) from error
    record = endpoint.destination.record
    draft.mint = destinations.is_governed(endpoint)
    draft.credential = None if isinstance(record, Agent) else record.credential
    written = {HOP_TOKEN_HEADER} if draft.mint else set()
    if draft.credential is not None:
        written.add(draft.credential.header)
    draft.remove_headers = _taken_off(check.http, written)


def _equip_mesh(check: CheckInput, endpoint: Endpoint, draft: _Draft) -> None:
    """What an allowed hop through a mesh's Envoy is given: the upstream's credential. The mesh dials, and no gate of ours takes a token."""
    record = endpoint.destination.record
    draft.credential = None if isinstance(record, Agent) else record.credential
    draft.remove_headers = _taken_off(check.http, set() if draft.credential is None else {draft.credential.header})


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
