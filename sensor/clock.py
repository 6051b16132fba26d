"""The clock of the kernel's events: nanoseconds since boot, sleep included, which nobody sets."""

from __future__ import annotations

import time


def now_ns() -> int:
    """The clock of the kernel's events."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def wall_ns(boot_ns: int) -> int:
    """A time of the kernel's events in Unix nanoseconds."""
    return boot_ns + time.time_ns() - now_ns()
