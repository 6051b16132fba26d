"""A terminal, as a person sits at one."""

from __future__ import annotations

import os
import pty
import select
import time
from collections.abc import Sequence

DEADLINE_SECONDS = 20.0
_PATIENCE_SECONDS = 1.0


class Terminal:
    """A pseudo-terminal with `command` as its session's leader."""

    def __init__(self, command: Sequence[str]) -> None:
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:
            os.execv(command[0], list(command))  # noqa: S606 - a child of a terminal's own session can't be made by subprocess
        self._seen = b""

    def expect(self, text: str) -> None:
        assert self._comes(text, DEADLINE_SECONDS), self._seen

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def interrupt(self, answer: str) -> None:
        """Press Ctrl-C until the program answers: shells take one that comes just before they wait for a line when that line has come."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        self.type("\x03")
        while not self._comes(answer, _PATIENCE_SECONDS):
            assert time.monotonic() < deadline, self._seen
            self.type("\x03")

    def _comes(self, text: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while text.encode() not in self._seen:
            if not select.select([self._descriptor], [], [], max(0, deadline - time.monotonic()))[0]:
                return False
            self._seen += os.read(self._descriptor, 4096)
        self._seen = self._seen.partition(text.encode())[2]
        return True

    def end(self) -> int:
        """Wait for the leader; its exit code or minus its signal."""
        ended, status = os.waitpid(self.pid, 0)
        os.close(self._descriptor)
        assert ended == self.pid
        return os.waitstatus_to_exitcode(status)
