"""JA4: a fingerprint of a TLS client's hello, by its public description (the TLS client method, BSD-3). Pure.

It names a TLS library and how it was set up, never a vendor: all programs of one runtime share one.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from sensor.handshakes.client_hello import ALPN, GREASE, SERVER_NAME, ClientHello

_VERSIONS: Final = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}
_NOTHING: Final = "000000000000"
_MAX_COUNT: Final = 99


def ja4(hello: ClientHello, *, quic: bool) -> str:
    """Three parts: the offer in short, the cipher suites, the extensions with the signature algorithms. Only the last's order counts."""
    suites = [number for number in hello.cipher_suites if number not in GREASE]
    extensions = [number for number in hello.extensions if number not in GREASE]
    version = max((number for number in hello.supported_versions if number not in GREASE), default=hello.version)
    head = (
        f"{'q' if quic else 't'}{_VERSIONS.get(version, '00')}{'d' if SERVER_NAME in extensions else 'i'}"
        f"{min(len(suites), _MAX_COUNT):02}{min(len(extensions), _MAX_COUNT):02}{_protocol(hello.alpn)}"
    )
    hashed = sorted(number for number in extensions if number not in (SERVER_NAME, ALPN))
    signatures = [number for number in hello.signature_algorithms if number not in GREASE]
    text = _hex(hashed) + (f"_{_hex(signatures)}" if signatures else "")
    return f"{head}_{_digest(_hex(sorted(suites)))}_{_digest(text) if hashed else _NOTHING}"


def _protocol(names: tuple[bytes, ...]) -> str:
    """First and last character of the first protocol; of its hexadecimal form, where one of the two is no letter or digit."""
    if not names:
        return "00"
    name = names[0]
    first, last = name[:1], name[-1:]
    if first.isalnum() and last.isalnum():
        return (first + last).decode("ascii")
    written = name.hex()
    return written[0] + written[-1]


def _hex(numbers: list[int]) -> str:
    return struct.pack(f">{len(numbers)}H", *numbers).hex(",", 2) if numbers else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:12] if text else _NOTHING
