"""The control socket between `hopgate run` (and `status`) and a gate: one message, one packet.

A Unix SOCK_SEQPACKET socket in a folder that only its owner enters; the peer's user id is checked all the same. A
connection that attached an agent is the agent's life at the gate: when it closes, for whatever reason, the agent is
detached. Descriptors travel beside the message that names them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from pathlib import Path

import msgspec

from hopgate.local.errors import LocalError
from sensor.state import GateListener

# A status of some hundred agents fits; a seqpacket of more than the socket's buffer would be refused by the kernel.
MAX_PACKET_BYTES = 180_000
_PEER = struct.Struct("3i")


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """Asks what a program needs to know before it is started for `agent`."""

    agent: str


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome"):
    """`hidden` are folders that no agent may see; `authority_pem` is the CA of opened TLS; `providers` are those registered."""

    authority_pem: str
    providers: tuple[str, ...]
    hidden: tuple[str, ...]
    resources: str


class Attach(msgspec.Struct, frozen=True, kw_only=True, tag="attach"):
    """Plugs the network namespace whose descriptor comes along. What is opened beyond the gate is recorded. `cgroup_id` 0: it has none."""

    agent: str
    pid: int
    listen: int | None
    command: tuple[str, ...]
    user: int
    allow_sockets: tuple[str, ...]
    binds: tuple[str, ...]
    kept_variables: tuple[str, ...]
    cgroup_id: int


class Attached(msgspec.Struct, frozen=True, kw_only=True, tag="attached"):
    """`inbound` is the address of the agent's inbound gate, where it listens."""

    inbound: str | None


class StatusRequest(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """Asks how the gate is."""


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`since` is in Unix seconds; `refused_packets` counts what the namespace's rules refused outright."""

    agent: str
    pid: int
    since: int
    inbound: str | None
    envoy_restarts: int
    refused_packets: int
    cgroup_id: int = 0
    listeners: tuple[GateListener, ...] = ()


class SensorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The second witness: how its programs came into the kernel and why so, and by name what it does not see."""

    pid: int | None
    restarts: int
    loader: str
    why: str
    unseen: tuple[str, ...]
    counters: dict[str, int]
    unenforced: tuple[str, ...] = ()


class Status(msgspec.Struct, frozen=True, kw_only=True, tag="status-report"):
    """`mistakes` stand against the folder as it is now; the snapshot in force is then older than the folder."""

    pid: int
    resources: str
    data: str
    snapshot_digest: str
    snapshot_loaded_at: int
    mistakes: tuple[str, ...]
    agents: tuple[AgentStatus, ...]
    authz_pid: int | None
    authz_restarts: int
    counters: dict[str, int]
    sensor: SensorStatus


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """An error for a person: `code` is stable, `message` says what was expected and came, `remedy` what to do."""

    code: str
    message: str
    remedy: str


Request = Hello | Attach | StatusRequest
Answer = Welcome | Attached | Status | Refused

_requests = msgspec.json.Decoder(Request)
_answers = msgspec.json.Decoder(Answer)


class ControlError(LocalError):
    """The gate could not be asked, or answered something that is no answer."""

    code = "GateUnreachable"


class Client:
    """One blocking connection to a gate."""

    def __init__(self, path: Path, timeout_seconds: float) -> None:
        """Raises ControlError when no gate answers at `path`."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._socket.settimeout(timeout_seconds)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise ControlError(f"no gate answers at `{path}`: {error.strerror}", remedy="start one with `hopgate up`") from error

    def ask(self, request: Request, descriptors: tuple[int, ...] = ()) -> Answer:
        """Send one request, wait for its answer. Raises ControlError."""
        try:
            socket.send_fds(self._socket, [msgspec.json.encode(request)], list(descriptors))
            packet = self._socket.recv(MAX_PACKET_BYTES)
        except OSError as error:
            raise ControlError(f"the gate did not answer: {error}", remedy="see what it wrote on standard error") from error
        if not packet:
            raise ControlError("the gate closed the connection", remedy="see what it wrote on standard error")
        try:
            answer: Answer = _answers.decode(packet)
        except msgspec.MsgspecError as error:
            raise ControlError(f"the gate's answer can't be read: {error}", remedy="use one version of hopgate for both") from error
        return answer

    def fileno(self) -> int:
        """The connection's descriptor: readable when the gate is gone."""
        return self._socket.fileno()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


class Connection:
    """One connection at the gate's side, driven by the event loop."""

    def __init__(self, accepted: socket.socket) -> None:
        accepted.settimeout(0)
        self._socket = accepted

    def peer_user(self) -> int:
        """The user id of the process at the other end, from the kernel."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        return int(_PEER.unpack(credentials)[1])

    async def receive(self) -> tuple[Request, list[int]] | None:
        """The next request with its descriptors (the caller's to close); None when the peer is gone or sends what is no request."""
        loop = asyncio.get_running_loop()
        readable: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._socket, _settle, readable)
        try:
            await readable
        finally:
            loop.remove_reader(self._socket)
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._socket, MAX_PACKET_BYTES, 4, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return None
        try:
            return _requests.decode(packet), descriptors
        except msgspec.MsgspecError:  # also for the empty packet of a peer that is gone
            for descriptor in descriptors:
                os.close(descriptor)
            return None

    async def send(self, answer: Answer) -> None:
        """Send one answer. Raises OSError when the peer is gone."""
        await asyncio.get_running_loop().sock_sendall(self._socket, msgspec.json.encode(answer))

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


def _settle(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def listen(path: Path) -> socket.socket:
    """The gate's listening socket at `path`, for its owner only."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen()
    listener.settimeout(0)
    return listener
