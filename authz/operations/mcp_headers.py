"""MCP's routing headers (revision 2026-07-28): what they repeat of the body must be what the body says, since a server may go by them.

`Mcp-Method` and `Mcp-Name` repeat the method and what it names. `Mcp-Param-*` repeats an argument of a tool call that the
tool's schema marks with `x-mcp-header`. Refused: a difference, a repetition, and for a tool whose schema is declared a parameter that
it does not mark. Where no schema is declared no argument is judged, so nothing can differ from what was judged.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from authz.operations import body
from authz.operations.errors import OperationError
from authz.operations.rpc import Message
from authz.request import HttpRequest
from authz.verdict import Reason

# Which parameter `Mcp-Name` repeats.
_NAMED_BY: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_PARAMETER: Final = "mcp-param-"
_MARK: Final = "x-mcp-header"
_ENCODED = re.compile(r"=\?base64\?([A-Za-z0-9+/=]*)\?=")


def require_agreement(request: HttpRequest, message: Message, given: Mapping[str, str]) -> None:
    """`Mcp-Method` and `Mcp-Name` name what the body names; the parameters in `given` come with a tool call only. Raises OperationError."""
    method = body.single_header(request, "mcp-method")
    if method is not None and method != message.method:
        raise OperationError(Reason.HEADER_BODY_MISMATCH, "expected `Mcp-Method` to name the body's method", message.rpc)
    name = body.single_header(request, "mcp-name")
    if name is not None:
        named = message.params.get(_NAMED_BY.get(message.method or "", ""))
        if _decoded(name) != named or named is None:
            raise OperationError(Reason.HEADER_BODY_MISMATCH, "expected `Mcp-Name` to name what the body names", message.rpc)
    if given and message.method != "tools/call":
        raise OperationError(Reason.HEADER_BODY_MISMATCH, "expected `Mcp-Param-` headers with a tool call only", message.rpc)


def parameters(request: HttpRequest) -> Mapping[str, str]:
    """The `Mcp-Param-*` headers by what follows the prefix, in lower case. Raises OperationError when one is repeated."""
    names = [name for name, _ in request.headers if name.startswith(_PARAMETER)]
    return {name.removeprefix(_PARAMETER): body.single_header(request, name) or "" for name in names}


def require_arguments(given: Mapping[str, str], message: Message, schema: Mapping[str, Any]) -> None:
    """Each parameter in `given` is the one argument that `schema` marks with its name. Raises OperationError."""
    marked = list(_marked(schema)) if given else []
    for name, value in given.items():
        paths = [path for path, mark in marked if mark.casefold() == name.casefold()]
        if len(paths) != 1:
            text = f"expected `Mcp-Param-` headers for arguments that the declared schema marks with `{_MARK}` once"
            raise OperationError(Reason.HEADER_BODY_MISMATCH, text, message.rpc)
        written = _written(_at(message.params.get("arguments"), paths[0]))
        if written is None or _decoded(value) != written:
            text = f"expected the `Mcp-Param-` header of argument `{'.'.join(paths[0])}` to say what the body says"
            raise OperationError(Reason.HEADER_BODY_MISMATCH, text, message.rpc)


def _marked(schema: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The path and the mark of each marked property; only plain `properties` lead to one (MCP, custom headers)."""
    waiting: list[tuple[tuple[str, ...], Mapping[str, Any]]] = [((), schema)]
    while waiting:
        path, each = waiting.pop()
        if path and isinstance(mark := each.get(_MARK), str):
            yield path, mark
        properties = each.get("properties")
        if isinstance(properties, Mapping):
            waiting.extend(((*path, name), inner) for name, inner in properties.items() if isinstance(inner, Mapping))


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _written(value: Any) -> str | None:
    """An argument as a client writes it into a header; None for what has no such form."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None


def _decoded(value: str) -> str | None:
    """A header's value, which may be in base64 between marks; None where that is not in its one spelling."""
    match = _ENCODED.fullmatch(value)
    if match is None:
        return value
    try:
        decoded = base64.b64decode(match[1], validate=True)
        return decoded.decode() if base64.b64encode(decoded).decode() == match[1] else None
    except (binascii.Error, UnicodeDecodeError):
        return None
