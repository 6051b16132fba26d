"""The authz process beside a gate: started, told the gate's state, started again when it ends.

While it is down every check fails and Envoy denies; when it is back it is told the whole state before it is needed. It is
never ended for being slow: a stopped process may be somebody's debugger, and what it does not answer is denied anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

from authz import state as states
from authz.state import Applied, Failed, Ready, Report, ReportRequest, State, StateError
from hopgate.local.errors import LocalError

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
# Long enough for an import on a loaded machine; the state is applied in microseconds.
ANSWER_SECONDS = 15.0
# A report lists mistakes and counters; a line beyond this is not one of ours.
LINE_LIMIT = 1 << 20


class AuthzError(LocalError):
    """The authz process could not be started, or did not take the gate's state."""

    code = "AuthzUnavailable"


class AuthzProcess:
    """Keeps one authz process alive. `arguments` follow `python -m authz`; `say` gets lines for a person."""

    def __init__(self, arguments: tuple[str, ...], say: Callable[[str], None]) -> None:
        self._arguments = arguments
        self._say = say
        self._state = State(sequence=0)
        self._process: asyncio.subprocess.Process | None = None
        self._applied = asyncio.Condition()
        self._applied_sequence = -1
        self._report: asyncio.Future[Report] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The process id, None while there is none."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def spawn(self) -> None:
        """Start the process; it imports and reads while the caller does something else."""
        self._ready = asyncio.get_running_loop().create_future()
        await self._spawn()
        self._task = asyncio.create_task(self._keep(self._ready))

    async def ready(self) -> None:
        """Wait until the spawned process answers. Raises AuthzError with what it said when it can't."""
        if self._ready is None:
            raise AuthzError("the authz process was not started", remedy="start it before waiting for it")
        try:
            await asyncio.wait_for(self._ready, ANSWER_SECONDS)
        except TimeoutError as error:
            raise AuthzError("the authz process did not get ready", remedy="see what it wrote on standard error") from error

    async def update(self, state: State) -> None:
        """Make `state` the one in force and wait until the process said so. Raises AuthzError after a deadline."""
        self._state = state
        self._write(states.encode(state))
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._applied:
                await self._applied.wait_for(lambda: self._applied_sequence >= state.sequence)
        except TimeoutError as error:
            raise AuthzError("the authz process did not take the gate's state", remedy="see what it wrote on standard error") from error

    async def report(self, timeout_seconds: float) -> Report | None:
        """How the process is; None when it does not say in time."""
        if self._report is None or self._report.done():
            self._report = asyncio.get_running_loop().create_future()
            self._write(states.encode(ReportRequest()))
        try:
            return await asyncio.wait_for(asyncio.shield(self._report), timeout_seconds)
        except TimeoutError:
            return None

    async def stop(self) -> None:
        """End the process; what it was answering is finished first."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._process is not None and self._process.returncode is None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), LONGEST_PAUSE_SECONDS)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    async def _spawn(self) -> None:
        self._report = None  # whoever waits for one gets none; the next asks the new process
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "authz",
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
            start_new_session=True,  # a Ctrl-C on the terminal is for the program, not for its gate
            cwd=Path("/"),
        )

    def _write(self, line: bytes) -> None:
        if self._process is not None and self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(line)

    async def _keep(self, ready: asyncio.Future[None]) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            if await self._listen(ready):
                pause = FIRST_PAUSE_SECONDS
            if not ready.done():
                ready.set_exception(AuthzError("the authz process ended at its start", remedy="see what it wrote on standard error"))
            if ready.cancelled() or ready.exception() is not None:
                return
            self.restarts += 1
            self._say(f"the authz process ended; every hop is denied until it is back (restart {self.restarts})")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            await self._spawn()

    async def _listen(self, ready: asyncio.Future[None]) -> bool:
        """Read the process's lines until it ends; whether it ever got ready."""
        process = self._process
        if process is None or process.stdout is None:
            return False
        was_ready = False
        async for line in process.stdout:
            try:
                message = states.decode_from_authz(line)
            except StateError as error:
                self._say(f"the authz process wrote something else than its answers: {error}")
                continue
            match message:
                case Ready():
                    was_ready = True
                    self._write(states.encode(self._state))
                    if not ready.done():
                        ready.set_result(None)
                case Applied():
                    async with self._applied:
                        self._applied_sequence = message.sequence
                        self._applied.notify_all()
                case Report():
                    if self._report is not None and not self._report.done():
                        self._report.set_result(message)
                case Failed():
                    if not ready.done():
                        ready.set_exception(AuthzError("\n".join(message.messages), remedy="mend what it names and start again"))
        await process.wait()
        return was_ready
