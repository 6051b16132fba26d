"""MCP over streamable HTTP, revisions 2025-06-18 (sessions) and 2026-07-28 (stateless, with routing headers).

The decision is on the body; the routing headers must say the same (`authz.operations.mcp_headers`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from authz.operations import body, endpoint, entities, mcp_headers, rpc
from authz.operations.errors import OperationError
from authz.operations.rpc import Message
from authz.request import HttpRequest
from authz.verdict import Operation, Reason
from hopgate.policy.question import Action
from hopgate.resources.arguments import NO_ARGUMENTS, ArgumentError, RecordType
from hopgate.resources.kinds import Tool, ToolServer
from hopgate.resources.registry import Destination

# The specification asks for tool names of at most 128 characters; prompts are named alike.
MAX_NAME: Final = 256
# RFC 9110 section 4.1 recommends that 8,000 octets be supported.
MAX_URI: Final = 8000
# What carries no content to or from the server but the protocol's own. `completion/complete` is not here: it sends what was typed.
_HOUSEKEEPING: Final = frozenset({"initialize", "ping", "server/discover", "logging/setLevel"})
# A client's notifications, by name: an unknown one could carry anything.
_NOTIFICATIONS: Final = frozenset(
    f"notifications/{name}" for name in ("initialized", "cancelled", "progress", "roots/list_changed", "elicitation/complete")
)
# The lists of resources and prompts tell no content either, but they tell what is there, as `tools/list` does for tools.
_LISTS: Final = frozenset({"resources/list", "resources/templates/list", "prompts/list", "tools/list"})
_READS: Final = frozenset({"resources/read", "resources/subscribe", "resources/unsubscribe"})
_PARAMS: Final = body.spellings("name", "arguments", "uri", "notifications")
_FILTER: Final = body.spellings("resourceSubscriptions")


def extract(request: HttpRequest, destination: Destination) -> Operation:
    """The operation of one HTTP request to an MCP server. Raises OperationError."""
    path = destination.record.path if isinstance(destination.record, ToolServer) else None
    if request.method in ("GET", "DELETE"):
        endpoint.require(request, path)
        return entities.housekeeping(destination)  # the session's stream of events, and the session's end
    if request.method != "POST":
        raise OperationError(Reason.UNKNOWN_OPERATION, f"MCP has no {request.method[:20]} requests")
    message = rpc.read(request)
    endpoint.require(request, path, message.rpc)
    body.require_spelling(message.params, _PARAMS, message.rpc)
    mirrored = mcp_headers.parameters(request)
    mcp_headers.require_agreement(request, message, mirrored)
    if message.method is None or message.method in _HOUSEKEEPING or message.method in _NOTIFICATIONS:
        return entities.housekeeping(destination, message.rpc)
    judge = _JUDGED.get(message.method)
    if judge is None:
        raise OperationError(Reason.UNKNOWN_OPERATION, f"the gate knows no MCP method `{message.method[:60]}`", message.rpc)
    operation = judge(message, destination)
    schema = _declared_schema(message, destination)
    if schema is not None:
        mcp_headers.require_arguments(mirrored, message, schema)
    return operation


def _declared_schema(message: Message, destination: Destination) -> Mapping[str, Any] | None:
    tool = _tool(message, destination) if message.method == "tools/call" else None
    return None if tool is None else tool.input_schema


def _tool(message: Message, destination: Destination) -> Tool | None:
    tools = destination.record.tools if isinstance(destination.record, ToolServer) else ()
    return next((tool for tool in tools if tool.name == message.params.get("name")), None)


def _list(message: Message, destination: Destination) -> Operation:
    return Operation(action=Action.LIST_TOOLS, resource=entities.of(destination), server=None, context={}, rpc=message.rpc)


def _call(message: Message, destination: Destination) -> Operation:
    name = body.text(message.params, "name", MAX_NAME, message.rpc)
    given = message.params.get("arguments")
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise OperationError(Reason.BODY_MALFORMED, "expected `arguments` to be an object", message.rpc)
    tool = _tool(message, destination)
    if tool is None and isinstance(destination.record, ToolServer) and destination.record.tools:
        raise OperationError(Reason.UNKNOWN_TOOL, f"{destination.name} declares no tool `{name[:80]}`", message.rpc)
    declared = NO_ARGUMENTS if tool is None else tool.arguments
    _require_declared_spelling(declared, given, message)
    try:
        typed = declared.take(given)
    except ArgumentError as error:
        raise OperationError(Reason.INVALID_ARGUMENTS, str(error), message.rpc) from None
    return Operation(
        action=Action.CALL_TOOL,
        resource=entities.child(destination, "Tool", name),
        server=entities.of(destination),
        context={"arguments": typed},
        rpc=message.rpc,
    )


def _require_declared_spelling(declared: RecordType, given: Mapping[str, Any], message: Message) -> None:
    """Refuse `Limit` where `limit` is declared: a policy would find no limit, and a tool that ignores case would find one."""
    meant = {name.casefold(): name for name in declared.properties}
    for name in given:
        if name not in declared.properties and (exact := meant.get(name.casefold())) is not None:
            raise OperationError(Reason.INVALID_ARGUMENTS, f"expected argument `{exact}` in no other spelling", message.rpc)
    for name, kind in declared.properties.items():
        if isinstance(kind, RecordType) and isinstance(given.get(name), dict):
            _require_declared_spelling(kind, given[name], message)


def _listen(message: Message, destination: Destination) -> Operation:
    """A stream of notifications. One that follows a resource reads it; a question to the policies names one resource."""
    wanted = message.params.get("notifications", {})
    if not isinstance(wanted, dict):
        raise OperationError(Reason.BODY_MALFORMED, "expected `notifications` to be an object", message.rpc)
    body.require_spelling(wanted, _FILTER, message.rpc)
    followed = wanted.get("resourceSubscriptions")
    if followed is None or followed == []:
        return entities.housekeeping(destination, message.rpc)
    if not isinstance(followed, list) or len(followed) != 1:
        raise OperationError(Reason.UNKNOWN_OPERATION, "expected one resource to follow on a stream: open one for each", message.rpc)
    return _reading(body.text({"uri": followed[0]}, "uri", MAX_URI, message.rpc), message, destination)


def _read(message: Message, destination: Destination) -> Operation:
    return _reading(body.text(message.params, "uri", MAX_URI, message.rpc), message, destination)


def _reading(uri: str, message: Message, destination: Destination) -> Operation:
    return Operation(
        action=Action.READ_RESOURCE, resource=entities.of(destination), server=None, context={"resource": {"uri": uri}}, rpc=message.rpc
    )


def _get_prompt(message: Message, destination: Destination) -> Operation:
    name = body.text(message.params, "name", MAX_NAME, message.rpc)
    return Operation(
        action=Action.GET_PROMPT, resource=entities.of(destination), server=None, context={"prompt": {"name": name}}, rpc=message.rpc
    )


_JUDGED: Final[dict[str, Callable[[Message, Destination], Operation]]] = {
    **dict.fromkeys(_LISTS, _list),
    **dict.fromkeys(_READS, _read),
    "tools/call": _call,
    "prompts/get": _get_prompt,
    "subscriptions/listen": _listen,
}
