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


class _Handler:
    """Takes what comes beside the message from the call, and nothing else of gRPC."""

    def __init__(self, check: Check) -> None:
        self._check = check

    async def answer(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        metadata = {str(key): value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        return self._check(
            request,
            Call(
                authorization=metadata.get("authorization"),
                direction=metadata.get("x-hopgate-direction"),
                seconds_left=context.time_remaining,
            ),
        )


class Server:
    """Serves `check` on a Unix socket until stopped."""

    def __init__(self, check: Check, socket: Path) -> None:
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),
            )
        )
        handler = grpc.unary_unary_rpc_method_handler(_Handler(check).answer)
        _, service, method = METHOD.split("/")
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self._server.add_insecure_port(f"unix:{socket}")

    async def start(self) -> None:
        """Answer from now on."""
        await self._server.start()

    async def stop(self, grace_seconds: float) -> None:
        """Answer what is under way for at most `grace_seconds`, take nothing new."""
        await self._server.stop(grace_seconds)
