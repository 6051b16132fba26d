"""A denial in the words of the protocol that was spoken, so that the caller's own SDK raises its own permission error, at once.

The status is never one that asks for another try (429, 5xx). Of the request nothing is repeated but the JSON-RPC
id and, in the verdict's sentence, a bounded printable name of what was asked for (a method, a tool, a model).

- MCP: 403 with a JSON-RPC error that has the request's id; the session goes on.
- A2A: 200 with a JSON-RPC error for a request: its SDK looks for the error in an answer that succeeded and tells
  nothing of one that did not. Without a request to answer: 403.
- OpenAI, Anthropic: 403 with the provider's error object of the type that its SDK does not try again.
- All else: 403 with hopgate's own object.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from authz.request import CheckInput
from authz.verdict import Verdict
from hopgate.resources.registry import Protocol

# In JSON-RPC's range for servers (-32099 to -32000) and taken by neither MCP nor A2A.
RPC_CODE: Final = -32043
_HEADERS: Final = (("content-type", "application/json"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """An HTTP response. `body` is UTF-8 JSON."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def render(verdict: Verdict, decision_id: str, request: CheckInput) -> Denial:
    """The response to a request that `verdict` denies."""
    message = f"{verdict.message} ({verdict.reason.value}, decision {decision_id})"
    status = 403
    body: dict[str, Any]
    match verdict.protocol:
        case Protocol.MCP | Protocol.A2A if _is_rpc(request):
            identifier = verdict.rpc.id if verdict.rpc is not None else None
            data = {"reason": verdict.reason.value, "decision": decision_id}
            body = {"jsonrpc": "2.0", "id": identifier, "error": {"code": RPC_CODE, "message": message, "data": data}}
            status = 200 if verdict.protocol is Protocol.A2A and identifier is not None else 403
        case Protocol.OPENAI:
            body = {"error": {"message": message, "type": "permission_denied", "param": None, "code": verdict.reason.value}}
        case Protocol.ANTHROPIC:
            body = {"type": "error", "error": {"type": "permission_error", "message": message}, "request_id": decision_id}
        case _:
            body = {"error": {"code": verdict.reason.value, "message": message, "decision": decision_id}}
    return Denial(status=status, headers=_HEADERS, body=json.dumps(body).encode())


def _is_rpc(request: CheckInput) -> bool:
    return request.http is not None and request.http.method == "POST"
