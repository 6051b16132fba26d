"""What the model APIs have in common: a model named in the body, streamed or not, with a bound on what it may answer."""

from __future__ import annotations

from typing import Any, Final

from authz.operations import body, entities
from authz.operations.errors import OperationError
from authz.request import HttpRequest
from authz.verdict import Operation, Reason
from hopgate.policy.question import Action, ContextValue
from hopgate.resources.kinds import ModelProvider
from hopgate.resources.registry import Destination

MAX_NAME: Final = 256
# Cedar's integers are of 64 bits.
_MAX_LONG: Final = (1 << 63) - 1


def invoke(request: HttpRequest, destination: Destination, *limits: str) -> Operation:
    """`InvokeModel` on the body's model. `limits` name the members that bound the answer's tokens; the largest given counts."""
    given = body.read_object(request)
    body.require_spelling(given, body.spellings("model", "stream", *limits), None)
    name = body.text(given, "model", MAX_NAME, None)
    listed = destination.record.models if isinstance(destination.record, ModelProvider) else ()
    if listed and name not in listed:
        raise OperationError(Reason.UNKNOWN_MODEL, f"{destination.name} lists no model `{name[:80]}`")
    model: dict[str, ContextValue] = {"name": name, "stream": _flag(given, "stream")}
    bounds = [bound for limit in limits if (bound := _bound(given, limit)) is not None]
    if bounds:
        model["maxTokens"] = max(bounds)
    return Operation(
        action=Action.INVOKE_MODEL,
        resource=entities.child(destination, "Model", name),
        server=entities.of(destination),
        context={"model": model},
    )


def _flag(given: dict[str, Any], key: str) -> bool:
    value = given.get(key)
    if value is not None and not isinstance(value, bool):
        raise OperationError(Reason.BODY_MALFORMED, f"expected `{key}` to be true or false")
    return bool(value)


def _bound(given: dict[str, Any], key: str) -> int | None:
    value = given.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_LONG:
        raise OperationError(Reason.BODY_MALFORMED, f"expected `{key}` to be a count of tokens")
    return value
