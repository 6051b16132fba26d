"""A process beside a gate: started, told the gate's state, started again when it ends.

It is never ended for being slow: a stopped process may be somebody's debugger, and what it does not do is denied, or told as not seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from hopgate import children
from hopgate.children import Applied, Failed, GateState, MessageError, Ready, ReportRequest
from hopgate.local.errors import LocalError

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
# Long enough for an import on a loaded machine; the state is applied in microseconds.
ANSWER_SECONDS = 15.0
# A report lists mistakes and counters; a line beyond this is not one of ours.
LINE_LIMIT = 1 << 20


StateT = TypeVar("StateT", bound=GateState)
ReportT = TypeVar("ReportT", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[StateT, ReportT]):
    """What is particular to one such process: `python -m MODULE`, what people call it, and what its end means to them.

    `error` is raised when it can't be started or does not take a state; `empty` is the state before the first.
    """

    module: str
    name: str
    without: str
    error: type[LocalError]
    empty: StateT
    decode: Callable[[bytes], Applied | Ready | Failed | ReportT]


class ChildProcess(Generic[StateT, ReportT]):
    """Keeps one process of a kind alive. `arguments` follow its module; `say` gets lines for a person."""

    def __init__(self, kind: Kind[StateT, ReportT], arguments: tuple[str, ...], say: Callable[[str], None]) -> None:
        self._kind = kind
        self._arguments = arguments
        self._say = say
        self._state = kind.empty
        self._process: asyncio.subprocess.Process | None = None
        self._applied = asyncio.Condition()
        self._applied_sequence = -1
        self._report: asyncio.Future[ReportT] | None = None
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
        """Wait until the spawned process answers. Raises the kind's error with what it said when it can't."""
        if self._ready is None:
            raise self._kind.error(f"the {self._kind.name} process was not started", remedy="start it before waiting for it")
        try:
            await asyncio.wait_for(self._ready, ANSWER_SECONDS)
        except TimeoutError as error:
            raise self._error("did not get ready") from error

    def keep(self, state: StateT) -> None:
        """Make `state` the one that the process is told when it is ready."""
        self._state = state

    async def update(self, state: StateT, timeout_seconds: float = ANSWER_SECONDS) -> None:
        """Make `state` the one in force and wait until the process said so. Raises the kind's error after a deadline."""
        self._state = state
        self._write(children.encode(state))
        try:
            async with asyncio.timeout(timeout_seconds), self._applied:
                await self._applied.wait_for(lambda: self._applied_sequence >= state.sequence)
        except TimeoutError as error:
            raise self._error("did not take the gate's state") from error

    async def report(self, timeout_seconds: float) -> ReportT | None:
        """How the process is; None when it does not say in time."""
        if self._report is None or self._report.done():
            self._report = asyncio.get_running_loop().create_future()
            self._write(children.encode(ReportRequest()))
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

    def _error(self, what: str) -> LocalError:
        return self._kind.error(f"the {self._kind.name} process {what}", remedy="see what it wrote on standard error")

    async def _spawn(self) -> None:
        self._report = None  # whoever waits for one gets none; the next asks the new process
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._kind.module,
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
                ready.set_exception(self._error("ended at its start"))
            if ready.cancelled() or ready.exception() is not None:
                return
            self.restarts += 1
            self._say(f"the {self._kind.name} process ended; {self._kind.without} until it is back (restart {self.restarts})")
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
                message = self._kind.decode(line)
            except MessageError as error:
                self._say(f"the {self._kind.name} process wrote something else than its answers: {error}")
                continue
            match message:
                case Ready():
                    was_ready = True
                    self._write(children.encode(self._state))
                    if not ready.done():
                        ready.set_result(None)
                case Applied():
                    async with self._applied:
                        self._applied_sequence = message.sequence
                        self._applied.notify_all()
                case Failed():
                    if not ready.done():
                        ready.set_exception(self._kind.error("\n".join(message.messages), remedy="mend what it names and start again"))
                case _:
                    if self._report is not None and not self._report.done():
                        self._report.set_result(message)
        await process.wait()
        return was_ready
