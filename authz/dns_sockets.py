"""The sockets of a resolver at an address of this machine: UDP and TCP at one port."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

from hopgate.listening import listen


@dataclass(frozen=True, slots=True)
class AddressSockets:
    """Bound; `close` closes them."""

    datagram: tuple[socket.socket, ...]
    listening: tuple[socket.socket, ...]

    @property
    def port(self) -> int:
        """The port of all of them."""
        return int(self.listening[0].getsockname()[1])

    def close(self) -> None:
        """Close them all."""
        for held in (*self.datagram, *self.listening):
            held.close()


def open_at(ip: str, port: int) -> AddressSockets:
    """Bind at `ip` and `port` (0: any). At `::` both families are served that the kernel has. Raises OSError, ValueError for no address."""
    with contextlib.ExitStack() as failed:
        listening = failed.enter_context(listen(ip, port))
        bound, number = listening.getsockname()[:2]
        datagram = failed.enter_context(socket.socket(listening.family, socket.SOCK_DGRAM))
        if bound == "::":
            datagram.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        datagram.bind((bound, number))
        failed.pop_all()
        return AddressSockets(datagram=(datagram,), listening=(listening,))
