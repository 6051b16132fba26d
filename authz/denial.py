"""thin"""
from __future__ import annotations
import json
from dataclasses import dataclass
from authz.request import CheckInput
from authz.verdict import Verdict
from hopgate.resources.registry import Protocol

@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

def render(verdict: Verdict, decision_id: str, request: CheckInput) -> Denial:
    text = f"{verdict.message} ({verdict.reason.value}, decision {decision_id})"
    if verdict.protocol in (Protocol.MCP, Protocol.A2A):
        body: object = {"jsonrpc": "2.0", "id": verdict.rpc.id if verdict.rpc else None, "error": {"code": -32003, "message": text}}
    else:
        body = {"error": {"message": text, "type": "permission_error", "code": verdict.reason.value}}
    return Denial(status=403, headers=(("content-type", "application/json"),), body=json.dumps(body).encode())
