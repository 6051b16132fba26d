"""What TLS takes from files that somebody rotates: a certificate and its key, or authorities. Read again when changed, without a restart.

A look costs a `stat` for each file: servers look before each handshake, or each second. What is unreadable, or a certificate and a key that
don't belong together (a rotation that is half done), leaves what is in force and is looked at again the next time.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hopgate.resources.kinds import SecretValue

_log = logging.getLogger(__name__)
_Signature = tuple[tuple[int, int, int, int], ...]
_Value = TypeVar("_Value")


class TlsFilesError(Exception):
    """What a file has can't be used; the message says which file and why."""

    code = "TlsFilesUnusable"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A certificate chain (PEM, leaf first), its private key (PEM), and when the leaf ends (Unix seconds)."""

    certificate_pem: bytes
    private_key_pem: SecretValue
    expires_at: int


class _Files(ABC, Generic[_Value]):
    """Files that are read as one value. Safe to use from several threads: handshakes are made in threads of the transport's own."""

    def __init__(self, what: str, *paths: Path) -> None:
        """`what` names the value to a person. Raises TlsFilesError: a server can't start without it."""
        self._what = what
        self._paths = paths
        self._lock = threading.Lock()
        self._signature = self._sign()
        self._value = self._taken = self._parse(*self._read())
        self._said = ""

    def current(self) -> _Value:
        """The value that the next handshake will use: the one in the files, unless it can't be used."""
        with self._lock:
            self._refresh()
            return self._value

    def changed(self) -> _Value | None:
        """The new value, once for each change; None when there is none, or none that can be used. Raises nothing."""
        with self._lock:
            self._refresh()
            if self._taken is self._value:
                return None
            self._taken = self._value
            return self._value

    @abstractmethod
    def _parse(self, *contents: bytes) -> _Value:
        """Raises TlsFilesError."""

    def _refresh(self) -> None:
        try:
            signature = self._sign()
            if signature == self._signature:
                return
            value = self._parse(*self._read())
        except TlsFilesError as error:
            self._say(str(error))
            return
        self._said = ""
        self._signature = signature
        if value != self._value:
            self._value = value

    def _say(self, message: str) -> None:
        """Once for each thing that is wrong, not at every look."""
        if message != self._said:
            self._said = message
            _log.error("the %s in force stays: %s (%s)", self._what, message, TlsFilesError.code)

    def _sign(self) -> _Signature:
        """What tells one state of the files from another, also where a link is swapped as Kubernetes does."""
        try:
            looked = [path.stat() for path in self._paths]
        except OSError as error:
            raise TlsFilesError(f"expected to read `{error.filename}`: {error.strerror}") from error
        return tuple((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns) for found in looked)

    def _read(self) -> list[bytes]:
        try:
            return [path.read_bytes() for path in self._paths]
        except OSError as error:
            raise TlsFilesError(f"expected to read `{error.filename}`: {error.strerror}") from error


class TlsFiles(_Files[KeyPair]):
    """A certificate and its key."""

    def __init__(self, certificate: Path, private_key: Path) -> None:
        """Raises TlsFilesError."""
        super().__init__("certificate", certificate, private_key)

    @property
    def pair(self) -> KeyPair:
        """The pair in force."""
        return self.current()

    def _parse(self, *contents: bytes) -> KeyPair:
        certificate, private_key = contents
        certificate_path, key_path = self._paths
        try:
            leaf = x509.load_pem_x509_certificates(certificate)[0]
            key = serialization.load_pem_private_key(private_key, password=None)
        except (ValueError, TypeError):
            # not chained: the library's errors may show what they could not read
            raise TlsFilesError(f"expected a PEM certificate in `{certificate_path}` and its key in `{key_path}`") from None
        if leaf.public_key() != key.public_key():
            raise TlsFilesError(f"expected the key in `{key_path}` to be that of the certificate in `{certificate_path}`")
        expires_at = int(leaf.not_valid_after_utc.timestamp())
        return KeyPair(certificate_pem=certificate, private_key_pem=SecretValue(private_key), expires_at=expires_at)


class AuthorityFile(_Files[bytes]):
    """The authorities that certificates of the other end are verified by, PEM: `current` gives them."""

    def __init__(self, path: Path) -> None:
        """Raises TlsFilesError."""
        super().__init__("bundle of authorities", path)

    def _parse(self, *contents: bytes) -> bytes:
        [bundle] = contents
        try:
            x509.load_pem_x509_certificates(bundle)
        except ValueError as error:
            raise TlsFilesError(f"expected PEM certificates of authorities in `{self._paths[0]}`: {error}") from error
        return bundle
