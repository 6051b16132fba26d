"""What can be wrong with first bytes. All of it is what others sent, none of it is a mistake of ours; `code` is stable and is counted by.

HandshakeError
├── HelloError           a TLS ClientHello that is none, or not well made
│   └── HelloTooLong     a hello beyond the bound
├── PieceError           a piece that does not fit into what is collected
├── QuicError            a datagram that is no Initial packet of a client, or not well made
│   ├── QuicVersionUnknown   a version whose keys are not known
│   └── QuicNotAuthentic     a packet that its keys don't open
├── AnswerError          a DNS message that is no answer, or not well made
└── RequestError         bytes that are no head of an HTTP/1 request
"""

from __future__ import annotations

from typing import ClassVar


class HandshakeError(ValueError):
    """Root of the errors that reading first bytes can raise."""

    code: ClassVar[str] = "FirstBytesUnreadable"


class HelloError(HandshakeError):
    """Bytes that are no well-made ClientHello (RFC 8446 4.1.2)."""

    code: ClassVar[str] = "HelloMalformed"


class HelloTooLong(HelloError):  # noqa: N818  # named for what it says, as its code is
    """A ClientHello that is longer than what is collected."""

    code: ClassVar[str] = "HelloTooLong"


class PieceError(HandshakeError):
    """A piece beyond the bounds of what is collected for one stream."""

    code: ClassVar[str] = "PieceOutOfBounds"


class QuicError(HandshakeError):
    """A datagram that is no well-made Initial packet (RFC 9000 17.2.2)."""

    code: ClassVar[str] = "QuicMalformed"


class QuicVersionUnknown(QuicError):  # noqa: N818
    """A QUIC version that is neither 1 nor 2."""

    code: ClassVar[str] = "QuicVersionUnknown"


class QuicNotAuthentic(QuicError):  # noqa: N818
    """An Initial packet that was sealed with other keys."""

    code: ClassVar[str] = "QuicNotAuthentic"


class AnswerError(HandshakeError):
    """A DNS message that is no well-made answer (RFC 1035 4)."""

    code: ClassVar[str] = "AnswerMalformed"


class RequestError(HandshakeError):
    """Bytes that are no head of an HTTP/1 request (RFC 9112)."""

    code: ClassVar[str] = "RequestMalformed"
