"""The kernel's packet filter and links, as netlink messages: built here, sent here, in one transaction where the kernel has them.

This module alone imports pyroute2, and only for the messages' layout: sockets are plain ones, made in the network namespace that
they are for, so no event loop is needed and no process is started. Numbers are those of linux/netfilter/nf_tables.h unless one says
otherwise. Errors are OSErrors with the kernel's own number.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

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
    NFT_MSG_DELTABLE,
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

Message = Any
Expressions = tuple[Any, ...]

ACCEPT, DROP = 1, 0
# linux/netfilter.h: where in a packet's way a chain stands.
HOOK_PREROUTING, HOOK_INPUT, HOOK_OUTPUT = 0, 1, 3
FILTER_PRIORITY: Final = 0
NAT_PRIORITY: Final = -100
LOOPBACK_INDEX: Final = 1

# The kernel answers in microseconds; a namespace that does not answer must not hold up its gate.
_ANSWER_SECONDS: Final = 5
_NFT_REGISTER: Final = 1
_CMP_EQUAL, _CMP_NOT_EQUAL, _CMP_LESS_OR_EQUAL, _CMP_AT_LEAST = 0, 1, 3, 5
_TRANSPORT_HEADER: Final = 2
# linux/netfilter/nf_conntrack_common.h
_CT_STATE, _CT_STATUS = 0, 2
_IPS_DST_NAT: Final = 1 << 5
_STATE_ESTABLISHED, _STATE_RELATED = 1 << 1, 1 << 2
_REJECT_RESET, _REJECT_ICMPX = 1, 2
_ICMPX_PORT_UNREACHABLE: Final = 1
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_HEADER = struct.Struct("=IHHII")
_LITTLE: Final = struct.pack("=H", 1) == b"\1\0"


def rules_socket() -> socket.socket:
    """A socket to the packet filter of the calling thread's network namespace."""
    return _netlink(NETLINK_NETFILTER)


def links_socket() -> socket.socket:
    """A socket to the links, addresses and routes of the calling thread's network namespace."""
    return _netlink(NETLINK_ROUTE)


def transact(connection: socket.socket, messages: Sequence[Message]) -> None:
    """All of `messages` or none, as nf_tables gives it to a batch."""
    send(connection, [_edge(_BATCH_BEGIN), *messages, _edge(_BATCH_END)])


def send(connection: socket.socket, messages: Sequence[Message]) -> None:
    """Send all in one packet; raise the first error that comes back. Every message that asked for an answer has one."""
    connection.send(_encoded(messages))
    waiting = {number for number, message in enumerate(messages, start=1) if message["header"]["flags"] & NLM_F_ACK}
    while waiting:
        for kind, number, body in _received(connection):
            if kind == _NLMSG_ERROR:
                waiting.discard(number)
                _raise_error(body)


def count_refused(connection: socket.socket, table: str, chain: str) -> int:
    """How many packets the counters of a chain's rules have counted."""
    question = _message(nft_rule_msg, NFT_MSG_GETRULE, table=table, chain=chain)
    question["header"]["flags"] = NLM_F_REQUEST | NLM_F_DUMP
    return sum(_counted(message) for message in _dump(connection, question))


def table(name: str) -> Message:
    """A new table of both families. One that is there already was made by someone else: an error."""
    return _message(nft_table_msg, NFT_MSG_NEWTABLE, name=name)


def replaced_table(name: str) -> list[Message]:
    """A new table of both families in place of one that may be there: one that surely is there can be deleted."""
    there, gone = table(name), _message(nft_table_msg, NFT_MSG_DELTABLE, name=name)
    there["header"]["flags"] &= ~NLM_F_EXCL
    gone["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK
    return [there, gone, table(name)]


def chain(of: str, name: str, kind: str, *, hook: int, priority: int, policy: int) -> Message:
    """A new chain of table `of`. `kind` is `filter` or `nat`."""
    at = {"attrs": [("NFTA_HOOK_HOOKNUM", hook), ("NFTA_HOOK_PRIORITY", priority)]}
    return _message(nft_chain_msg, NFT_MSG_NEWCHAIN, table=of, name=name, hook=at, policy=policy, type=kind)


def rule(of: str, name: str, *parts: Expressions) -> Message:
    """A new rule behind those that chain `name` of table `of` has."""
    return _message(nft_rule_msg, NFT_MSG_NEWRULE, table=of, chain=name, expressions=[expression for part in parts for expression in part])


def leaves_by_loopback() -> Expressions:
    """`oifname lo`."""
    return _meta(Meta.NFT_META_OIFNAME), _compare(_CMP_EQUAL, _interface("lo"))


def leaves_elsewhere() -> Expressions:
    """`oifname != lo`."""
    return _meta(Meta.NFT_META_OIFNAME), _compare(_CMP_NOT_EQUAL, _interface("lo"))


def arrives_by_loopback() -> Expressions:
    """`iifname lo`."""
    return _meta(Meta.NFT_META_IIFNAME), _compare(_CMP_EQUAL, _interface("lo"))


def owned() -> Expressions:
    """Only packets of a program's socket: what the kernel sends by itself (neighbour and multicast listener messages) has no owner."""
    return _meta(Meta.NFT_META_SKUID), _compare(_CMP_AT_LEAST, bytes(4))


def owned_by(uid: int) -> Expressions:
    """Only packets of a socket that a program of this user made."""
    return _meta(Meta.NFT_META_SKUID), _compare(_CMP_EQUAL, _native(uid))


def protocol(number: int) -> Expressions:
    """`meta l4proto`, an IPPROTO_ number; it holds behind extension headers of IPv6 too."""
    return _meta(Meta.NFT_META_L4PROTO), _compare(_CMP_EQUAL, bytes([number]))


def destination_port(port: int) -> Expressions:
    """Of TCP and UDP alike; ask for the protocol first."""
    return _transport(offset=2, length=2), _compare(_CMP_EQUAL, port.to_bytes(2, "big"))


def neighbour_discovery() -> Expressions:
    """ICMPv6 types 133 to 136 (RFC 4861): without them IPv6 finds neither router nor neighbour."""
    kind = _transport(offset=0, length=1)
    return (*protocol(socket.IPPROTO_ICMPV6), kind, _compare(_CMP_AT_LEAST, b"\x85"), _compare(_CMP_LESS_OR_EQUAL, b"\x88"))


def translated() -> Expressions:
    """`ct status dnat`: what a redirect has turned round to the gate."""
    return _conntrack(_CT_STATUS, _IPS_DST_NAT)


def underway() -> Expressions:
    """`ct state established,related`: answers, and errors about what is under way."""
    return _conntrack(_CT_STATE, _STATE_ESTABLISHED | _STATE_RELATED)


def counter() -> Expressions:
    """Count the packets that come this far in the rule."""
    return (genex("counter", {}),)


def redirect(port: int) -> Expressions:
    """To `port` of this host: loopback for what it sends, the address of the interface for what it gets."""
    load = genex("immediate", {"dreg": _NFT_REGISTER, "data": _value(port.to_bytes(2, "big"))})
    return load, genex("redir", {"reg_proto_min": _NFT_REGISTER})


def reject_reset() -> Expressions:
    """Refuse with a TCP reset."""
    return (genex("reject", {"type": _REJECT_RESET, "icmp_code": 0}),)


def reject() -> Expressions:
    """Refuse with `port unreachable` of the packet's family."""
    return (genex("reject", {"type": _REJECT_ICMPX, "icmp_code": _ICMPX_PORT_UNREACHABLE}),)


def verdict(code: int) -> Expressions:
    """ACCEPT or DROP."""
    return (genex("immediate", {"dreg": 0, "data": {"attrs": [("NFTA_DATA_VERDICT", {"attrs": [("NFTA_VERDICT_CODE", code)]})]}}),)


def link_up(index: int) -> Message:
    """Bring a link up."""
    message = ifinfmsg()
    message["index"] = index
    message["flags"] = message["change"] = 1  # IFF_UP
    return _headed(message, RTM_NEWLINK, 0)


def linked_pair(names: tuple[str, str], indexes: tuple[int, int]) -> Message:
    """A new veth pair with both ends here."""
    peer = {"index": indexes[1], "attrs": [("IFLA_IFNAME", names[1])]}
    information = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]})]}
    message = ifinfmsg()
    message["index"] = indexes[0]
    message["attrs"] = [("IFLA_IFNAME", names[0]), ("IFLA_LINKINFO", information)]
    return _headed(message, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL)


def default_route(index: int, family: int, address: str, length: int, gateway: str) -> list[Message]:
    """An address for the link and a default route over it; `nodad` since an address under detection can't be used yet."""
    given = ifaddrmsg()
    given["family"], given["prefixlen"], given["index"] = family, length, index
    given["flags"] = 2 if family == socket.AF_INET6 else 0  # IFA_F_NODAD
    given["attrs"] = [("IFA_LOCAL", address), ("IFA_ADDRESS", address)]
    route = rtmsg()
    route["family"], route["table"], route["proto"], route["type"] = family, 254, 4, 1  # main, static, unicast
    route["attrs"] = [("RTA_GATEWAY", gateway), ("RTA_OIF", index)]
    flags = NLM_F_CREATE | NLM_F_EXCL
    return [_headed(given, RTM_NEWADDR, flags), _headed(route, RTM_NEWROUTE, flags)]


def _message(layout: Any, kind: int, **attributes: Any) -> Message:
    message = layout()
    message["attrs"] = [(layout.name2nla(name), value) for name, value in attributes.items()]
    message["nfgen_family"] = NFPROTO_INET
    message["header"]["type"] = NFNL_SUBSYS_NFTABLES << 8 | kind
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE
    message["header"]["flags"] = flags | (NLM_F_APPEND if kind == NFT_MSG_NEWRULE else NLM_F_EXCL)
    return message


def _headed(message: Message, kind: int, flags: int) -> Message:
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | flags
    return message


def _meta(key: int) -> Any:
    return genex("meta", {"key": key, "dreg": _NFT_REGISTER})


def _compare(operation: int, data: bytes) -> Any:
    return genex("cmp", {"sreg": _NFT_REGISTER, "op": operation, "data": _value(data)})


def _transport(*, offset: int, length: int) -> Any:
    return genex("payload", {"dreg": _NFT_REGISTER, "base": _TRANSPORT_HEADER, "offset": offset, "len": length})


def _conntrack(key: int, bits: int) -> Expressions:
    load = genex("ct", {"dreg": _NFT_REGISTER, "key": key})
    mask, xor = _value(_native(bits)), _value(bytes(4))
    masked = genex("bitwise", {"sreg": _NFT_REGISTER, "dreg": _NFT_REGISTER, "len": 4, "mask": mask, "xor": xor})
    return load, masked, _compare(_CMP_NOT_EQUAL, bytes(4))


def _value(data: bytes) -> Mapping[str, Any]:
    return {"attrs": [("NFTA_DATA_VALUE", data)]}


def _native(number: int) -> bytes:
    return number.to_bytes(4, "little" if _LITTLE else "big")


def _interface(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")  # IFNAMSIZ


def _netlink(number: int) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, number)
    made.settimeout(_ANSWER_SECONDS)
    made.bind((0, 0))
    return made


def _edge(kind: int) -> Message:
    message = nfgen_msg()
    message["res_id"] = NFNL_SUBSYS_NFTABLES
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST
    return message


def _encoded(messages: Sequence[Message]) -> bytes:
    parts = []
    for number, message in enumerate(messages, start=1):
        message["header"]["sequence_number"] = number
        message.encode()
        parts.append(bytes(message.data))
    return b"".join(parts)


def _dump(connection: socket.socket, question: Message) -> Iterator[bytes]:
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


def _counted(message: bytes) -> int:
    found = nft_rule_msg(message)
    found.decode()
    data = [
        expression.get_attr("NFTA_EXPR_DATA")
        for expression in found.get_attr("NFTA_RULE_EXPRESSIONS")
        if expression.get_attr("NFTA_EXPR_NAME") == "counter"
    ]
    return sum(int(counted.get_attr("NFTA_COUNTER_PACKETS")) for counted in data)
