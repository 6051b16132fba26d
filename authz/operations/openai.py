"""OpenAI's API, and the many servers that copy it: chat completions, responses and embeddings name a model; all else is plain HTTP."""

from __future__ import annotations

from authz.operations import entities, http, models
from authz.request import HttpRequest
from authz.verdict import Operation
from hopgate.resources.registry import Destination

_INVOKING = ("/chat/completions", "/responses", "/completions", "/embeddings")


def extract(request: HttpRequest, destination: Destination) -> Operation:
    """The operation of one request. Raises OperationError."""
    path = request.path.partition("?")[0].rstrip("/")
    if request.method == "POST" and path.endswith(_INVOKING):
        return models.invoke(request, destination, "max_tokens", "max_completion_tokens", "max_output_tokens")
    if request.method == "GET" and path.endswith("/models"):
        return entities.housekeeping(destination)
    return http.extract(request, destination)
