"""ClientHellos made to measure, and the published numbers that readers of them are checked against."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from sensor.handshakes.client_hello import ALPN, SERVER_NAME, SIGNATURE_ALGORITHMS, SUPPORTED_VERSIONS

RANDOM = bytes(range(32))

# The example of JA4's public description: what a browser offers, in the order of its own making, with GREASE.
BROWSER_SUITES = (0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8, 0xC013, 0xC014, 0x9C, 0x9D, 0x2F, 0x35)
BROWSER_EXTENSIONS = (0x1B, 0x0, 0x33, 0x10, 0x4469, 0x17, 0x2D, 0xD, 0x5, 0x23, 0x12, 0x2B, 0xFF01, 0xB, 0xA, 0x15)
BROWSER_SIGNATURES = (0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601)
BROWSER_JA4 = "t13d1516h2_8daaf6152771_e5627efa2ab1"

# RFC 9001 A.2 and RFC 9369 A.2: the connection id, and the CRYPTO frame that padding follows to 1162 bytes.
QUIC_CONNECTION_ID = bytes.fromhex("8394c8f03e515708")
QUIC_CRYPTO_FRAME = bytes.fromhex(
    "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c"
    "00000413011302010000c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e"
    "000500050100000000003300260024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304"
    "000d0010000e0403050306030203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff"
    "0801100104800075300901100f088394c8f03e51570806048000ffff"
)
QUIC_PAYLOAD = QUIC_CRYPTO_FRAME.ljust(1162, b"\0")


def vector(data: bytes, width: int) -> bytes:
    return len(data).to_bytes(width, "big") + data


def numbers(values: Iterable[int]) -> bytes:
    return b"".join(struct.pack(">H", value) for value in values)


def name_extension(name: bytes, kind: int = 0) -> bytes:
    return vector(bytes([kind]) + vector(name, 2), 2)


def alpn_extension(*names: bytes) -> bytes:
    return vector(b"".join(vector(name, 1) for name in names), 2)


def body(
    extensions: Iterable[tuple[int, bytes]] | None = None,
    *,
    suites: Iterable[int] = (0x1301, 0x1302),
    version: int = 0x0303,
    session: bytes = bytes(32),
    compression: bytes = b"\0",
) -> bytes:
    """A ClientHello's body; without extensions when there are None."""
    head = struct.pack(">H", version) + RANDOM + vector(session, 1) + vector(numbers(suites), 2) + vector(compression, 1)
    if extensions is None:
        return head
    return head + vector(b"".join(struct.pack(">H", kind) + vector(data, 2) for kind, data in extensions), 2)


def browser_body(*, grease: int = 0x2A2A, extra: Iterable[tuple[int, bytes]] = ()) -> bytes:
    data = {
        SERVER_NAME: name_extension(b"api.example.com"),
        ALPN: alpn_extension(b"h2", b"http/1.1"),
        SUPPORTED_VERSIONS: vector(numbers([grease, 0x0304, 0x0303]), 1),
        SIGNATURE_ALGORITHMS: vector(numbers(BROWSER_SIGNATURES), 2),
    }
    data.update(extra)
    listed = [(grease, b""), *((kind, data.get(kind, b"\0" * 3)) for kind in BROWSER_EXTENSIONS)]
    return body(listed, suites=(grease, *BROWSER_SUITES))


def message(inside: bytes) -> bytes:
    return b"\x01" + vector(inside, 3)


def records(data: bytes, size: int = 16384, version: int = 0x0301) -> bytes:
    """A handshake message in TLS records of at most this many bytes."""
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(b"\x16" + struct.pack(">H", version) + vector(piece, 2) for piece in pieces)
