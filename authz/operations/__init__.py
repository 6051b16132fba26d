"""thin"""
from __future__ import annotations
import json
from authz.operations.errors import OperationError
from authz.request import HttpRequest
from authz.verdict import Operation, Reason, RpcEnvelope
from hopgate.policy.question import Action, Entity
from hopgate.policy import arguments as args
from hopgate.resources.registry import Destination, Protocol

BODY_LIMIT = 1 << 20

def _server(d: Destination) -> Entity:
    return Entity(d.name.kind.value, str(d.name.name))

def connect(sni: str, port: int, destination: Destination) -> Operation:
    return Operation(action=Action.CONNECT, resource=_server(destination), server=None, context={"connection": {"serverName": sni, "port": port}})

def extract(http: HttpRequest, destination: Destination) -> Operation:
    s = _server(destination)
    p = destination.protocol
    use = Operation(action=Action.USE_PROTOCOL, resource=s, server=None, context={})
    if p is Protocol.HTTP:
        return Operation(action=Action.HTTP_REQUEST, resource=s, server=None, context={})
    if http.method in ("GET", "DELETE"):
        return use
    if not http.body_complete:
        raise OperationError(Reason.BODY_INCOMPLETE, "cut")
    if http.single("content-encoding"):
        raise OperationError(Reason.BODY_ENCODED, "encoded")
    try:
        body = json.loads(http.body)
    except ValueError as error:
        raise OperationError(Reason.BODY_MALFORMED, "the body is no JSON") from error
    if isinstance(body, list):
        raise OperationError(Reason.BATCH_REFUSED, "batch")
    if p in (Protocol.OPENAI, Protocol.ANTHROPIC):
        name = body["model"]
        if destination.record.models and name not in destination.record.models:
            raise OperationError(Reason.UNKNOWN_MODEL, f"{name} is not listed")
        return Operation(action=Action.INVOKE_MODEL, resource=Entity("Model", f"{s.id}/{name}"), server=s, context={"model": {"name": name, "stream": bool(body.get("stream"))}})
    rpc = RpcEnvelope(id=body.get("id"))
    method = body.get("method", "")
    if p is Protocol.A2A:
        if method in ("SendMessage", "message/send"):
            return Operation(action=Action.SEND_MESSAGE, resource=s, server=None, context={"message": {"kind": "Send"}}, rpc=rpc)
        if method in ("SendStreamingMessage", "message/stream"):
            return Operation(action=Action.SEND_MESSAGE, resource=s, server=None, context={"message": {"kind": "Stream"}}, rpc=rpc)
        return Operation(action=Action.USE_PROTOCOL, resource=s, server=None, context={}, rpc=rpc)
    if method == "tools/list":
        return Operation(action=Action.LIST_TOOLS, resource=s, server=None, context={}, rpc=rpc)
    if method == "tools/call":
        name = body["params"]["name"]
        tool = next((t for t in destination.record.tools if t.name == name), None)
        if destination.record.tools and tool is None:
            raise OperationError(Reason.UNKNOWN_TOOL, f"{name} is not declared", rpc)
        try:
            typed = args.typed_arguments(tool.input_schema if tool else None, body["params"].get("arguments") or {})
        except args.ArgumentError as error:
            raise OperationError(Reason.INVALID_ARGUMENTS, str(error), rpc) from error
        return Operation(action=Action.CALL_TOOL, resource=Entity("Tool", f"{s.id}/{name}"), server=s, context={"arguments": typed}, rpc=rpc)
    if method.startswith(("initialize", "ping", "notifications/", "server/")) or "method" not in body:
        return Operation(action=Action.USE_PROTOCOL, resource=s, server=None, context={}, rpc=rpc)
    raise OperationError(Reason.UNKNOWN_OPERATION, f"unknown method {method}", rpc)
