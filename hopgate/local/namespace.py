"""The network namespace of a governed program: routes that lead nowhere, and rules that lead to the gate.

`plug` makes a namespace that has nothing but `lo` into one where every TCP connection ends at the gate's proxy, every DNS
question at its resolver, and everything else is refused at once, for IPv4 and IPv6. Both ends of the only link are inside: whoever
deletes the rules has reached nothing. The rules go in as one transaction, before the link comes up.

Sockets are made inside the namespace by a thread that enters it and ends, so this one never leaves its own.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hopgate import kernel
from hopgate.local.errors import LocalError
from hopgate.proxy import netlink, rules

PROXY_PORT: Final = 15001
DNS_PORT: Final = 15053

# RFC 5737 and RFC 3849: addresses for documentation, so none that a program could mean.
LINK_ADDRESS4: Final = "192.0.2.2"
GATEWAY4: Final = "192.0.2.1"
LINK_ADDRESS6: Final = "2001:db8:192:2::2"
GATEWAY6: Final = "2001:db8:192:2::1"

# Chosen, not asked for, so that all links are made in one batch; far above what a kernel gives by itself to a new namespace.
_LINK_INDEX: Final = 1000
_PEER_INDEX: Final = 1001

# What a kernel without IPv6, or with IPv6 switched off, answers: there is then no IPv6 to capture.
_NO_IPV6: Final = frozenset({errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EACCES, errno.EPERM, errno.ENETUNREACH, errno.ENODEV})


class NamespaceError(LocalError):
    """A network namespace could not be plugged or asked; the program in it must not be released."""

    code = "NamespaceUnusable"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverSockets:
    """Bound inside the namespace, used from outside it; the owner closes them. Without IPv6 in the kernel there is one of each."""

    datagram: tuple[socket.socket, ...]
    listening: tuple[socket.socket, ...]

    def close(self) -> None:
        """Close all of them."""
        for held in (*self.datagram, *self.listening):
            held.close()


def plug(namespace: int | str | Path, *, proxy_port: int = PROXY_PORT, dns_port: int = DNS_PORT) -> None:
    """Capture everything that a program in `namespace` (a descriptor or a path, as /proc/PID/ns/net) sends.

    Raises NamespaceError when any part could not be made; the namespace is then of no use and still has no way out.
    """
    with _failing("could not plug the network namespace"):
        table, links = kernel.within(namespace, lambda: (netlink.rules_socket(), netlink.links_socket()))
        with table, links:
            netlink.transact(table, rules.of_namespace(proxy_port, dns_port))
            netlink.send(links, _links())
            netlink.send(links, netlink.default_route(_LINK_INDEX, socket.AF_INET, LINK_ADDRESS4, 24, GATEWAY4))
            try:
                netlink.send(links, netlink.default_route(_LINK_INDEX, socket.AF_INET6, LINK_ADDRESS6, 64, GATEWAY6))
            except OSError as error:
                if error.errno not in _NO_IPV6:
                    raise


def open_sockets_in(namespace: int | str | Path, *, dns_port: int = DNS_PORT) -> ResolverSockets:
    """The resolver's sockets, on the loopback addresses inside `namespace`, non-blocking. Raises NamespaceError.

    Redirected packets arrive on loopback whatever their destination was. `plug` first: without it `lo` is down.
    """
    with _failing("could not open the resolver's sockets in the network namespace"):
        return kernel.within(namespace, lambda: _resolver_sockets(dns_port))


def read_refused(namespace: int | str | Path) -> int:
    """How many packets of programs in `namespace` the rules refused so far, IPv4 and IPv6 together. Raises NamespaceError."""
    with _failing("could not read the counters of the network namespace"), kernel.within(namespace, netlink.rules_socket) as table:
        return netlink.count_refused(table, rules.TABLE, rules.GUARD)


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "run as root, on a kernel with nf_tables, nft_redir, nft_reject_inet, nf_conntrack and veth"
        raise NamespaceError(f"{what}: {error.strerror or error}", remedy=remedy) from error


def _resolver_sockets(port: int) -> ResolverSockets:
    made: list[socket.socket] = []
    try:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            try:
                made += (_bound(family, socket.SOCK_DGRAM, address, port), _bound(family, socket.SOCK_STREAM, address, port))
            except OSError as error:
                if family == socket.AF_INET or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
    except OSError:
        for held in made:
            held.close()
        raise
    return ResolverSockets(datagram=tuple(made[0::2]), listening=tuple(made[1::2]))


def _bound(family: int, kind: int, address: str, port: int) -> socket.socket:
    made = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        if kind == socket.SOCK_STREAM:
            made.listen()
    except OSError:
        made.close()
        raise
    return made


def _links() -> list[netlink.Message]:
    """`lo` up; a veth pair with both ends here, up."""
    pair = netlink.linked_pair(("gate0", "gate1"), (_LINK_INDEX, _PEER_INDEX))
    return [netlink.link_up(netlink.LOOPBACK_INDEX), pair, netlink.link_up(_PEER_INDEX), netlink.link_up(_LINK_INDEX)]
