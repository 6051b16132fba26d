"""A real Envoy between two network namespaces, with a scripted authz: what tests of the gate's data path stand on.

Nothing here can reach outside: the agent's namespace leads to Envoy only, and Envoy's own has nothing but a loopback
interface. Both namespaces live as descriptors of this process, so a killed test run leaves none behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from authz import wire
from authz.certificates import CertificateServer
from authz.request import CheckInput, Direction
from authz.wire import WireError
from hopgate.local import envoy_process, namespace
from hopgate.local.envoy_process import EnvoyProcess
from hopgate.proxy import bootstrap
from hopgate.proxy.bootstrap import BootstrapSpec
from hopgate.resources.kinds import DialAddress
from hopgate.resources.private_authorities import PrivateAuthority
from tests.http_ends import Response, Upstream, parse_response
from tests.network_namespaces import Namespace
from tokenmint.authority import Authority, Leaf

DEADLINE_SECONDS = 20.0
WORKLOAD_TOKEN = "the-workload-token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A check as Envoy sent it: the decoded value, the message's own bytes, the metadata beside it."""

    check: CheckInput
    message: bytes
    metadata: dict[str, str]


Script = Callable[[Asked], bytes | Awaitable[bytes]]


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until `condition` holds. Raises TimeoutError after the deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await condition():  # noqa: ASYNC110 - other processes have no event to wait for
            await asyncio.sleep(0.005)  # between two looks at the condition


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
    """An ext_authz server that answers what the test's script says, and keeps every check. With `tls` at an address, else at a path."""

    def __init__(self, path: Path | str, tls: grpc.ServerCredentials | None = None) -> None:
        self._path = path
        self._tls = tls
        self._server: grpc.aio.Server | None = None
        self.script: Script = denying()
        self.asked: list[Asked] = []
        self.malformed = 0

    async def start(self) -> None:
        self._server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(self._check)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("envoy.service.auth.v3.Authorization", {"Check": handler}),)
        )
        if self._tls is not None:
            self._server.add_secure_port(str(self._path), self._tls)
        else:
            self._server.add_insecure_port(f"unix:{self._path}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None
            if isinstance(self._path, Path):
                self._path.unlink(missing_ok=True)

    async def _check(self, message: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        metadata = {str(key): value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        direction = Direction.INBOUND if metadata.get("x-hopgate-direction") == "inbound" else Direction.OUTBOUND
        try:
            check = wire.decode(message, direction)
        except WireError:
            self.malformed += 1
            return wire.deny(status=400, headers=(), body=b"malformed", decision_id="decision-1")
        asked = Asked(check=check, message=message, metadata=metadata)
        self.asked.append(asked)
        answer = self.script(asked)
        return answer if isinstance(answer, bytes) else await answer


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
    namespace.plug(agent.descriptor)
    outside.raise_loopback()
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
