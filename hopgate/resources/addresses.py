"""Which virtual address stands for which name: a stable hash of the name within the range of its TLS treatment.

An address is a function of the name, so that every process that reads the same resources gives the same one; only where two
names hash to one address does the order of their spelling decide, or what was given before. The ranges are those of Envoy's static filter
chains, which tell by the address how to treat the hop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from hopgate.resources.kinds import Tls

RANGES: Final[Mapping[Tls, IPv4Network]] = {
    Tls.OPEN: IPv4Network("198.18.0.0/17"),
    Tls.SEALED: IPv4Network("198.18.128.0/17"),
    Tls.DISABLED: IPv4Network("198.19.0.0/16"),
}


def allot(wanted: Mapping[str, Tls], previous: Mapping[str, str]) -> Mapping[str, str]:
    """Name to address, for every name of `wanted`; a name is left out only when its range is full.

    `previous` are the addresses given before: a name keeps its own while it stays in the same range and no other has it.
    """
    given: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(wanted.keys() & previous.keys()):
        address = previous[name]
        if address not in taken and IPv4Address(address) in RANGES[wanted[name]]:
            given[name] = address
            taken.add(address)
    for name in sorted(wanted.keys() - given.keys()):
        free = _first_free(name, RANGES[wanted[name]], taken)
        if free is not None:
            given[name] = free
            taken.add(free)
    return given


def _first_free(name: str, network: IPv4Network, taken: set[str]) -> str | None:
    """The name's own place in `network`, or the next free one after it; never the first or the last address."""
    usable = network.num_addresses - 2
    own = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % usable
    first = int(network.network_address) + 1
    for step in range(usable):
        address = str(IPv4Address(first + (own + step) % usable))
        if address not in taken:
            return address
    return None
