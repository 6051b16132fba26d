"""The network namespace of a governed program: routes that lead nowhere, and rules that lead to the gate.

`plug` makes a namespace that has nothing but `lo` into one where every TCP connection ends at the gate's proxy, every DNS
question at its resolver, and everything else is refused at once, for IPv4 and IPv6. Both ends of the only link are inside: whoever
deletes the rules has reached nothing. The rules go in as one transaction, before the link comes up.

This module alone imports pyroute2, and only for the messages' layout: sockets are made inside the namespace by a thread that
enters it and ends, so no event loop is needed and no process is started.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from pyroute2.netlink import (
    NETLINK_NETFILTER,
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REQUEST,
)
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg
from pyroute2.netlink.nfnetlink.nftsocket import (
    NFPROTO_INET,
    NFT_MSG_GETRULE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWTABLE,
    Meta,
    nft_chain_msg,
    nft_rule_msg,
    nft_table_msg,
)
from pyroute2.netlink.rtnl import RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg
from pyroute2.nftables.expressions import genex

from hopgate.local import kernel
from hopgate.local.errors import LocalError

PROXY_PORT: Final = 15001
DNS_PORT: Final = 15053
TABLE: Final = "gate"

# RFC 5737 and RFC 3849: addresses for documentation, so none that a program could mean.
LINK_ADDRESS4: Final = "192.0.2.2"
GATEWAY4: Final = "192.0.2.1"
LINK_ADDRESS6: Final = "2001:db8:192:2::2"
GATEWAY6: Final = "2001:db8:192:2::1"

# Chosen, not asked for, so that all links are made in one batch; far above what a kernel gives by itself to a new namespace.
_LINK_INDEX: Final = 1000
_PEER_INDEX: Final = 1001
_LOOPBACK_INDEX: Final = 1

# The kernel answers in microseconds; a namespace that does not answer must not hold up the gate.
_ANSWER_SECONDS: Final = 5
_ACCEPT, _DROP = 1, 0
_NFT_REGISTER: Final = 1
_CMP_EQUAL, _CMP_NOT_EQUAL, _CMP_AT_LEAST = 0, 1, 5
_HOOK_OUTPUT: Final = 3
_NAT_PRIORITY: Final = -100
_TRANSPORT_HEADER: Final = 2
_IPS_DST_NAT: Final = 1 << 5  # linux/netfilter/nf_conntrack_common.h
_CT_STATUS: Final = 2
_REJECT_RESET, _REJECT_ICMPX = 1, 2
_ICMPX_PORT_UNREACHABLE: Final = 1
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_HEADER = struct.Struct("=IHHII")
# What a kernel without IPv6, or with IPv6 switched off, answers: there is then no IPv6 to capture.
_NO_IPV6: Final = frozenset({errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EACCES, errno.EPERM, errno.ENETUNREACH, errno.ENODEV})

_Made = TypeVar("_Made")


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
        rules, links = _within(namespace, lambda: (_rules_socket(), _netlink(NETLINK_ROUTE)))
        with rules, links:
            _transact(rules, _ruleset(proxy_port, dns_port))
            _send(links, _links())
            _send(links, _routes(socket.AF_INET, LINK_ADDRESS4, 24, GATEWAY4))
            try:
                _send(links, _routes(socket.AF_INET6, LINK_ADDRESS6, 64, GATEWAY6))
            except OSError as error:
                if error.errno not in _NO_IPV6:
                    raise


def open_sockets_in(namespace: int | str | Path, *, dns_port: int = DNS_PORT) -> ResolverSockets:
    """The resolver's sockets, on the loopback addresses inside `namespace`, non-blocking. Raises NamespaceError.

    Redirected packets arrive on loopback whatever their destination was. `plug` first: without it `lo` is down.
    """
    with _failing("could not open the resolver's sockets in the network namespace"):
        return _within(namespace, lambda: _resolver_sockets(dns_port))


def read_refused(namespace: int | str | Path) -> int:
    """How many packets of programs in `namespace` the rules refused so far, IPv4 and IPv6 together. Raises NamespaceError."""
    with _failing("could not read the counters of the network namespace"), _within(namespace, _rules_socket) as rules:
        return sum(_counted(message) for message in _dump(rules, _guard_rules()))


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "run as root, on a kernel with nf_tables, nft_redir, nft_reject_inet, nf_conntrack and veth"
        raise NamespaceError(f"{what}: {error.strerror or error}", remedy=remedy) from error


def _within(namespace: int | str | Path, make: Callable[[], _Made]) -> _Made:
    """What `make()` returns when called inside `namespace`, by a thread that ends there: this thread never leaves its own."""
    descriptor = namespace if isinstance(namespace, int) else os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    made: list[_Made] = []
    failed: list[OSError] = []

    def enter() -> None:
        try:
            kernel.setns(descriptor, kernel.CLONE_NEWNET)
            made.append(make())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=enter, name="namespace")
    thread.start()
    thread.join()
    if not isinstance(namespace, int):
        os.close(descriptor)
    for error in failed:
        raise error
    return made[0]


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


def _ruleset(proxy_port: int, dns_port: int) -> list[Any]:
    """The table as messages: guard first, so that a rule missing from a kernel fails before anything is redirected."""
    not_loopback = (_meta(Meta.NFT_META_OIFNAME), _compare(_CMP_NOT_EQUAL, _interface("lo")))
    loopback = (_meta(Meta.NFT_META_OIFNAME), _compare(_CMP_EQUAL, _interface("lo")))
    # A socket's owner: what the kernel sends by itself (neighbour and multicast listener messages) has none, and is dropped uncounted.
    owned = (_meta(Meta.NFT_META_SKUID), _compare(_CMP_AT_LEAST, bytes(4)))
    return [
        _message(nft_table_msg, NFT_MSG_NEWTABLE, name=TABLE),
        _chain("guard", "filter", priority=0, policy=_DROP),
        _rule("guard", *loopback, _verdict(_ACCEPT)),
        _rule("guard", *_translated(), _verdict(_ACCEPT)),
        _rule("guard", *owned, _protocol(socket.IPPROTO_TCP), genex("counter", {}), genex("reject", _reject(_REJECT_RESET))),
        _rule("guard", *owned, genex("counter", {}), genex("reject", _reject(_REJECT_ICMPX))),
        _chain("output", "nat", priority=_NAT_PRIORITY, policy=_ACCEPT),
        # Loopback too: a program that asks a resolver on 127.0.0.53 asks the gate's.
        _rule("output", _protocol(socket.IPPROTO_UDP), *_destination_port(53), *_redirect(dns_port)),
        _rule("output", _protocol(socket.IPPROTO_TCP), *_destination_port(53), *_redirect(dns_port)),
        _rule("output", *not_loopback, _protocol(socket.IPPROTO_TCP), *_redirect(proxy_port)),
    ]


def _message(layout: Any, kind: int, **attributes: Any) -> Any:
    message = layout()
    message["attrs"] = [(layout.name2nla(name), value) for name, value in attributes.items()]
    message["nfgen_family"] = NFPROTO_INET
    message["header"]["type"] = NFNL_SUBSYS_NFTABLES << 8 | kind
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE
    # A table that is there already was plugged by someone else: an error. A rule is appended behind those before it.
    message["header"]["flags"] = flags | (NLM_F_APPEND if kind == NFT_MSG_NEWRULE else NLM_F_EXCL)
    return message


def _chain(name: str, kind: str, *, priority: int, policy: int) -> Any:
    hook = {"attrs": [("NFTA_HOOK_HOOKNUM", _HOOK_OUTPUT), ("NFTA_HOOK_PRIORITY", priority)]}
    return _message(nft_chain_msg, NFT_MSG_NEWCHAIN, table=TABLE, name=name, hook=hook, policy=policy, type=kind)


def _rule(chain: str, *expressions: Any) -> Any:
    flat: list[Any] = []
    for expression in expressions:
        flat += expression if isinstance(expression, tuple) else (expression,)
    return _message(nft_rule_msg, NFT_MSG_NEWRULE, table=TABLE, chain=chain, expressions=flat)


def _meta(key: int) -> Any:
    return genex("meta", {"key": key, "dreg": _NFT_REGISTER})


def _compare(operation: int, data: bytes) -> Any:
    return genex("cmp", {"sreg": _NFT_REGISTER, "op": operation, "data": _value(data)})


def _value(data: bytes) -> Mapping[str, Any]:
    return {"attrs": [("NFTA_DATA_VALUE", data)]}


def _interface(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")  # IFNAMSIZ


def _protocol(number: int) -> tuple[Any, ...]:
    return _meta(Meta.NFT_META_L4PROTO), _compare(_CMP_EQUAL, bytes([number]))


def _destination_port(port: int) -> tuple[Any, ...]:
    payload = genex("payload", {"dreg": _NFT_REGISTER, "base": _TRANSPORT_HEADER, "offset": 2, "len": 2})
    return payload, _compare(_CMP_EQUAL, port.to_bytes(2, "big"))


def _translated() -> tuple[Any, ...]:
    """`ct status dnat`: what the redirect has turned round to the gate."""
    bit = _IPS_DST_NAT.to_bytes(4, "little" if struct.pack("=H", 1) == b"\1\0" else "big")
    masked = genex("bitwise", {"sreg": _NFT_REGISTER, "dreg": _NFT_REGISTER, "len": 4, "mask": _value(bit), "xor": _value(bytes(4))})
    return genex("ct", {"dreg": _NFT_REGISTER, "key": _CT_STATUS}), masked, _compare(_CMP_NOT_EQUAL, bytes(4))


def _redirect(port: int) -> tuple[Any, ...]:
    load = genex("immediate", {"dreg": _NFT_REGISTER, "data": _value(port.to_bytes(2, "big"))})
    return load, genex("redir", {"reg_proto_min": _NFT_REGISTER})


def _reject(kind: int) -> Mapping[str, int]:
    return {"type": kind, "icmp_code": _ICMPX_PORT_UNREACHABLE if kind == _REJECT_ICMPX else 0}


def _verdict(code: int) -> Any:
    return genex("immediate", {"dreg": 0, "data": {"attrs": [("NFTA_DATA_VERDICT", {"attrs": [("NFTA_VERDICT_CODE", code)]})]}})


def _links() -> list[Any]:
    """`lo` up; a veth pair with both ends here, up."""
    peer = {"index": _PEER_INDEX, "attrs": [("IFLA_IFNAME", "gate1")]}
    information = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]})]}
    return [
        _link(_LOOPBACK_INDEX, 0),
        _link(_LINK_INDEX, NLM_F_CREATE | NLM_F_EXCL, ("IFLA_IFNAME", "gate0"), ("IFLA_LINKINFO", information)),
        _link(_PEER_INDEX, 0),
        _link(_LINK_INDEX, 0),
    ]


def _link(index: int, flags: int, *attributes: tuple[str, Any]) -> Any:
    message = ifinfmsg()
    message["index"] = index
    if not flags:
        message["flags"] = message["change"] = 1  # IFF_UP
    message["attrs"] = list(attributes)
    return _headed(message, RTM_NEWLINK, flags)


def _routes(family: int, address: str, length: int, gateway: str) -> list[Any]:
    """An address for the link and a default route over it; `nodad` since an address under detection can't be used yet."""
    given = ifaddrmsg()
    given["family"], given["prefixlen"], given["index"] = family, length, _LINK_INDEX
    given["flags"] = 2 if family == socket.AF_INET6 else 0  # IFA_F_NODAD
    given["attrs"] = [("IFA_LOCAL", address), ("IFA_ADDRESS", address)]
    route = rtmsg()
    route["family"], route["table"], route["proto"], route["type"] = family, 254, 4, 1  # main, static, unicast
    route["attrs"] = [("RTA_GATEWAY", gateway), ("RTA_OIF", _LINK_INDEX)]
    flags = NLM_F_CREATE | NLM_F_EXCL
    return [_headed(given, RTM_NEWADDR, flags), _headed(route, RTM_NEWROUTE, flags)]


def _headed(message: Any, kind: int, flags: int) -> Any:
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | flags
    return message


def _rules_socket() -> socket.socket:
    return _netlink(NETLINK_NETFILTER)


def _netlink(protocol: int) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    made.settimeout(_ANSWER_SECONDS)
    made.bind((0, 0))
    return made


def _transact(connection: socket.socket, messages: Sequence[Any]) -> None:
    """All of `messages` or none, as nf_tables gives it to a batch."""
    _send(connection, [_edge(_BATCH_BEGIN), *messages, _edge(_BATCH_END)])


def _edge(kind: int) -> Any:
    message = nfgen_msg()
    message["res_id"] = NFNL_SUBSYS_NFTABLES
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST
    return message


def _encoded(messages: Sequence[Any]) -> bytes:
    parts = []
    for number, message in enumerate(messages, start=1):
        message["header"]["sequence_number"] = number
        message.encode()
        parts.append(bytes(message.data))
    return b"".join(parts)


def _send(connection: socket.socket, messages: Sequence[Any]) -> None:
    """Send all in one packet; raise the first error that comes back. Every message that asked for an answer has one."""
    connection.send(_encoded(messages))
    waiting = {number for number, message in enumerate(messages, start=1) if message["header"]["flags"] & NLM_F_ACK}
    while waiting:
        for kind, number, body in _received(connection):
            if kind == _NLMSG_ERROR:
                waiting.discard(number)
                _raise_error(body)


def _dump(connection: socket.socket, question: Any) -> Iterator[bytes]:
    """The raw messages that answer `question`."""
    connection.send(_encoded([question]))
    while True:
        for kind, _, body in _received(connection):
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                _raise_error(body)
            yield body


def _raise_error(body: bytes) -> None:
    number = -struct.unpack_from("=i", body, _HEADER.size)[0]
    if number:
        raise OSError(number, os.strerror(number))


def _received(connection: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    """The messages of one packet: type, sequence number, and the whole message with its header."""
    packet = connection.recv(1 << 17)
    while len(packet) >= _HEADER.size:
        length, kind, _, number, _ = _HEADER.unpack_from(packet)
        yield kind, number, packet[:length]
        packet = packet[(length + 3) & ~3 :]


def _guard_rules() -> Any:
    question = _message(nft_rule_msg, NFT_MSG_GETRULE, table=TABLE, chain="guard")
    question["header"]["flags"] = NLM_F_REQUEST | NLM_F_DUMP
    return question


def _counted(message: bytes) -> int:
    rule = nft_rule_msg(message)
    rule.decode()
    data = [
        expression.get_attr("NFTA_EXPR_DATA")
        for expression in rule.get_attr("NFTA_RULE_EXPRESSIONS")
        if expression.get_attr("NFTA_EXPR_NAME") == "counter"
    ]
    return sum(int(counter.get_attr("NFTA_COUNTER_PACKETS")) for counter in data)
