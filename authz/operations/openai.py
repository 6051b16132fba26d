"""OpenAI's API, and the many servers that copy it: chat completions, responses and embeddings name a model; all else is plain HTTP."""

from __future__ import annotations

from authz.operations import entities, http, models
from authz.request import HttpRequest
from authz.verdict import Operation
from hopgate.resources.registry import Destination

_INVOKING = ("/chat/completions", "/responses", "/completions", "/embeddings")
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def extract(request: HttpRequest, destination: Destination) -> Operation:
    """The operation of one request. Raises OperationError."""
    if request.method == "POST" and models.loosely(request.path).endswith(_INVOKING):
        return models.invoke(request, destination, *_LIMITS, named=models.deployments(request.path))
    if request.method == "GET" and request.path.partition("?")[0].rstrip("/").endswith("/models"):
        return entities.housekeeping(destination)
    return http.extract(request, destination)
