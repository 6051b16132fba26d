"""A TLS server on loopback that ends the handshake for real, and keeps what a client wrote first and what TLS itself made of it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tokenmint import authority

_DEADLINE_SECONDS = 20.0
_BODY = b'{"object":"list","data":[]}'
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(_BODY), _BODY)
NAMES = ("api.example.com", "localhost")


@dataclass(slots=True)
class Recorded:
    """The pieces that came before the first answer; the name and the protocol as OpenSSL found them."""

    pieces: list[bytes] = field(default_factory=list)
    server_name: str | None = None
    protocol: str | None = None
    version: str | None = None


class RecordingServer:
    """One connection after the other, each answered with an empty list, as model APIs have them."""

    def __init__(self, folder: Path) -> None:
        self.recorded: list[Recorded] = []
        self._changed = threading.Condition()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*write_certificate(folder))
        self._context.set_alpn_protocols(["http/1.1"])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(_DEADLINE_SECONDS)

    def hello_after(self, count: int) -> Recorded:
        """The first that sent something, of those recorded after so many. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: any(each.pieces for each in self.recorded[count:]), _DEADLINE_SECONDS):
                raise TimeoutError(f"waited {_DEADLINE_SECONDS:g} s for a hello")
            return next(each for each in self.recorded[count:] if each.pieces)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(_DEADLINE_SECONDS)
            with connection, contextlib.suppress(OSError):
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        found = Recorded()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

        def note(_: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
            found.server_name = name

        self._context.sni_callback = note
        tls = self._context.wrap_bio(incoming, outgoing, server_side=True)
        answered = False
        try:
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    if outgoing.pending:
                        answered = True
                        connection.sendall(outgoing.read())
                piece = connection.recv(65536)
                if not piece:
                    return
                if not answered:
                    found.pieces.append(piece)
                incoming.write(piece)
            found.protocol, found.version = tls.selected_alpn_protocol(), tls.version()
        finally:
            with self._changed:
                self.recorded.append(found)
                self._changed.notify_all()
        # In TLS 1.2 the server's last message ends the handshake.
        connection.sendall(outgoing.read())
        if not _request_came(connection, tls, incoming):
            return
        tls.write(_ANSWER)
        # The end of the page is told by TLS too, or clients take it for an attack.
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.unwrap()
        connection.sendall(outgoing.read())
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            continue


def _request_came(connection: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO) -> bool:
    """Whether the client sent something before it went. An answer that comes before its question is an error to some."""
    while True:
        try:
            return bool(tls.read(65536))
        except ssl.SSLWantReadError:
            piece = connection.recv(65536)
            if not piece:
                return False
            incoming.write(piece)


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Files of a certificate for NAMES and its key."""
    now = int(time.time())
    chain, key = authority.issue_serving(authority.create_root(now), NAMES, now, 3600)
    files = folder / "tls.crt", folder / "tls.key"
    for file, data in zip(files, (chain, key.reveal()), strict=True):
        file.write_bytes(data)
    return files
