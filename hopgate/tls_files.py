"""A certificate and its key, as files that somebody rotates: read again when they have changed, without a restart.

A look costs two `stat`s: servers look before each handshake, or each second. What is unreadable, or a certificate and a key that don't
belong together (a rotation that is half done), leaves the pair in force and is looked at again the next time.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hopgate.resources.kinds import SecretValue

_log = logging.getLogger(__name__)
_Signature = tuple[tuple[int, int, int, int], ...]


class TlsFilesError(Exception):
    """The certificate or the key can't be used; the message says which file and why."""

    code = "TlsFilesUnusable"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate chain (PEM, leaf first), its private key (PEM), and when the leaf ends (Unix seconds)."""

    certificate_pem: bytes
    private_key_pem: SecretValue
    expires_at: int


class TlsFiles:
    """Two files. Safe to use from several threads: handshakes are made in threads of the transport's own."""

    def __init__(self, certificate: Path, private_key: Path) -> None:
        """Raises TlsFilesError: a server can't start without a pair."""
        self._certificate = certificate
        self._private_key = private_key
        self._lock = threading.Lock()
        self._signature = self._sign()
        self._pair = self._taken = self._read()
        self._said = ""

    @property
    def pair(self) -> KeyPair:
        """The pair that the next handshake will use: the one in the files, unless it can't be used."""
        with self._lock:
            self._refresh()
            return self._pair

    def changed(self) -> KeyPair | None:
        """The new pair, once for each change; None when there is none, or none that can be used. Raises nothing."""
        with self._lock:
            self._refresh()
            if self._taken is self._pair:
                return None
            self._taken = self._pair
            return self._pair

    def _refresh(self) -> None:
        try:
            signature = self._sign()
            if signature == self._signature:
                return
            pair = self._read()
        except TlsFilesError as error:
            self._say(str(error))
            return
        self._said = ""
        self._signature = signature
        if pair != self._pair:
            self._pair = pair

    def _say(self, message: str) -> None:
        """Once for each thing that is wrong, not at every look."""
        if message != self._said:
            self._said = message
            _log.error("the certificate in force stays: %s (%s)", message, TlsFilesError.code)

    def _sign(self) -> _Signature:
        """What tells one state of the files from another, also where a link is swapped as Kubernetes does."""
        try:
            looked = [path.stat() for path in (self._certificate, self._private_key)]
        except OSError as error:
            raise TlsFilesError(f"expected to read `{error.filename}`: {error.strerror}") from error
        return tuple((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns) for found in looked)

    def _read(self) -> KeyPair:
        try:
            certificate, private_key = self._certificate.read_bytes(), self._private_key.read_bytes()
        except OSError as error:
            raise TlsFilesError(f"expected to read `{error.filename}`: {error.strerror}") from error
        try:
            leaf = x509.load_pem_x509_certificates(certificate)[0]
            key = serialization.load_pem_private_key(private_key, password=None)
        except (ValueError, TypeError):
            # not chained: the library's errors may show what they could not read
            raise TlsFilesError(f"expected a PEM certificate in `{self._certificate}` and its key in `{self._private_key}`") from None
        if leaf.public_key() != key.public_key():
            raise TlsFilesError(f"expected the key in `{self._private_key}` to be that of the certificate in `{self._certificate}`")
        expires_at = int(leaf.not_valid_after_utc.timestamp())
        return KeyPair(certificate_pem=certificate, private_key_pem=SecretValue(private_key), expires_at=expires_at)
