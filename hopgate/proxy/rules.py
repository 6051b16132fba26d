"""The rules that lead a program's packets to its gate, for both ways to run. Values only; `netlink` sends them.

On one machine the namespace has nothing but the gate, so nobody is exempt. In a pod the gate's proxy shares the namespace with the
app and sends out itself: packets of the proxy's user go their own way, and those alone. In both, what nothing redirects is refused at
once, IPv4 and IPv6 by the same rules.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final

from hopgate.proxy import netlink
from hopgate.proxy.netlink import (
    ACCEPT,
    DROP,
    FILTER_PRIORITY,
    HOOK_INPUT,
    HOOK_OUTPUT,
    HOOK_PREROUTING,
    NAT_PRIORITY,
    Expressions,
    Message,
)

TABLE: Final = "gate"
GUARD: Final = "guard"
_DNS: Final = 53
_TCP: Expressions = netlink.protocol(socket.IPPROTO_TCP)
_UDP: Expressions = netlink.protocol(socket.IPPROTO_UDP)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPorts:
    """Where a pod's proxy listens, and as which user it runs. `health` is the one port that is not led to the gate."""

    proxy_uid: int
    outbound: int
    inbound: int
    dns: int
    health: int


def of_namespace(proxy_port: int, dns_port: int) -> list[Message]:
    """For a namespace that has nothing but the gate. A second table in it is an error."""
    return [netlink.table(TABLE), *_guard([]), *_turned(proxy_port, dns_port, [])]


def of_pod(ports: PodPorts) -> list[Message]:
    """For a pod's namespace; the rules of an earlier start are replaced."""
    proxy = netlink.owned_by(ports.proxy_uid)
    exempt = [netlink.rule(TABLE, "output", proxy, netlink.verdict(ACCEPT))]
    let_out = [
        netlink.rule(TABLE, GUARD, netlink.underway(), netlink.verdict(ACCEPT)),
        netlink.rule(TABLE, GUARD, proxy, _TCP, netlink.verdict(ACCEPT)),
        netlink.rule(TABLE, GUARD, proxy, _UDP, netlink.verdict(ACCEPT)),
        netlink.rule(TABLE, GUARD, netlink.neighbour_discovery(), netlink.verdict(ACCEPT)),
    ]
    outbound = [*_guard(let_out), *_turned(ports.outbound, ports.dns, exempt)]
    return [*netlink.replaced_table(TABLE), *_entrance(ports), *outbound]


def _guard(let_out: list[Message]) -> list[Message]:
    """What may leave. Guard first, so that a rule missing from a kernel fails before anything is redirected."""
    return [
        netlink.chain(TABLE, GUARD, "filter", hook=HOOK_OUTPUT, priority=FILTER_PRIORITY, policy=DROP),
        netlink.rule(TABLE, GUARD, netlink.leaves_by_loopback(), netlink.verdict(ACCEPT)),
        netlink.rule(TABLE, GUARD, netlink.translated(), netlink.verdict(ACCEPT)),
        *let_out,
        netlink.rule(TABLE, GUARD, netlink.owned(), _TCP, netlink.counter(), netlink.reject_reset()),
        netlink.rule(TABLE, GUARD, netlink.owned(), netlink.counter(), netlink.reject()),
    ]


def _turned(proxy_port: int, dns_port: int, exempt: list[Message]) -> list[Message]:
    """What is led to the gate. DNS on loopback too: a program that asks a resolver on 127.0.0.53 asks the gate's."""
    asks = netlink.destination_port(_DNS)
    return [
        netlink.chain(TABLE, "output", "nat", hook=HOOK_OUTPUT, priority=NAT_PRIORITY, policy=ACCEPT),
        *exempt,
        netlink.rule(TABLE, "output", _UDP, asks, netlink.redirect(dns_port)),
        netlink.rule(TABLE, "output", _TCP, asks, netlink.redirect(dns_port)),
        netlink.rule(TABLE, "output", netlink.leaves_elsewhere(), _TCP, netlink.redirect(proxy_port)),
    ]


def _entrance(ports: PodPorts) -> list[Message]:
    """What comes in: TCP to the gate, probes to its health port, errors about what is under way; nothing else."""
    health = netlink.destination_port(ports.health)
    return [
        netlink.chain(TABLE, "entrance", "filter", hook=HOOK_INPUT, priority=FILTER_PRIORITY, policy=DROP),
        netlink.rule(TABLE, "entrance", netlink.arrives_by_loopback(), netlink.verdict(ACCEPT)),
        netlink.rule(TABLE, "entrance", netlink.underway(), netlink.verdict(ACCEPT)),
        netlink.rule(TABLE, "entrance", netlink.translated(), netlink.verdict(ACCEPT)),
        netlink.rule(TABLE, "entrance", _TCP, health, netlink.verdict(ACCEPT)),
        netlink.rule(TABLE, "entrance", netlink.neighbour_discovery(), netlink.verdict(ACCEPT)),
        # What the redirect left as it was: a connection to the inbound gate's own port.
        netlink.rule(TABLE, "entrance", _TCP, netlink.reject_reset()),
        netlink.chain(TABLE, "inbound", "nat", hook=HOOK_PREROUTING, priority=NAT_PRIORITY, policy=ACCEPT),
        netlink.rule(TABLE, "inbound", netlink.arrives_by_loopback(), netlink.verdict(ACCEPT)),
        netlink.rule(TABLE, "inbound", _TCP, health, netlink.verdict(ACCEPT)),
        netlink.rule(TABLE, "inbound", _TCP, netlink.redirect(ports.inbound)),
    ]
