"""The one error of this package: what a request asks for can't be told, or is refused whatever the policies say."""

from __future__ import annotations

from authz.verdict import Reason, RpcEnvelope


class OperationError(Exception):
    """`message` is a sentence for the caller and repeats nothing of the body but a name; `rpc` is what a JSON-RPC denial needs."""

    def __init__(self, reason: Reason, message: str, rpc: RpcEnvelope | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.rpc = rpc
