"""The gRPC server around the check: bytes in, bytes out, one method, over a Unix socket.

Nothing is decided here, so another transport can take this module's place by measurement. A call is answered with a
CheckResponse whatever happens; a raw gRPC error would leave the verdict to the proxy's failure mode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

METHOD = "/envoy.service.auth.v3.Authorization/Check"
# Envoy sends at most BODY_LIMIT of body and its own header limit; what is larger is not from our bootstrap.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What comes with a check beside its message, from Envoy's bootstrap: not from the app.

    `seconds_left` gives the time until the caller stops waiting; None: it waits for ever.
    """

    authorization: str | None
    direction: str | None
    seconds_left: Callable[[], float | None]


Check = Callable[[bytes, Call], bytes]


class _Authorization(grpc.GenericRpcHandler):
    def __init__(self, check: Check) -> None:
        async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            metadata = {str(key): value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
            return check(
                request,
                Call(
                    authorization=metadata.get("authorization"),
                    direction=metadata.get("x-hopgate-direction"),
                    seconds_left=context.time_remaining,
                ),
            )

        self._handler = grpc.unary_unary_rpc_method_handler(answer)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The handler of the one method this server has."""
        return self._handler if handler_call_details.method == METHOD else None


class Server:
    """Serves `check` on a Unix socket until stopped."""

    def __init__(self, check: Check, socket: Path) -> None:
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),
            )
        )
        self._server.add_generic_rpc_handlers((_Authorization(check),))
        self._server.add_insecure_port(f"unix:{socket}")

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace_seconds: float) -> None:
        """Answer what is under way for at most `grace_seconds`, take nothing new."""
        await self._server.stop(grace_seconds)
