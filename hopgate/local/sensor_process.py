"""The sensor beside a gate: started when it can run, told which agents there are, and what it does not see told by name.

A gate never waits for it longer than a moment, and never depends on it. It starts after the first program has begun, or once the gate is
up, so that it costs no program's start anything.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hopgate.local.child_process import ChildProcess, Kind
from hopgate.local.control import SensorStatus
from hopgate.local.errors import LocalError
from sensor import state as states
from sensor.state import Report, State

# An agent's program may begin before the sensor knows of it only when that does not answer in this time.
_TOLD_SECONDS: Final = 1.0
_REPORT_SECONDS: Final = 1.0
# A program that was started at the same moment has imported most of what it needs by then.
_PAUSE_SECONDS: Final = 0.3
_WITHOUT: Final = "connections of agents are not seen"


class SensorError(LocalError):
    """The sensor could not be started, or did not take the gate's state."""

    code = "SensorUnavailable"


_KIND: Final[Kind[State, Report]] = Kind(
    module="sensor",
    name="sensor",
    without=_WITHOUT,
    error=SensorError,
    empty=State(sequence=0),
    decode=states.decode_from_sensor,
)


class SensorProcess:
    """The sensor of a gate, or the reason why there is none.

    `wanted` false: nobody wants one. `sightings`: it looks for unregistered agents, too, which one sensor of a machine is enough for.
    """

    def __init__(self, data: Path, say: Callable[[str], None], *, wanted: bool, sightings: bool = False) -> None:
        arguments = ("--data", str(data), *(("--sightings",) if sightings else ()))
        self._process: ChildProcess[State, Report] = ChildProcess(_KIND, arguments, say)
        self._missing = "the sensor is starting" if wanted else "the sensor is switched off (--no-sensor)"
        self._wanted = wanted
        self._ready = False
        self._state = State(sequence=0)
        self._starting: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, None while there is none."""
        return self._process.pid

    def begin(self, *, pause_seconds: float = _PAUSE_SECONDS) -> None:
        """Start the sensor in a moment, unless that was asked for before."""
        if self._wanted and self._starting is None:
            self._starting = asyncio.create_task(self._start(pause_seconds))

    async def started(self) -> None:
        """Wait until the sensor is ready, or has said why it can't be. Does nothing before `begin`."""
        if self._starting is not None:
            await self._starting

    async def update(self, state: State) -> None:
        """Tell the sensor the gate's state, and wait a moment until it has it; what is not there yet gets it first of all."""
        self._state = state
        if not self._ready:
            self._process.keep(state)
            return
        with contextlib.suppress(SensorError):
            await self._process.update(state, _TOLD_SECONDS)

    async def status(self) -> SensorStatus:
        """How the sensor is, for a person."""
        report = await self._process.report(_REPORT_SECONDS) if self._ready and self.pid is not None else None
        if report is not None:
            unseen = report.unseen
        else:
            unseen = (f"{_WITHOUT}: {self._missing if not self._ready else 'the sensor does not answer'}",)
        return SensorStatus(
            pid=self.pid if self._ready else None,
            restarts=self._process.restarts,
            loader=report.loader if report is not None else "",
            why=report.why if report is not None else "",
            unseen=unseen,
            counters=report.counters if report is not None else {},
            unenforced=report.unenforced if report is not None else self._unenforced(),
        )

    def _unenforced(self) -> tuple[str, ...]:
        """Without a sensor nobody cuts an agent off, but what it did before holds."""
        return tuple(
            f"`{agent.agent}`: the sensor, which cuts agents off, does not answer or does not run; the gate still refuses all hops"
            for agent in self._state.agents
            if agent.quarantine
        )

    async def stop(self) -> None:
        """End the sensor; it writes what it has seen first."""
        if self._starting is not None:
            self._starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._starting
        await self._process.stop()

    async def _start(self, pause_seconds: float) -> None:
        await asyncio.sleep(pause_seconds)
        try:
            await self._process.spawn()
            await self._process.ready()
        except (SensorError, OSError) as error:
            self._missing = str(error)
            return
        self._ready = True
