"""The gRPC server around the check: bytes in, bytes out, over a Unix socket or, in a cluster, over TLS, there with certificates beside it.

Nothing is decided here, so another transport can take this module's place by measurement. A call is answered with a
CheckResponse whatever happens; a raw gRPC error would leave the verdict to the proxy's failure mode.

A listener for the Envoys of a mesh takes nobody without a certificate, and from nobody a word beside the message: an Envoy is who its
certificate says.

Over TLS every connection ends after a while, without a call being lost: its client is told to open another one, and what is under way is
answered. So a rotated certificate comes into use, connections spread over the processes anew, and a process that is to end gets rid of
them all (`drain`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from authz import certificates
from authz.certificates import CallerUnknownError
from authz.pb import health_pb2
from hopgate.tls_files import AuthorityFile, KeyPair, TlsFiles

METHOD: Final = "/envoy.service.auth.v3.Authorization/Check"
# grpc/health/v1/health.proto; Kubernetes' probes and Envoy's health checks call it.
HEALTH_METHOD: Final = "/grpc.health.v1.Health/Check"
# The names that are asked for: whether checks are answered rightly here, and whether the process answers at all.
READY: Final = ""
ALIVE: Final = "alive"
_BEARER: Final = "Bearer "
# What grpc gives of a verified certificate that has exactly one URI among its names, if that is a SPIFFE ID.
_SPIFFE_ID: Final = "peer_spiffe_id"
# Envoy sends at most BODY_LIMIT of body and its own header limit; what is larger is not from our bootstrap.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
# A handshake costs about 1 ms: a minute of 5,000 sidecars with two connections each is 8 % of a core in each of two processes.
CONNECTION_SECONDS: Final = 60.0
# grpc (1.85, max_age filter) moves each connection's end by up to a tenth, so that they don't all come back at once.
_AGE_SPREAD: Final = 1.1
# What is under way when a connection's time is over: a check is answered in milliseconds, or nobody waits for it any more.
CONNECTION_GRACE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What comes with a check beside its message, from Envoy's bootstrap: not from the app.

    `seconds_left` gives the time until the caller stops waiting; None: it waits for ever. `envoy` is the SPIFFE ID in the verified
    certificate of who asks, empty where it names nobody; None: no certificate is asked for.
    """

    authorization: str | None
    direction: str | None
    seconds_left: Callable[[], float | None]
    envoy: str | None = None

    @property
    def credential(self) -> str | None:
        """The workload credential that the caller's gate presented."""
        return bearer(self.authorization)


Check = Callable[[bytes, Call], bytes]


class CertificateDesk(Protocol):
    """What hands certificates out over TLS: a stream of secret discovery, and the credential that came with it."""

    def serve(self, requests: AsyncIterator[bytes], credential: str | None, /) -> AsyncIterator[bytes]:
        """The answers. Raises CallerUnknownError when the credential is nobody's, or nobody's any more."""

    def end(self) -> None:
        """End every stream in an orderly way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsListener:
    """`address` is `IP:PORT`, port 0 for any; `ready` says whether checks can be answered rightly.

    `mesh_authorities` makes it a listener for the Envoys of a mesh: who asks must show a certificate of one of them.
    """

    address: str
    files: TlsFiles
    ready: Callable[[], bool]
    connection_seconds: float = CONNECTION_SECONDS
    certificates: CertificateDesk | None = None
    mesh_authorities: AuthorityFile | None = None


class _Handler:
    """Takes what comes beside the message from the call, and nothing else of gRPC."""

    def __init__(self, check: Check) -> None:
        self._check = check

    async def answer(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        metadata = _metadata(context)
        return self._check(
            request,
            Call(
                authorization=metadata.get("authorization"),
                direction=metadata.get("x-hopgate-direction"),
                seconds_left=context.time_remaining,
            ),
        )


class _MeshHandler:
    """Takes who asks from its certificate, and nothing else of gRPC: what comes beside the message, whoever asks wrote."""

    def __init__(self, check: Check) -> None:
        self._check = check

    async def answer(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        named = [name.decode(errors="replace") for name in context.auth_context().get(_SPIFFE_ID, ())]
        envoy = named[0] if len(named) == 1 else ""
        return self._check(request, Call(authorization=None, direction="mesh", envoy=envoy, seconds_left=context.time_remaining))


class _Certificates:
    """One stream of secret discovery. A caller that is unknown may be known in a moment: its stream fails, and Envoy tries again."""

    def __init__(self, desk: CertificateDesk) -> None:
        self._desk = desk

    async def answer(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
        try:
            async for response in self._desk.serve(requests, bearer(_metadata(context).get("authorization"))):
                yield response
        except CallerUnknownError as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))


class _Health:
    """Answers probes; a name that is not known is not found, as the protocol says."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready

    async def answer(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        service = _service(request)
        if service not in {READY, ALIVE}:
            await context.abort(grpc.StatusCode.NOT_FOUND, "expected no service, or `alive`")
        status = health_pb2.HealthCheckResponse
        serving = service == ALIVE or self._ready()
        return status(status=status.SERVING if serving else status.NOT_SERVING).SerializeToString()


def bearer(authorization: str | None) -> str | None:
    """The credential of an `Authorization` header that a gate wrote."""
    return authorization.removeprefix(_BEARER) if authorization is not None and authorization.startswith(_BEARER) else None


def _metadata(context: grpc.aio.ServicerContext[bytes, bytes]) -> Mapping[str, str]:
    return {str(key): value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _service(request: bytes) -> str | None:
    try:
        return health_pb2.HealthCheckRequest.FromString(request).service
    except DecodeError:
        return None


class Server:
    """Serves `check` until stopped: on a Unix socket, or on TCP with TLS, where it also says whether it is ready."""

    def __init__(self, check: Check, listener: Path | TlsListener) -> None:
        for_mesh = isinstance(listener, TlsListener) and listener.mesh_authorities is not None
        handler = _MeshHandler(check) if for_mesh else _Handler(check)
        self._handlers = {METHOD: grpc.unary_unary_rpc_method_handler(handler.answer)}
        self._desk: CertificateDesk | None = None
        if isinstance(listener, TlsListener):
            self._handlers[HEALTH_METHOD] = grpc.unary_unary_rpc_method_handler(_Health(listener.ready).answer)
            self._desk = listener.certificates
            if self._desk is not None:
                self._handlers[certificates.METHOD] = grpc.stream_stream_rpc_method_handler(_Certificates(self._desk).answer)
            self._connection_seconds = listener.connection_seconds
            self._server = _server(self._handlers, _ages(listener.connection_seconds))
            self.port: int = self._server.add_secure_port(listener.address, _credentials(listener.files, listener.mesh_authorities))
        else:
            self._connection_seconds = 0.0
            self._server = _server(self._handlers, ())
            self.port = self._server.add_insecure_port(f"unix:{listener}")

    async def start(self) -> None:
        """Answer from now on."""
        await self._server.start()

    async def drain(self, notice_seconds: float) -> None:
        """Answer on until every connection has come to its end, and stop: nothing is lost, if no new ones come.

        Call it once health says "not ready"; `notice_seconds` is how long it takes until no new connections are led here. To stop at
        once would lose calls: what a client sends before it has read that the connection ends is not answered any more.
        """
        await asyncio.sleep(notice_seconds + self._connection_seconds * _AGE_SPREAD)
        await self.stop(CONNECTION_GRACE_SECONDS)

    async def stop(self, grace_seconds: float) -> None:
        """Answer what is under way for at most `grace_seconds`, take nothing new. Streams end at once: Envoy opens others elsewhere."""
        if self._desk is not None:
            self._desk.end()
        await self._server.stop(grace_seconds)


class HealthServer:
    """Says whether the process is ready and alive, on TCP without TLS: Kubernetes' own probes speak no TLS to a gRPC server."""

    def __init__(self, ready: Callable[[], bool], address: str) -> None:
        self._server = _server({HEALTH_METHOD: grpc.unary_unary_rpc_method_handler(_Health(ready).answer)}, ())
        self.port: int = self._server.add_insecure_port(address)

    async def start(self) -> None:
        """Answer from now on."""
        await self._server.start()

    async def stop(self) -> None:
        """Answer no longer."""
        await self._server.stop(None)


def _server(handlers: Mapping[str, grpc.RpcMethodHandler], options: tuple[tuple[str, int], ...]) -> grpc.aio.Server:
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
            *options,
        )
    )
    for path, handler in handlers.items():
        _, service, method = path.split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    return server


def _ages(seconds: float) -> tuple[tuple[str, int], ...]:
    return (
        ("grpc.max_connection_age_ms", int(seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", int(CONNECTION_GRACE_SECONDS * 1000)),
    )


def _credentials(files: TlsFiles, authorities: AuthorityFile | None) -> grpc.ServerCredentials:
    """Certificates by the files as they are at each handshake.

    Sidecars show none: who they are is in each call's credential. The Envoys of a mesh must show one of `authorities`.
    """

    def current() -> tuple[KeyPair, bytes | None]:
        return files.current(), None if authorities is None else authorities.current()

    def configuration(pair: KeyPair, bundle: bytes | None) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(((pair.private_key_pem.reveal(), pair.certificate_pem),), root_certificates=bundle)

    given = current()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        found = current()
        if found == given:
            return None
        given = found
        return configuration(*found)

    return grpc.dynamic_ssl_server_credentials(configuration(*given), fetch, require_client_authentication=authorities is not None)
