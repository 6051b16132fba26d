"""Anthropic's API: messages and their token count name a model; all else is plain HTTP."""

from __future__ import annotations

from authz.operations import entities, http, models
from authz.request import HttpRequest
from authz.verdict import Operation
from hopgate.resources.registry import Destination

_INVOKING = ("/v1/messages", "/v1/messages/count_tokens")


def extract(request: HttpRequest, destination: Destination) -> Operation:
    """The operation of one request. Raises OperationError."""
    if request.method == "POST" and models.loosely(request.path).endswith(_INVOKING):
        return models.invoke(request, destination, "max_tokens")
    if request.method == "GET" and request.path.partition("?")[0].rstrip("/").endswith("/v1/models"):
        return entities.housekeeping(destination)
    return http.extract(request, destination)
