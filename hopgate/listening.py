"""Where a server listens: one socket for an address, of both families at `::`, which asyncio by itself takes for IPv6 alone."""

from __future__ import annotations

import ipaddress
import socket


def place(text: str) -> tuple[str, int]:
    """IP and port of `IP:PORT`, with an IPv6 address in brackets. Raises ValueError for a port that is no number."""
    ip, _, port = text.rpartition(":")
    return ip.strip("[]"), int(port)


def listen(ip: str, port: int) -> socket.socket:
    """Listen on TCP at `ip` and `port` (0: any), without blocking. At `::` both families are served that the kernel has.

    Raises OSError, ValueError for no address.
    """
    if ip == "::" and not socket.has_dualstack_ipv6():
        ip = "0.0.0.0"  # noqa: S104 - every address of the one family there is, as was asked
    family = socket.AF_INET6 if ipaddress.ip_address(ip).version == 6 else socket.AF_INET
    listening = socket.create_server((ip, port), family=family, dualstack_ipv6=ip == "::")
    listening.settimeout(0)
    return listening
