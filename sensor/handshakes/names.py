"""Which names an address was looked up by, for each cgroup: what a connection was for, where its handshake does not say it.

Several names share an address, so all that were seen are told. A program may use an address longer than DNS lets it, so a short life is
stretched; what was not looked up again for long is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from sensor.handshakes.dns_answer import DnsAnswer

_SECOND: Final = 1_000_000_000
MIN_LIFE_SECONDS: Final = 300
MAX_LIFE_SECONDS: Final = 86_400
MAX_ADDRESSES: Final = 16_384
MAX_NAMES: Final = 8


class Names:
    """`dropped` counts names that gave way to others before their time. Times are nanoseconds of one clock."""

    def __init__(self, max_addresses: int = MAX_ADDRESSES) -> None:
        self.dropped = 0
        self._max = max_addresses
        self._ends: OrderedDict[tuple[int, IPv4Address | IPv6Address], dict[str, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ends)

    def learn(self, cgroup_id: int, answer: DnsAnswer, now_ns: int) -> None:
        """Take in an answer that came to a program of this cgroup."""
        for address in answer.addresses:
            key = (cgroup_id, address.ip)
            ends = self._ends.pop(key, {})
            # The name that was asked for is the last one again.
            ends.pop(answer.name, None)
            ends[answer.name] = now_ns + min(max(address.ttl, MIN_LIFE_SECONDS), MAX_LIFE_SECONDS) * _SECOND
            self._ends[key] = ends
            if len(ends) > MAX_NAMES:
                del ends[next(iter(ends))]
                self.dropped += 1
            if len(self._ends) > self._max:
                _, gone = self._ends.popitem(last=False)
                self.dropped += sum(end > now_ns for end in gone.values())

    def of(self, cgroup_id: int, address: IPv4Address | IPv6Address, now_ns: int) -> tuple[str, ...]:
        """The names of an address, the one that was looked up last first; none for one that nobody of this cgroup looked up."""
        ends = self._ends.get((cgroup_id, address), {})
        for name in [name for name, end in ends.items() if end <= now_ns]:
            del ends[name]
        if not ends:
            self._ends.pop((cgroup_id, address), None)
        return tuple(reversed(ends))
