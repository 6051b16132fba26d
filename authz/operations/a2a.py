"""A2A over JSON-RPC, method names of 0.3 and 1.0, and the agent card.

A push notification target is an address that the other agent will send data to, chosen by the caller: it is refused, as
a method and inside a message's configuration, since that hop would pass no gate of the caller's.
"""

from __future__ import annotations

from typing import Final

from authz.operations import body, endpoint, entities, rpc
from authz.operations.errors import OperationError
from authz.request import HttpRequest
from authz.verdict import Operation, Reason
from hopgate.policy.question import Action
from hopgate.resources.kinds import Agent
from hopgate.resources.registry import Destination

CARDS: Final = frozenset({"/.well-known/agent-card.json", "/.well-known/agent.json"})
_KINDS: Final = {
    "message/send": "Send",
    "SendMessage": "Send",
    "message/stream": "Stream",
    "SendStreamingMessage": "Stream",
}
_HOUSEKEEPING: Final = frozenset(
    {
        "tasks/get",
        "GetTask",
        "tasks/list",
        "ListTasks",
        "tasks/cancel",
        "CancelTask",
        "tasks/resubscribe",
        "SubscribeToTask",
        "agent/getAuthenticatedExtendedCard",
        "GetExtendedAgentCard",
        "tasks/pushNotificationConfig/get",
        "GetTaskPushNotificationConfig",
        "tasks/pushNotificationConfig/list",
        "ListTaskPushNotificationConfigs",
        "tasks/pushNotificationConfig/delete",
        "DeleteTaskPushNotificationConfig",
    }
)
_TARGETS: Final = frozenset({"tasks/pushNotificationConfig/set", "CreateTaskPushNotificationConfig"})
# Where a message carries a target, in 0.3 and in 1.0.
_TARGET_KEYS: Final = body.spellings("pushNotificationConfig", "taskPushNotificationConfig")
_PARAMS: Final = body.spellings("message", "configuration")


def extract(request: HttpRequest, destination: Destination) -> Operation:
    """The operation of one HTTP request to an agent. Raises OperationError."""
    if request.method == "GET" and request.path.partition("?")[0] in CARDS:
        return entities.housekeeping(destination)
    if request.method != "POST":
        raise OperationError(Reason.UNKNOWN_OPERATION, "expected JSON-RPC by POST, or the agent card (A2A's other bindings are not known)")
    message = rpc.read(request)
    endpoint.require(request, destination.record.path if isinstance(destination.record, Agent) else None, message.rpc)
    if message.method in _HOUSEKEEPING:
        return entities.housekeeping(destination, message.rpc)
    body.require_spelling(message.params, _PARAMS, message.rpc)
    kind = _KINDS.get(message.method or "")
    if message.method in _TARGETS or (kind is not None and _names_target(message.params.get("configuration"))):
        raise OperationError(Reason.UNKNOWN_OPERATION, "push notifications would pass by the gate: poll or stream the task", message.rpc)
    if kind is None:
        shown = (message.method or "a response")[:60]
        raise OperationError(Reason.UNKNOWN_OPERATION, f"the gate knows no A2A method `{shown}`", message.rpc)
    return Operation(
        action=Action.SEND_MESSAGE, resource=entities.of(destination), server=None, context={"message": {"kind": kind}}, rpc=message.rpc
    )


def _names_target(configuration: object) -> bool:
    """Also where the key is written with other capitals or underscores: some readers of JSON take `push_notification_config` too."""
    if not isinstance(configuration, dict):
        return False
    return any(value and key.replace("_", "").casefold() in _TARGET_KEYS for key, value in configuration.items())
