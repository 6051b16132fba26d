"""What a request asks for, in Cedar's words: one typed extractor a protocol, chosen by the registry and never by the request.

An extractor returns the operation or raises OperationError; whatever the bytes are, there is no third outcome. What it
can't place is refused: an unknown method is not housekeeping.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from authz.operations import a2a, anthropic, http, mcp, openai
from authz.operations.body import BODY_LIMIT
from authz.operations.connect import connect
from authz.operations.errors import OperationError
from authz.request import HttpRequest
from authz.verdict import Operation
from hopgate.resources.registry import Destination, Protocol

__all__ = ["BODY_LIMIT", "OperationError", "connect", "extract"]

_EXTRACTORS: Final[dict[Protocol, Callable[[HttpRequest, Destination], Operation]]] = {
    Protocol.A2A: a2a.extract,
    Protocol.MCP: mcp.extract,
    Protocol.OPENAI: openai.extract,
    Protocol.ANTHROPIC: anthropic.extract,
    Protocol.HTTP: http.extract,
}


def extract(request: HttpRequest, destination: Destination) -> Operation:
    """The operation of an HTTP request at a destination whose TLS is not sealed. Raises OperationError."""
    return _EXTRACTORS[destination.protocol](request, destination)
