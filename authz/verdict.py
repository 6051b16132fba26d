"""The verdict: the one value that passes between the decision and the wire, the record and the mint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from authz.request import Direction
from hopgate.identity.names import DestinationName, ObjectName, User
from hopgate.policy.question import Action, ContextValue, Entity, EvaluationError, Observation
from hopgate.resources.kinds import Credential, DialAddress
from hopgate.resources.registry import Protocol


class Reason(StrEnum):
    """Why a verdict is what it is: stable codes, also metric labels. `Permitted` is the only one that allows."""

    PERMITTED = "Permitted"
    # who is calling
    UNKNOWN_CALLER = "UnknownCaller"
    QUARANTINED = "Quarantined"
    INVALID_USER_TOKEN = "InvalidUserToken"  # noqa: S105 - a reason code
    # where to
    UNKNOWN_DESTINATION = "UnknownDestination"
    PORT_MISMATCH = "PortMismatch"
    HOST_MISMATCH = "HostMismatch"
    SNI_MISMATCH = "SniMismatch"
    PROTOCOL_MISMATCH = "ProtocolMismatch"
    DESTINATION_UNRESOLVED = "DestinationUnresolved"
    DESTINATION_NOT_RUNNING = "DestinationNotRunning"
    DESTINATION_OUT_OF_REACH = "DestinationOutOfReach"
    # what
    REPEATED_HEADER = "RepeatedHeader"
    MALFORMED_REQUEST = "MalformedRequest"
    PATH_MISMATCH = "PathMismatch"
    BODY_INCOMPLETE = "BodyIncomplete"
    BODY_ENCODED = "BodyEncoded"
    BODY_MALFORMED = "BodyMalformed"
    BATCH_REFUSED = "BatchRefused"
    HEADER_BODY_MISMATCH = "HeaderBodyMismatch"
    UNKNOWN_OPERATION = "UnknownOperation"
    UNKNOWN_TOOL = "UnknownTool"
    UNKNOWN_MODEL = "UnknownModel"
    INVALID_ARGUMENTS = "InvalidArguments"
    # the receiving side
    HOP_TOKEN_MISSING = "HopTokenMissing"  # noqa: S105 - a reason code
    HOP_TOKEN_INVALID = "HopTokenInvalid"  # noqa: S105 - a reason code
    HOP_TOKEN_REPLAYED = "HopTokenReplayed"  # noqa: S105 - a reason code
    # the policies
    NO_PERMIT = "NoPermit"
    FORBIDDEN = "Forbidden"
    POLICY_ERROR = "PolicyError"
    # the gate itself
    CREDENTIAL_UNAVAILABLE = "CredentialUnavailable"
    RECORD_FAILED = "RecordFailed"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    INTERNAL_ERROR = "InternalError"


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcEnvelope:
    """What a JSON-RPC denial must repeat: the request's own id (None: a notification, or unreadable)."""

    id: str | int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What a request does at its destination, in Cedar's words. `context` holds this operation's own part only."""

    action: Action
    resource: Entity
    server: Entity | None
    context: Mapping[str, ContextValue]
    rpc: RpcEnvelope | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A decision with its reasons. `allowed` is true exactly when `reason` is `Permitted`.

    `message` is a sentence for people, safe to send to the caller. Fields stay None or empty where the decision ended before they
    were known. `credential` names what the broker must add; `mint` says that the destination takes a hop token.
    `remove_headers` are taken off the request before it goes on.
    """

    direction: Direction
    reason: Reason
    message: str
    caller: ObjectName | None = None
    user: User | None = None
    chain: tuple[ObjectName, ...] = ()
    transaction: str | None = None
    destination: DestinationName | None = None
    protocol: Protocol | None = None
    operation: Operation | None = None
    rpc: RpcEnvelope | None = None
    context: Mapping[str, ContextValue] | None = None
    policies: tuple[str, ...] = ()
    errors: tuple[EvaluationError, ...] = ()
    observed: Observation | None = None
    dial: DialAddress | None = None
    credential: Credential | None = None
    mint: bool = False
    hop_token_id: str | None = None
    hop_token_expires_at: int | None = None
    remove_headers: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the hop may pass."""
        return self.reason is Reason.PERMITTED
