"""DNS over UDP: how a message is taken from a socket, and what the kernel says of those that it could not keep."""

from __future__ import annotations

import socket
import sys
from typing import Any, Final

_RECEIVE_BYTES: Final = 4096
# asm-generic/socket.h: each message tells how many the socket has dropped so far, as 32 bits.
_SO_RXQ_OVFL: Final = 40


class Datagrams:
    """What one resolver's sockets have dropped, told with the messages that they kept."""

    def __init__(self) -> None:
        self._dropped: dict[socket.socket, int] = {}

    @property
    def dropped(self) -> int:
        """On all sockets together, as far as it was told."""
        return sum(self._dropped.values())

    def prepare(self, datagram: socket.socket) -> None:
        """Make a socket one that `receive` can be called with."""
        datagram.settimeout(0)
        datagram.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)

    def receive(self, datagram: socket.socket) -> tuple[bytes, Any]:
        """One message and where it came from. Raises OSError, BlockingIOError where there is none."""
        data, ancillary, _, asker = datagram.recvmsg(_RECEIVE_BYTES, socket.CMSG_SPACE(4))
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, _SO_RXQ_OVFL):
                self._dropped[datagram] = int.from_bytes(value, sys.byteorder)
        return data, asker
