"""The error of operation extraction."""

from __future__ import annotations

from authz.verdict import Reason, RpcEnvelope


class OperationError(Exception):
    """What the request asks for can't be judged."""

    def __init__(self, reason: Reason, message: str, rpc: RpcEnvelope | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.rpc = rpc
