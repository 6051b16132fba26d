"""Tokens seen: a token is accepted once by the receiver that holds this cache.

Bounded: a full cache refuses and counts, since forgetting a token early would let it in twice. An id is kept until no clock
in use could still find its token valid. Expired ids are dropped a few at each claim, so no claim pays for all of them.
"""

from __future__ import annotations

import heapq
import threading
from typing import Final

from tokenmint import validity

# 2,700 accepted tokens a second for as long as each is remembered (90 s); about 35 MB when full.
MAX_TOKEN_IDS: Final = 250_000
# More than the one that a claim adds, so the backlog after a pause shrinks; few enough to cost under 50 us.
_DROPPED_AT_ONCE: Final = 64


class ReplayCache:
    """Ids of accepted tokens. Safe to use from several threads.

    The counters say why claims were refused: `seen` before, the cache `full`, or `expired` by the latest clock that was shown.
    """

    def __init__(self, capacity: int = MAX_TOKEN_IDS) -> None:
        if capacity < 1:
            raise ValueError(f"expected a capacity of at least 1, got {capacity}")
        self.capacity = capacity
        self.refused_seen = 0
        self.refused_full = 0
        self.refused_expired = 0
        self._lock = threading.Lock()
        self._ids: set[str] = set()
        self._expiring: dict[int, list[str]] = {}
        self._moments: list[int] = []  # the keys of _expiring, as a heap
        self._latest = 0

    def __len__(self) -> int:
        return len(self._ids)

    def claim(self, token_id: str, expires_at: int, now: int) -> bool:
        """Whether a verified token may be used: true exactly once for each id. Times are Unix seconds.

        False when it was used before, when the cache is full, and when the token has expired by the latest `now` of any call:
        a clock that is set back would otherwise bring back tokens whose ids were dropped.
        """
        with self._lock:
            self._latest = max(self._latest, now)
            self._drop_expired()
            if self._is_over(expires_at):
                self.refused_expired += 1
                return False
            if token_id in self._ids:
                self.refused_seen += 1
                return False
            if len(self._ids) >= self.capacity:
                self.refused_full += 1
                return False
            self._remember(token_id, expires_at)
            return True

    def _is_over(self, expires_at: int) -> bool:
        return self._latest >= expires_at + validity.CLOCK_SKEW_SECONDS

    def _remember(self, token_id: str, expires_at: int) -> None:
        self._ids.add(token_id)
        expiring = self._expiring.get(expires_at)
        if expiring is None:
            expiring = self._expiring[expires_at] = []
            heapq.heappush(self._moments, expires_at)
        expiring.append(token_id)

    def _drop_expired(self) -> None:
        for _ in range(_DROPPED_AT_ONCE):
            if not self._moments or not self._is_over(self._moments[0]):
                return
            expiring = self._expiring[self._moments[0]]
            self._ids.discard(expiring.pop())
            if not expiring:
                del self._expiring[heapq.heappop(self._moments)]
