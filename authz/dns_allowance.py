"""How fast one agent may ask: what it asks is recorded, and the record must not grow as fast as a program can send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

# Programs ask tens of questions at their start and few later; a thousand in a second is no program's work.
MESSAGES_PER_SECOND: Final = 200
BURST: Final = 1000


class Allowance:
    """A bucket of messages that fills again by the second; `clock` is in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left = float(BURST)
        self._at = clock()

    def take(self) -> float:
        """Take one and give 0; where there is none, give the seconds until there is."""
        now = self._clock()
        self._left = min(float(BURST), self._left + (now - self._at) * MESSAGES_PER_SECOND)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / MESSAGES_PER_SECOND
        self._left -= 1
        return 0.0
