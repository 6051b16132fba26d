"""Which virtual address stands for which name: a stable hash of the name within the range of its TLS treatment.

An address is a function of the name, so that every process that reads the same resources gives the same one; only where two
names hash to one address does the order of their spelling decide, or what was given before. The ranges are those of Envoy's static filter
chains, which tell by the address how to treat the hop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
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

    `previous` are the addresses given before: a name keeps its own while it stays in the same range and no other has it. Where two have
    one, it stays with the name whose own place it is, else with the first by spelling.
    """
    claimed: dict[str, list[str]] = {}
    for name in sorted(wanted.keys() & previous.keys()):
        if _is_usable(previous[name], RANGES[wanted[name]]):
            claimed.setdefault(previous[name], []).append(name)
    given = {_holder(address, names, wanted): address for address, names in claimed.items()}
    taken = set(given.values())
    for name in sorted(wanted.keys() - given.keys()):
        free = _first_free(name, RANGES[wanted[name]], taken)
        if free is not None:
            given[name] = free
            taken.add(free)
    return given


def _holder(address: str, names: Sequence[str], wanted: Mapping[str, Tls]) -> str:
    if len(names) == 1:
        return names[0]
    return next((name for name in names if _first_free(name, RANGES[wanted[name]], set()) == address), names[0])


def _is_usable(address: str, network: IPv4Network) -> bool:
    found = IPv4Address(address)
    return found in network and found not in {network.network_address, network.broadcast_address}


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
