"""The body of a request as JSON, under the rules that hold wherever a body is judged: whole, not encoded, said to be JSON.

A request in plain HTTP whose body nobody judges may have any body; one to another agent must be whole, since the hop
token binds it (`authz.decide`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from authz.operations.errors import OperationError
from authz.request import HttpRequest
from authz.verdict import Reason, RpcEnvelope
from hopgate import strict_json
from hopgate.strict_json import JsonError

# What Envoy hands on (`envoy/agent.yaml`); what is larger arrives cut and is refused where it is judged.
BODY_LIMIT: Final = 1 << 20
_JSON: Final = "application/json"
_CHARSETS: Final = ("utf-8", "utf8", "us-ascii")


def read_object(request: HttpRequest) -> dict[str, Any]:
    """The JSON object that the body is. Raises OperationError."""
    if not request.body_complete:
        raise OperationError(Reason.BODY_INCOMPLETE, f"expected a body of at most {BODY_LIMIT} bytes, as it is judged whole")
    if (encoding := single_header(request, "content-encoding")) not in (None, "identity"):
        raise OperationError(Reason.BODY_ENCODED, f"expected a body that is not encoded, got `{str(encoding)[:40]!r}`")
    _require_json(single_header(request, "content-type") or "")
    try:
        value = strict_json.parse(request.body)
    except JsonError as error:
        raise OperationError(Reason.BODY_MALFORMED, str(error)) from None
    if isinstance(value, list):
        raise OperationError(Reason.BATCH_REFUSED, "expected one request, got an array of them: send each by itself")
    if not isinstance(value, dict):
        raise OperationError(Reason.BODY_MALFORMED, "expected a JSON object")
    return value


def _require_json(content_type: str) -> None:
    """Another charset than UTF-8 is refused: the same bytes read as UTF-7, as some servers would, can be another request."""
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if kind != _JSON:
        raise OperationError(Reason.BODY_MALFORMED, f"expected a body of type {_JSON}, got `{kind[:40]!r}`")
    for name, _, value in (parameter.partition("=") for parameter in parameters):
        if name.strip().startswith("charset") and value.strip().strip('"') not in _CHARSETS:
            raise OperationError(Reason.BODY_MALFORMED, f"expected a body in UTF-8, got `{value[:40]!r}`")


def spellings(*keys: str) -> Mapping[str, str]:
    """The keys that a judgement reads, by what a reader that ignores capitals and underscores takes them for."""
    return {_folded(key): key for key in keys}


def require_spelling(given: Iterable[str], known: Mapping[str, str], rpc: RpcEnvelope | None) -> None:
    """Refuse `Params` where `params` is read: a reader that ignores case would act on what was not judged. Raises OperationError."""
    for key in given:
        meant = known.get(_folded(key))
        if meant is not None and meant != key:
            raise OperationError(Reason.BODY_MALFORMED, f"expected `{meant}` in no other spelling", rpc)


def _folded(key: str) -> str:
    return key.replace("_", "").casefold()


def single_header(request: HttpRequest, name: str) -> str | None:
    """The value of a header that decides something; None when it is absent. Raises OperationError when it is repeated."""
    try:
        return request.single(name)
    except ValueError as error:
        raise OperationError(Reason.REPEATED_HEADER, str(error)) from None


def text(container: dict[str, Any], key: str, limit: int, rpc: RpcEnvelope | None) -> str:
    """A required text of printable characters. Raises OperationError."""
    value = container.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isprintable():
        raise OperationError(Reason.BODY_MALFORMED, f"expected `{key}` to be text of 1 to {limit} printable characters", rpc)
    return value
