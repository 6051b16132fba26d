"""The gate's side of the control socket: each connection is one `hopgate run` (or one question about status)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket

from hopgate.identity import names
from hopgate.identity.errors import IdentityError
from hopgate.local.attachment import Attachment, AttachmentSpec
from hopgate.local.control import Answer, Attach, Attached, Connection, Hello, Refused, Request, StatusRequest
from hopgate.local.errors import LocalError
from hopgate.local.gate import Gate, GateError

_log = logging.getLogger(__name__)


class Sessions:
    """Accepts connections on `listener` until closed. Every connection that ends takes its agent out of the gate."""

    def __init__(self, gate: Gate, listener: socket.socket) -> None:
        self._gate = gate
        self._listener = listener
        self._open: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Accept until cancelled; then end every session."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                accepted, _ = await loop.sock_accept(self._listener)
                task = asyncio.create_task(self._session(Connection(accepted)))
                self._open.add(task)
                task.add_done_callback(self._ended)
        finally:
            self._listener.close()
            for task in tuple(self._open):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A session that broke has detached its agent on the way; what broke it is for whoever reads the gate's log."""
        self._open.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a session of the control socket broke", exc_info=error)

    async def _session(self, connection: Connection) -> None:
        attached: list[Attachment] = []
        try:
            if connection.peer_user() not in (0, os.geteuid()):
                return
            while (received := await connection.receive()) is not None:
                request, descriptors = received
                try:
                    answer = await self._answer(request, descriptors, attached)
                finally:
                    for descriptor in descriptors:
                        os.close(descriptor)
                await connection.send(answer)
        except OSError:
            return  # the peer went away in the middle of an answer
        finally:
            connection.close()
            for attachment in attached:
                await self._gate.detach(attachment)

    async def _answer(self, request: Request, descriptors: list[int], attached: list[Attachment]) -> Answer:
        try:
            match request:
                case Hello():
                    self._gate.require_agent(names.parse(request.agent))
                    return self._gate.welcome()
                case StatusRequest():
                    return await self._gate.status()
                case _:
                    attachment = await self._gate.attach(_spec(request, descriptors))
                    attached.append(attachment)
                    return Attached(inbound=None if attachment.inbound is None else str(attachment.inbound))
        except IdentityError as error:
            return Refused(code=error.code, message=str(error), remedy="name the agent as NAMESPACE/NAME")
        except LocalError as error:
            return Refused(code=error.code, message=str(error), remedy=error.remedy)


def _spec(request: Attach, descriptors: list[int]) -> AttachmentSpec:
    if len(descriptors) != 1:
        raise GateError(f"expected the descriptor of one network namespace, got {len(descriptors)}", remedy="use one version of hopgate")
    return AttachmentSpec(
        agent=names.parse(request.agent),
        namespace=os.dup(descriptors[0]),
        pid=request.pid,
        listen=request.listen,
        command=request.command,
        user=request.user,
        allow_sockets=request.allow_sockets,
        binds=request.binds,
        kept_variables=request.kept_variables,
        cgroup_id=request.cgroup_id,
    )
