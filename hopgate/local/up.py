"""The gate's process: as `hopgate up` in the foreground, or brought along by one `hopgate run`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from hopgate.local import control, envoy_process, folders, rights
from hopgate.local.authz_process import AuthzProcess
from hopgate.local.folders import SHARED_GATE


def run(resources: Path, data: Path, trust_domains: tuple[str, ...] = (), *, sensor: bool = True) -> None:
    """Run a gate until a signal ends it. Raises LocalError when it can't start.

    `trust_domains` are those of a mesh whose Envoys may ask this gate for decisions; `sensor`: whether connections are watched.
    """
    rights.require_root("hopgate up")
    asyncio.run(
        _serve(
            resources,
            data.absolute(),
            SHARED_GATE,
            envoy_process.find(),
            ready=lambda: _say(f"the gate is up for `{resources}`"),
            lifeline=None,
            trust_domains=trust_domains,
            sensor=sensor,
        )
    )


def bring_along(resources: Path, data: Path, name: str, ready: int, lifeline: int, *, sensor: bool) -> None:
    """Run a gate for one `hopgate run`: a byte on `ready` says that it listens; it ends when `lifeline` reaches its end."""
    asyncio.run(_serve(resources, data, name, envoy_process.find(), ready=lambda: _tell(ready), lifeline=lifeline, sensor=sensor))


async def _serve(
    resources: Path,
    data: Path,
    name: str,
    envoy: Path,
    *,
    ready: Callable[[], None],
    lifeline: int | None,
    sensor: bool,
    trust_domains: tuple[str, ...] = (),
) -> None:
    run = folders.open_run(folders.open_data(data), name)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(signum, ended.set)
    if lifeline is not None:
        loop.add_reader(lifeline, ended.set)
    authz = AuthzProcess(("--resources", str(resources), "--data", str(data), "--socket", str(run.authz)), _say)
    try:
        await authz.spawn()
        # Imported only now, while authz imports its own on another core: it is most of what a start takes.
        from hopgate.local.gate import Gate, GateSpec  # noqa: PLC0415
        from hopgate.local.mesh_credential import peers  # noqa: PLC0415
        from hopgate.local.sensor_process import SensorProcess  # noqa: PLC0415
        from hopgate.local.sessions import Sessions  # noqa: PLC0415

        spec = GateSpec(resources=resources, data=data, run=run, envoy=envoy, say=_say, mesh=peers(data, trust_domains))
        watching = SensorProcess(data, _say, wanted=sensor, sightings=lifeline is None)
        gate = Gate(spec, authz, watching)
        await gate.start()
        sessions = asyncio.create_task(Sessions(gate, control.listen(run.control)).serve())
        ready()
        if lifeline is None:
            watching.begin(pause_seconds=0)  # there is no program whose start it could be in the way of
        await ended.wait()
        sessions.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sessions
        await gate.stop()
    finally:
        await authz.stop()
        run.remove()


def _say(line: str) -> None:
    sys.stderr.write(f"hopgate: {line}\n")
    sys.stderr.flush()


def _tell(descriptor: int) -> None:
    os.write(descriptor, b"1")
    os.close(descriptor)
