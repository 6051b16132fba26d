"""The sockets of a resolver at an address of this machine: UDP and TCP at one port."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from dataclasses import dataclass


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
    if ip == "::" and not socket.has_dualstack_ipv6():
        ip = "0.0.0.0"  # noqa: S104 - every address of the one family there is, as was asked
    family = socket.AF_INET6 if ipaddress.ip_address(ip).version == 6 else socket.AF_INET
    with contextlib.ExitStack() as failed:
        listening = failed.enter_context(socket.create_server((ip, port), family=family, dualstack_ipv6=ip == "::"))
        listening.settimeout(0)
        datagram = failed.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        if ip == "::":
            datagram.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        datagram.bind((ip, listening.getsockname()[1]))
        failed.pop_all()
        return AddressSockets(datagram=(datagram,), listening=(listening,))
