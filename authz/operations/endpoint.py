"""The one path at which a destination answers its protocol: what a permit for the protocol says nothing about is anywhere else."""

from __future__ import annotations

from authz.operations.errors import OperationError
from authz.request import HttpRequest
from authz.verdict import Reason, RpcEnvelope


def require(request: HttpRequest, path: str | None, rpc: RpcEnvelope | None = None) -> None:
    """Refuse a request to another path than `path`, with or without a slash at its end. Raises OperationError."""
    asked = request.path.partition("?")[0]
    if path is None or asked not in (path, f"{path}/" if path != "/" else path):
        text = f"expected the path `{path}`, got `{asked[:80]!r}`: where the protocol is answered elsewhere, say so in `spec.path`"
        raise OperationError(Reason.PATH_MISMATCH, text, rpc)
