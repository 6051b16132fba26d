"""The hop token keys of several processes: each signs with its own, and accepts those of the others.

Nothing is fetched here: whoever watches what the others publish tells it with `SharedKeys.learn`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from tokenmint import keys, validity
from tokenmint.keys import KeyRing, PublicKey, SigningKey
from tokenmint.redacted import Redacted

# How long the keys of a process are accepted after it is gone: what it signed last is used by then, or never (life and skew).
LINGER_SECONDS: Final = validity.TOKEN_LIFE_SECONDS + validity.CLOCK_SKEW_SECONDS


def accept(before: Mapping[str, PublicKey], published: Mapping[str, PublicKey], now: int) -> Mapping[str, PublicKey]:
    """The keys of others that are accepted from `now` on, after `before`: those that are published, and for a while those that were."""
    ends = now + LINGER_SECONDS
    lingering = {
        kid: PublicKey(key.public, min(key.valid_until, ends))
        for kid, key in before.items()
        if kid not in published and key.valid_until > now
    }
    return MappingProxyType({**lingering, **published})


class SharedKeys(Redacted):
    """The keys of one process among several: it signs with its own, and accepts those of the others too."""

    __slots__ = ("_accepted", "_others", "_own", "_ring")

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._others: Mapping[str, PublicKey] = MappingProxyType({})
        self._own: Mapping[str, PublicKey] | None = None
        self._accepted: Mapping[str, PublicKey] = MappingProxyType({})

    def learn(self, published: Iterable[Mapping[str, PublicKey]], now: int) -> None:
        """From now on these are the keys that other processes publish; what they published before is accepted for a while."""
        self._others = accept(self._others, keys.union(published), now)
        self._own = None

    def signing_key(self, now: int) -> SigningKey:
        """The key to sign with."""
        return self._ring.signing_key(now)

    def public_keys(self, now: int) -> Mapping[str, PublicKey]:
        """Every public half that is accepted, by `kid`; one whose time is over is refused by whoever verifies."""
        own = self._ring.public_keys(now)
        if own is not self._own:
            self._accepted, self._own = keys.union((own, self._others)), own
        return self._accepted

    def _shown(self) -> str:
        return f"own={self._ring!r}, others={len(self._others)}"
