"""Notices that a folder of manifests has changed, within a second.

It looks at the files' signatures a few times a second instead of asking the kernel to be told: that sees every way of changing a file
(written in place, renamed over, swapped by a link as Kubernetes does, removed, the folder itself replaced or back again) and works on every
file system, also those shared from another machine, where inotify says nothing. A look at a hundred files takes about a millisecond.
A change is reported once two looks in a row agree, so a file that is still being written is not read half; a folder that never comes to
rest is not reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from hopgate.manifests import files
from hopgate.manifests.files import Signature

# A change is seen by the next look and reported by the one after: two intervals and the looks, well within a second.
INTERVAL_SECONDS: Final = 0.3


class FolderWatcher:
    """Calls `on_change` after each change of the folder since this object was made, so make it before the first load.

    `sleep` waits for a number of seconds; it is an argument so that tests decide when time passes.
    """

    def __init__(
        self,
        folder: Path,
        on_change: Callable[[], None],
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._folder = folder
        self._on_change = on_change
        self._interval_seconds = interval_seconds
        self._sleep = sleep
        self._reported = self._last = files.sign(folder)

    async def run(self) -> None:
        """Watch until cancelled. What `on_change` raises ends it."""
        while True:
            await self._sleep(self._interval_seconds)
            # In a thread: a slow file system must not hold up the checks that this process answers.
            self._look(await asyncio.to_thread(files.sign, self._folder))

    def _look(self, seen: tuple[Signature, ...]) -> None:
        settled, self._last = seen == self._last, seen
        if settled and seen != self._reported:
            self._reported = seen
            self._on_change()
