"""A real Envoy between two network namespaces, with a scripted authz: what tests of the gate's data path stand on.

Nothing here can reach outside: the agent's namespace leads to Envoy only, and Envoy's own has nothing but a loopback
interface. Both namespaces live as descriptors of this process, so a killed test run leaves none behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio

from authz import wire
from authz.certificates import CertificateServer
from authz.request import CheckInput, Direction
from hopgate.local import bootstrap, envoy_process
from hopgate.local.bootstrap import BootstrapSpec, PrivateAuthority
from hopgate.local.envoy_process import EnvoyProcess
from hopgate.resources.kinds import DialAddress
from tokenmint.authority import Authority, Leaf

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000  # linux/sched.h
DEADLINE_SECONDS = 20.0
WORKLOAD_TOKEN = "the-workload-token"

RULES = f"""
table inet gate {{
  chain output {{
    type nat hook output priority -100;
    oifname "lo" return
    meta l4proto tcp redirect to :{bootstrap.CAPTURE_PORT}
  }}
  chain guard {{
    type filter hook output priority 0; policy drop;
    oifname "lo" accept
    ct status dnat accept
    reject
  }}
}}
"""


class Namespace:
    """A network namespace of this process's making, known by its descriptor."""

    def __init__(self) -> None:
        self.descriptor = _in_thread(_make_namespace)
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Run a command inside; what it prints."""
        entered = ("nsenter", f"--net=/proc/self/fd/{self.descriptor}", "--", *command)
        done = subprocess.run(entered, input=stdin, capture_output=True, text=True, pass_fds=(self.descriptor,), check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket that belongs to this namespace, usable from anywhere."""

        def make() -> socket.socket:
            _enter(self.descriptor)
            return socket.socket(family, kind)

        made = _in_thread(make)
        made.setblocking(False)
        return made

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and what it starts, is inside for as long as the block lasts."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _enter(self.descriptor)
        try:
            yield
        finally:
            _enter(before)
            os.close(before)

    def close(self) -> None:
        os.close(self.descriptor)


def _make_namespace() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _in_thread(work: Callable[[], T]) -> T:
    """The result of `work`, done by a thread of its own: a thread that changed its namespace is good for nothing else."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(work).result()


def plug(agent: Namespace) -> None:
    """Give the agent's namespace a default route that leads into the redirection to Envoy, and to nothing else."""
    agent.run("ip", "link", "add", "gate0", "type", "veth", "peer", "name", "gate1")
    for link in ("gate0", "gate1"):
        agent.run("ip", "link", "set", link, "up")
    agent.run("ip", "addr", "add", "192.0.2.2/24", "dev", "gate0")
    agent.run("ip", "route", "add", "default", "via", "192.0.2.1", "dev", "gate0")
    agent.run("ip", "-6", "addr", "add", "2001:db8::2/64", "dev", "gate0", "nodad")
    agent.run("ip", "-6", "route", "add", "default", "via", "2001:db8::1", "dev", "gate0")
    agent.run("nft", "-f", "-", stdin=RULES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A check as Envoy sent it: the decoded value, the message's own bytes, the metadata beside it."""

    check: CheckInput
    message: bytes
    metadata: dict[str, str]


Script = Callable[[Asked], bytes | Awaitable[bytes]]


def allowing(
    dial: str | None, *, set_headers: tuple[tuple[str, str], ...] = (), remove_headers: tuple[str, ...] = ()
) -> Callable[[Asked], bytes]:
    """A script that allows everything and names one address to dial."""
    ip, _, port = (dial or "").rpartition(":")
    address = DialAddress(ip=ip.strip("[]"), port=int(port)) if dial else None

    def answer(_: Asked) -> bytes:
        return wire.allow(dial=address, set_headers=set_headers, remove_headers=remove_headers, decision_id="decision-1")

    return answer


def denying(status: int = 403) -> Callable[[Asked], bytes]:
    """A script that denies everything."""

    def answer(asked: Asked) -> bytes:
        if asked.check.http is None:
            return wire.deny_connection(decision_id="decision-1")
        headers = (("content-type", "application/json"), ("x-hopgate-decision", "decision-1"))
        return wire.deny(status=status, headers=headers, body=b'{"error":"denied"}', decision_id="decision-1")

    return answer


class ScriptedAuthz:
    """An ext_authz server that answers what the test's script says, and keeps every check."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._server: grpc.aio.Server | None = None
        self.script: Script = denying()
        self.asked: list[Asked] = []

    async def start(self) -> None:
        self._server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(self._check)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("envoy.service.auth.v3.Authorization", {"Check": handler}),)
        )
        self._server.add_insecure_port(f"unix:{self._path}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None
            self._path.unlink(missing_ok=True)

    async def _check(self, message: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        metadata = {str(key): value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        direction = Direction.INBOUND if metadata.get("x-hopgate-direction") == "inbound" else Direction.OUTBOUND
        asked = Asked(check=wire.decode(message, direction), message=message, metadata=metadata)
        self.asked.append(asked)
        answer = self.script(asked)
        return answer if isinstance(answer, bytes) else await answer


@dataclass(slots=True)
class Upstream:
    """A TCP server on the loopback interface of Envoy's namespace. It counts connections and keeps what it received.

    `answer` is called with each connection; the default reads one HTTP/1.1 request and answers 200.
    """

    answer: Callable[[Upstream, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] | None = None
    tls: ssl.SSLContext | None = None
    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    response_headers: tuple[tuple[str, str], ...] = ()
    _server: asyncio.Server | None = None

    @property
    def dial(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, listener: socket.socket | None = None) -> None:
        if listener is not None:
            self._server = await asyncio.start_server(self._serve, sock=listener, ssl=self.tls)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await (self.answer or _answer_ok)(self, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # Envoy or the client went away, as some tests want it to
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One HTTP/1.1 request, head and body, as it came."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.split(b":", 1) for line in head.lower().split(b"\r\n")[1:] if b":" in line)
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        body = b""
        while True:
            size = await reader.readuntil(b"\r\n")
            chunk = await reader.readexactly(int(size, 16) + 2)
            body += chunk[:-2]
            if int(size, 16) == 0:
                return head + body
    return head + await reader.readexactly(int(fields.get(b"content-length", b"0")))


async def _answer_ok(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        upstream.requests.append(await read_request(reader))
        extra = "".join(f"{name}: {value}\r\n" for name, value in upstream.response_headers)
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{extra}\r\nok".encode())
        await writer.drain()


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An HTTP/1.1 response as it came."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


def parse_response(data: bytes) -> Response:
    """Raises AssertionError for anything but a whole response that ended with the connection."""
    head, separator, body = data.partition(b"\r\n\r\n")
    assert separator, f"no response: {data[:200]!r}"
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
    if dict(headers).get("transfer-encoding") == "chunked":
        body = _dechunked(body)
    return Response(status=int(first.split(" ")[1]), headers=headers, body=body)


def _dechunked(data: bytes) -> bytes:
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        if int(size, 16) == 0:
            return body
        body += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]


@dataclass(slots=True, kw_only=True)
class World:
    """The agent's namespace, Envoy beside it, a scripted authz, a certificate server with an authority of its own."""

    agent: Namespace
    outside: Namespace
    envoy: EnvoyProcess
    authz: ScriptedAuthz
    certificates: CertificateServer
    authority: Authority
    hosts: set[str]
    upstreams: list[Upstream]
    folder: Path

    async def connect(
        self, address: str, port: int, *, server_hostname: str | None = None, alpn: tuple[str, ...] = ("http/1.1",)
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection from inside the agent's namespace; with `server_hostname`, TLS that trusts the gate's authority alone."""
        connection = self.agent.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(connection, (address, port)), DEADLINE_SECONDS)
            tls = None
            if server_hostname is not None:
                tls = ssl.create_default_context(cadata=self.authority.certificate_pem.decode())
                tls.set_alpn_protocols(list(alpn))
            return await asyncio.wait_for(
                asyncio.open_connection(sock=connection, ssl=tls, server_hostname=server_hostname), DEADLINE_SECONDS
            )
        except BaseException:
            connection.close()
            raise

    async def exchange(self, address: str, port: int, data: bytes, *, server_hostname: str | None = None) -> bytes:
        """Send bytes, read until the other side closes."""
        reader, writer = await self.connect(address, port, server_hostname=server_hostname)
        try:
            writer.write(data)
            await writer.drain()
            return await asyncio.wait_for(reader.read(), DEADLINE_SECONDS)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def request(
        self,
        address: str,
        port: int,
        *,
        host: str,
        method: str = "GET",
        target: str = "/",
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
        server_hostname: str | None = None,
    ) -> Response:
        """One HTTP/1.1 request from inside the agent's namespace."""
        lines = [f"{method} {target} HTTP/1.1", f"host: {host}", "connection: close", *(f"{name}: {value}" for name, value in headers)]
        if body:
            lines.append(f"content-length: {len(body)}")
        data = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        return parse_response(await self.exchange(address, port, data, server_hostname=server_hostname))

    async def upstream(self, upstream: Upstream | None = None, listener: socket.socket | None = None) -> Upstream:
        """Start a server for Envoy to dial; it ends with the world."""
        upstream = upstream or Upstream()
        await upstream.start(listener)
        self.upstreams.append(upstream)
        return upstream

    def serving_tls(self, host: str, authority: Authority | None = None) -> ssl.SSLContext:
        """A server's context with a certificate for `host` of the outside world's authority (the one that Envoy trusts)."""
        return server_context((authority or OUTSIDE).issue(host, _now()), self.folder)

    async def config_dump(self) -> dict[str, Any]:
        """Envoy's own account of its configuration."""
        dump: dict[str, Any] = json.loads(await self.envoy.admin("/config_dump?include_eds"))
        return dump

    async def counter(self, name: str) -> int:
        """One of Envoy's counters or gauges by its full name, 0 when there is none."""
        text = (await self.envoy.admin("/stats")).decode()
        return next((int(value) for key, _, value in (line.partition(": ") for line in text.splitlines()) if key == name), 0)


def _now() -> int:
    return int(time.time())


OUTSIDE = Authority.create(_now())


def server_context(leaf: Leaf, folder: Path) -> ssl.SSLContext:
    """A server's TLS context with this certificate."""
    pem = folder / f"{leaf.host}-{os.urandom(4).hex()}.pem"
    pem.write_bytes(leaf.certificate_pem + leaf.private_key_pem.reveal())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.set_alpn_protocols(["http/1.1"])
    return context


@contextlib.asynccontextmanager
async def running(
    folder: Path,
    *,
    app_port: int | None = None,
    private: tuple[PrivateAuthority, ...] = (),
    check_timeout_seconds: float = bootstrap.CHECK_TIMEOUT_SECONDS,
    change: Callable[[dict[str, Any]], None] | None = None,
) -> AsyncIterator[World]:
    """A world, from its namespaces to a ready Envoy. This thread is in the outside namespace as long as it lasts.

    `folder` must have a short path, for its sockets. `change` may alter the bootstrap, to show what a rule in it is good for.
    """
    agent, outside = Namespace(), Namespace()
    plug(agent)
    trusted = folder / "trusted.pem"
    trusted.write_bytes(OUTSIDE.certificate_pem)
    authority = Authority.create(_now())
    hosts: set[str] = set()
    authz = ScriptedAuthz(folder / "authz.sock")
    certificates = CertificateServer(lambda host: authority.issue(host, _now()) if host in hosts else None, folder / "certificates.sock")
    envoy = EnvoyProcess(envoy_process.find(), folder, pass_descriptors=(agent.descriptor,))
    spec = BootstrapSpec(
        agent="demo/planner",
        workload_token=WORKLOAD_TOKEN,
        namespace=f"/proc/self/fd/{agent.descriptor}",
        authz_socket=folder / "authz.sock",
        certificates_socket=folder / "certificates.sock",
        admin_socket=envoy.admin_socket,
        trusted_ca=trusted,
        app_port=app_port,
        private_authorities=private,
        check_timeout_seconds=check_timeout_seconds,
    )
    built = bootstrap.build(spec)
    if change is not None:
        tree = json.loads(built)
        change(tree)
        built = json.dumps(tree).encode()
    upstreams: list[Upstream] = []
    try:
        with outside.entered():
            await authz.start()
            await certificates.start()
            await envoy.start(built)
            yield World(
                agent=agent,
                outside=outside,
                envoy=envoy,
                authz=authz,
                certificates=certificates,
                authority=authority,
                hosts=hosts,
                upstreams=upstreams,
                folder=folder,
            )
    finally:
        await envoy.stop()
        for upstream in upstreams:
            await upstream.stop()
        await certificates.stop()
        await authz.stop()
        agent.close()
        outside.close()
