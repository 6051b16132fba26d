"""Certificates of a test's own authority, in files that are swapped as Kubernetes swaps those of a mounted Secret."""

from __future__ import annotations

import time
from pathlib import Path

from tokenmint.authority import Authority

HOST = "authz.hopgate.svc"


class Mounted:
    """A folder with `tls.crt` and `tls.key`, links into a folder that a rename replaces as a whole."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority.create(int(time.time()))
        self.certificate, self.private_key = folder / "tls.crt", folder / "tls.key"
        self._folder = folder
        self._version = 0
        folder.mkdir()
        self.rotate()
        self.certificate.symlink_to("..data/tls.crt")
        self.private_key.symlink_to("..data/tls.key")

    def rotate(self) -> bytes:
        """A new pair of the same authority in place of the one before; gives the certificate."""
        self.authority._leaves.clear()
        leaf = self.authority.issue(HOST, int(time.time()))
        self.write(leaf.certificate_pem, leaf.private_key_pem.reveal())
        return leaf.certificate_pem

    def write(self, certificate: bytes, private_key: bytes) -> None:
        """Put these two in force at once."""
        self._version += 1
        target = self._folder / f"..{self._version}"
        target.mkdir()
        (target / "tls.crt").write_bytes(certificate)
        (target / "tls.key").write_bytes(private_key)
        link = self._folder / "..data_tmp"
        link.symlink_to(target.name)
        link.rename(self._folder / "..data")
