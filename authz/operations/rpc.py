"""JSON-RPC 2.0 as MCP and A2A use it: the envelope of one request, notification or response."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from authz.operations import body
from authz.operations.errors import OperationError
from authz.request import HttpRequest
from authz.verdict import Reason, RpcEnvelope

# The longest method of either protocol has 40 characters; ids are counters or UUIDs.
MAX_METHOD: Final = 100
MAX_ID: Final = 200
_KEYS: Final = body.spellings("jsonrpc", "id", "method", "params", "result", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message. `method` is None for a response to a request of the server's; `params` is empty where there are none."""

    method: str | None
    params: dict[str, Any]
    rpc: RpcEnvelope


def read(request: HttpRequest) -> Message:
    """The one JSON-RPC message that the body is. Raises OperationError."""
    message = body.read_object(request)
    rpc = RpcEnvelope(id=_identifier(message))
    body.require_spelling(message, _KEYS, rpc)
    if message.get("jsonrpc") != "2.0":
        raise OperationError(Reason.BODY_MALFORMED, "expected JSON-RPC 2.0", rpc)
    if sum(key in message for key in ("method", "result", "error")) != 1:
        raise OperationError(Reason.BODY_MALFORMED, "expected one of a method, a result and an error", rpc)
    if "method" not in message:
        return Message(method=None, params={}, rpc=rpc)
    params = message.get("params", {})
    if not isinstance(params, dict):
        raise OperationError(Reason.BODY_MALFORMED, "expected `params` to be an object", rpc)
    return Message(method=body.text(message, "method", MAX_METHOD, rpc), params=params, rpc=rpc)


def _identifier(message: dict[str, Any]) -> str | int | None:
    """The request's id, to be repeated in a denial: text or an integer, else none. A boolean is an int in Python only."""
    value = message.get("id")
    if isinstance(value, str) and len(value) <= MAX_ID:
        return value
    return value if isinstance(value, int) and not isinstance(value, bool) else None
