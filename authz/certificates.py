"""Envoy's secret discovery (delta) for TLS that ends at the gate: over a Unix socket here, in a cluster on the port of the checks.

Envoy asks for the name in a client's TLS greeting, and waits with the handshake for the answer. A name that `issue` vouches
for gets a certificate; any other gets "it does not exist", which fails the handshake at once. What was answered is pushed
anew when a certificate nears its end and when the registry changed (`refresh`). The number of names is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from authz.pb import core_pb2, discovery_pb2, tls_secret_pb2
from tokenmint.authority import Leaf
from tokenmint.errors import AuthorityError

METHOD: Final = "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets"
SECRET_TYPE: Final = f"type.googleapis.com/{tls_secret_pb2.Secret.DESCRIPTOR.full_name}"

# Envoy opens one stream for a name and keeps it for as long as the name exists; names that do are registered by people.
MAX_STREAMS: Final = 2048
# Envoy asks for one name on a stream; a few allow for a version that shares streams.
MAX_NAMES_PER_STREAM: Final = 16
# Requests of one stream that wait for their answers; Envoy sends the next one after the answer.
MAX_WAITING_REQUESTS: Final = 16
# A certificate is asked for again when it is to be renewed, never later than this, and not in a tight loop.
LONGEST_WAIT_SECONDS: Final = 3600.0
SHORTEST_WAIT_SECONDS: Final = 1.0

Issue = Callable[[str], Leaf | None]
# Whether whoever opened a stream may have it still; raises CallerUnknownError.
Admit = Callable[[], None]
_log = logging.getLogger(__name__)


class CallerUnknownError(Exception):
    """Whoever asks for certificates is nobody, or nobody any more: nothing is handed out, and the stream ends."""

    code = "CallerUnknown"


class Subscription:
    """What one stream asked for and was told. The server around it brings messages and looks at the clock."""

    def __init__(self, issue: Issue) -> None:
        self._issue = issue
        self._told: dict[str, Leaf | None] = {}
        self._nonce = 0

    @property
    def renew_at(self) -> float:
        """When (Unix seconds) a certificate is to be made anew; infinite while there is none."""
        return min((leaf.renew_at for leaf in self._told.values() if leaf is not None), default=float("inf"))

    def ask(self, request: discovery_pb2.DeltaDiscoveryRequest) -> discovery_pb2.DeltaDiscoveryResponse | None:
        """The answer to a request; None for one that asks for nothing (an acknowledgement). Names beyond the bound don't exist."""
        if request.HasField("error_detail"):
            _log.warning("Envoy refused a certificate (code %d)", request.error_detail.code)
        for name in request.resource_names_unsubscribe:
            self._told.pop(name, None)
        answers: dict[str, Leaf | None] = {}
        for name in request.resource_names_subscribe:
            answers[name] = None
            if name in self._told or len(self._told) < MAX_NAMES_PER_STREAM:
                answers[name] = self._told[name] = self._leaf(name)
        return self._respond(answers) if answers else None

    def renew(self) -> discovery_pb2.DeltaDiscoveryResponse | None:
        """What is not as it was told: certificates made anew, names that came or went. None when all is."""
        changed = {name: leaf for name, told in self._told.items() if (leaf := self._leaf(name)) != told}
        self._told.update(changed)
        return self._respond(changed) if changed else None

    def _leaf(self, name: str) -> Leaf | None:
        try:
            return self._issue(name)
        except AuthorityError as error:
            _log.warning("no certificate for a registered name: %s (%s)", error, error.code)
            return None

    def _respond(self, answers: dict[str, Leaf | None]) -> discovery_pb2.DeltaDiscoveryResponse:
        self._nonce += 1
        response = discovery_pb2.DeltaDiscoveryResponse(type_url=SECRET_TYPE, nonce=str(self._nonce))
        for name, leaf in answers.items():
            if leaf is None:
                response.removed_resources.append(name)
            else:
                response.resources.append(_resource(name, leaf))
        return response


def _resource(name: str, leaf: Leaf) -> discovery_pb2.Resource:
    secret = tls_secret_pb2.Secret(
        name=name,
        tls_certificate=tls_secret_pb2.TlsCertificate(
            certificate_chain=core_pb2.DataSource(inline_bytes=leaf.certificate_pem),
            private_key=core_pb2.DataSource(inline_bytes=leaf.private_key_pem.reveal()),
        ),
    )
    resource = discovery_pb2.Resource(name=name, version=hashlib.sha256(leaf.certificate_pem).hexdigest()[:16])
    resource.resource.Pack(secret)
    return resource


def _no_leaf(_: str) -> Leaf | None:
    return None


def _admit_anybody() -> None:
    """The socket's folder is for the gate's own Envoys alone."""


class _Stream:
    """One open stream: its requests, and the wish to look at everything again, in one queue. `None` is that wish."""

    def __init__(self, issue: Issue, admit: Admit, clock: Callable[[], float]) -> None:
        self._subscription = Subscription(issue)
        self._admit = admit
        self._clock = clock
        self._queue: asyncio.Queue[discovery_pb2.DeltaDiscoveryRequest | None] = asyncio.Queue(MAX_WAITING_REQUESTS)
        self._ended = False

    def refresh(self) -> None:
        # A full queue leads to a look at everything as well, after its last request.
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(None)

    def end(self) -> None:
        """No request more; what came is answered."""
        self._ended = True
        self.refresh()

    def is_admitted(self) -> bool:
        try:
            self._admit()
        except CallerUnknownError:
            return False
        return True

    async def read(self, requests: AsyncIterator[bytes]) -> None:
        try:
            async for message in requests:
                await self._queue.put(discovery_pb2.DeltaDiscoveryRequest.FromString(message))
        except DecodeError:
            _log.warning("the certificate server got bytes that are no request; the stream ends")
        finally:
            self.end()

    async def responses(self) -> AsyncIterator[bytes]:
        while not self._ended or not self._queue.empty():
            request = await self._next()
            self._admit()
            response = self._subscription.renew() if request is None else self._subscription.ask(request)
            if response is not None:
                yield response.SerializeToString()
            if self._queue.empty() and request is not None and (late := self._subscription.renew()) is not None:
                yield late.SerializeToString()

    async def _next(self) -> discovery_pb2.DeltaDiscoveryRequest | None:
        left = self._subscription.renew_at - self._clock()
        try:
            return await asyncio.wait_for(self._queue.get(), min(max(left, SHORTEST_WAIT_SECONDS), LONGEST_WAIT_SECONDS))
        except TimeoutError:
            return None


class Streams:
    """The streams that are open. At most `limit` of them are served, and of each caller `limit_each`; others end after one answer."""

    def __init__(self, *, limit: int | None = None, limit_each: int | None = None, clock: Callable[[], float] = time.time) -> None:
        self._limit = MAX_STREAMS if limit is None else limit
        self._limit_each = self._limit if limit_each is None else limit_each
        self._clock = clock
        self._open: set[_Stream] = set()
        self._served = 0
        self._served_to: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def refresh(self) -> None:
        """Look at every name again: call it when the registry has changed."""
        for stream in self._open:
            stream.refresh()

    def expel(self) -> None:
        """Have those end whose caller is unknown by now."""
        for stream in self._open:
            if not stream.is_admitted():
                stream.refresh()

    def end(self) -> None:
        """Have all of them end."""
        for stream in self._open:
            stream.end()

    async def serve(
        self, requests: AsyncIterator[bytes], issue: Issue, *, admit: Admit = _admit_anybody, caller: str = ""
    ) -> AsyncIterator[bytes]:
        """The answers of one stream. `issue` gives None for a name that has none, and may raise AuthorityError.

        Raises what `admit` raises, as soon as it does. Callers are told apart by `caller`.
        """
        admit()
        # Beyond the bound no name exists: its handshake fails at once, where an error would let it hang until Envoy's timeout.
        is_full = self._served >= self._limit or self._served_to[caller] >= self._limit_each
        stream = _Stream(_no_leaf if is_full else issue, admit, self._clock)
        self._open.add(stream)
        self._count(caller, 0 if is_full else 1)
        reading = asyncio.create_task(stream.read(requests))
        try:
            async for response in stream.responses():
                yield response
                if is_full:
                    break
        finally:
            self._open.discard(stream)
            self._count(caller, 0 if is_full else -1)
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    def _count(self, caller: str, streams: int) -> None:
        self._served += streams
        self._served_to[caller] += streams
        if not self._served_to[caller]:
            del self._served_to[caller]


class CertificateServer:
    """Serves certificates on a Unix socket until stopped. `issue` gives None for a name that has none; it may raise AuthorityError."""

    def __init__(self, issue: Issue, socket: Path, clock: Callable[[], float] = time.time) -> None:
        self._issue = issue
        self._socket = socket
        self._streams = Streams(clock=clock)
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises RuntimeError when the socket can't be made."""
        self._server = grpc.aio.server()
        service, _, method = METHOD.strip("/").partition("/")
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self._server.add_insecure_port(f"unix:{self._socket}")
        await self._server.start()

    async def stop(self) -> None:
        """End every stream and stop listening. Does nothing when it did not start."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def refresh(self) -> None:
        """Look at every name again: call it when the registry has changed."""
        self._streams.refresh()

    async def _serve(self, requests: AsyncIterator[bytes], _: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
        async for response in self._streams.serve(requests, self._issue):
            yield response
