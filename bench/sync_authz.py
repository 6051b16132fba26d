"""The authz process on grpcio's other server: threads instead of asyncio. Only to be measured beside the real one.

Takes the arguments of `python -m authz`.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from authz import __main__ as entry
from authz import process
from authz.server import METHOD, Call, Check

THREADS = 4


class ThreadedServer:
    """Has the interface of `authz.server.Server`."""

    def __init__(self, check: Check, socket: Path) -> None:
        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            metadata = {str(key): value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
            call = Call(
                authorization=metadata.get("authorization"),
                direction=metadata.get("x-hopgate-direction"),
                seconds_left=context.time_remaining,
            )
            return check(request, call)

        _, service, method = METHOD.split("/")
        self._server = grpc.server(ThreadPoolExecutor(THREADS))
        handler = grpc.unary_unary_rpc_method_handler(answer)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self._server.add_insecure_port(f"unix:{socket}")

    async def start(self) -> None:
        self._server.start()

    async def stop(self, grace_seconds: float) -> None:
        self._server.stop(grace_seconds).wait()


process.Server = ThreadedServer  # type: ignore[attr-defined, assignment]  # the measurement's own
sys.exit(entry.main())
