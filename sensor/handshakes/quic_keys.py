"""The keys of QUIC's Initial packets, which follow from what anybody can see (RFC 9001 5, RFC 9369 3.3). The only module with a cipher.

They keep nothing secret: they bind a packet to a version and to the client's first Destination Connection ID. The library is loaded with
the first packet: it is a sixth of the sensor's memory, and most machines have no QUIC to models.
"""

from __future__ import annotations

import hmac
from typing import Final

from sensor.handshakes.errors import QuicNotAuthentic, QuicVersionUnknown

VERSION_1: Final = 1
VERSION_2: Final = 0x6B3343CF
# A salt, and what the labels of key, nonce and header protection begin with.
_VERSIONS: Final = {
    VERSION_1: (bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), "quic"),
    VERSION_2: (bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), "quicv2"),
}
SAMPLE_BYTES: Final = 16


class InitialKeys:
    """Opens what a client sealed, and seals as one. Raises QuicVersionUnknown when made for another version."""

    __slots__ = ("_cipher", "_mask", "_nonce", "key", "nonce", "protection")

    def __init__(self, version: int, connection_id: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        known = _VERSIONS.get(version)
        if known is None:
            raise QuicVersionUnknown(f"expected QUIC version 1 or 2, got {version:#010x}")
        salt, label = known
        secret = _expand(hmac.digest(salt, connection_id, "sha256"), "client in", 32)
        self.key = _expand(secret, f"{label} key", 16)
        self.nonce = _expand(secret, f"{label} iv", 12)
        self.protection = _expand(secret, f"{label} hp", 16)
        self._cipher = AESGCM(self.key)
        self._nonce = int.from_bytes(self.nonce, "big")
        # One block for itself, as header protection asks (RFC 9001 5.4.3): nothing is chained, so nothing is lost by it.
        self._mask = Cipher(algorithms.AES(self.protection), modes.ECB()).encryptor()  # noqa: S305

    def mask(self, sample: bytes) -> bytes:
        """What hides the first byte and the packet number of the packet that the sample is of."""
        return self._mask.update(sample)

    def open(self, number: int, header: bytes, sealed: bytes) -> bytes:
        """The frames of a packet. Raises QuicNotAuthentic."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415

        try:
            return self._cipher.decrypt(self._nonce_of(number), sealed, header)
        except InvalidTag as error:
            raise QuicNotAuthentic("expected a packet that the keys of its connection open, got one sealed otherwise") from error

    def seal(self, number: int, header: bytes, frames: bytes) -> bytes:
        """The packet that `open` opens, before header protection."""
        return self._cipher.encrypt(self._nonce_of(number), frames, header)

    def _nonce_of(self, number: int) -> bytes:
        return (self._nonce ^ number).to_bytes(12, "big")


def _expand(secret: bytes, label: str, length: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446 7.1) for lengths up to that of the hash, which take one block."""
    name = b"tls13 " + label.encode("ascii")
    info = length.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
    return hmac.digest(secret, info + b"\x01", "sha256")[:length]
