"""What the model APIs have in common: a model named in the body, streamed or not, with a bound on what it may answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final
from urllib.parse import unquote

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


def loosely(path: str) -> str:
    """A path as the most lenient server could route it: decoded, in any case, without parameters, query or doubled slashes.

    For finding what must be judged. What needs no judging is found by its exact path.
    """
    plain = re.sub(r";[^/]*", "", unquote(path.partition("?")[0]).casefold())
    return re.sub(r"//+", "/", plain).rstrip("/")


def deployments(path: str) -> tuple[str, ...]:
    """What a path names in the manner of `/deployments/NAME/chat/completions` (Azure), where the server goes by it and not by the body."""
    segments = [unquote(segment) for segment in path.partition("?")[0].split("/") if segment]
    return tuple(after for before, after in pairwise(segments) if before.casefold() == "deployments")


def invoke(request: HttpRequest, destination: Destination, *limits: str, named: Sequence[str] = ()) -> Operation:
    """`InvokeModel` on the body's model. `limits` name the members that bound the answer's tokens; the largest given counts.

    `named` are models that the path names: each must be the body's. Raises OperationError.
    """
    given = body.read_object(request)
    body.require_spelling(given, body.spellings("model", "stream", *limits), None)
    name = body.text(given, "model", MAX_NAME, None)
    if any(each != name for each in named):
        raise OperationError(Reason.HEADER_BODY_MISMATCH, "expected the path's deployment to be the body's model")
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
