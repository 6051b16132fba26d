"""The sensor of a cluster's node: `python -m sensor.node --node NAME`. A composition root, and the one that knows the API server.

The API server tells it which pods are on the node and who is registered; it looks up their cgroups, and then does what the sensor beside
a gate does: flows and sightings go to a spool. It also tells of shadow agents as objects, and where it may (`--enforce`) it cuts off what
has `quarantine: true`. Without an API server it goes on with what it was told last. It ends in an orderly way on SIGTERM; what is cut off
then stays so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hopgate import listening
from hopgate.audit.errors import AuditError
from hopgate.audit.spool import Durability, Spool, new_writer
from hopgate.kubernetes.api import AGENTS, SHADOW_AGENTS, ClientError
from hopgate.kubernetes.client import Client
from hopgate.kubernetes.health_server import HealthServer
from hopgate.kubernetes.informers import Informers
from sensor import data, enforcement, node_governance, node_metrics, privileges, process, programs
from sensor.kernel import Kernel, KernelError
from sensor.node_cgroups import PodCgroups
from sensor.node_enforcement import NodeEnforcement
from sensor.node_metrics import Moment
from sensor.node_objects import Objects, pods_of
from sensor.node_shadows import ShadowObjects
from sensor.process import Sensor
from sensor.watch import Watch

# A container's cgroup is there before the API server tells of it; within this the sensor knows whose it is.
LOOK_SECONDS: Final = 0.25
# A loop that has not come round for so long hangs. Each waits for the API server in one request for some 10 s at most.
HANGING_SECONDS: Final = 180.0
_RETRY_SECONDS: Final = 2.0

_log = logging.getLogger("sensor.node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the process is run. `health` is where probes are answered; `pins` None: nobody is cut off."""

    node: str
    spool: Path
    health: tuple[str, int]
    pins: Path | None


class NodeSensor:
    """One process. `run` until told to `end`."""

    def __init__(self, settings: Settings, client: Client, kernel: Kernel, missing: Sequence[str]) -> None:
        self._missing = missing
        self._settings = settings
        self._kernel = kernel
        self._ending = asyncio.Event()
        self._objects = Objects()
        self._informers = Informers(client, (pods_of(settings.node), AGENTS, SHADOW_AGENTS), self._objects, time.monotonic)
        self._shadows = ShadowObjects(client, self._objects.look, node=settings.node, clock=time.monotonic, wall=time.time)
        self._cgroups = PodCgroups(programs.root())
        self._enforcement = NodeEnforcement(settings.pins, self._shadows, clock=time.monotonic)
        self._governed = False
        self._came_round = time.monotonic()

    @property
    def ready(self) -> bool:
        """Whether it knows who is on its node, and judges by that."""
        return self._governed and not self._ending.is_set()

    @property
    def healthy(self) -> bool:
        """Whether its loop comes round."""
        return time.monotonic() - self._came_round < HANGING_SECONDS

    def end(self) -> None:
        """Let `run` end in an orderly way."""
        self._ending.set()

    async def run(self) -> None:
        """Work until `end`. Raises OSError where the probes' address can't be had, AuditError for a spool that can't be written."""
        host, port = self._settings.health
        spool = Spool(self._settings.spool, new_writer("sensor"), clock=time.time, durability=Durability.WRITE)
        watch = Watch(data.built_in(), None)
        sensor = Sensor(self._kernel, spool, watch, missing=self._missing, folder=self._shadows)
        _log.info("the kernel's programs were loaded by %s: %s", self._kernel.loader, self._kernel.why)
        for unseen in sensor.report().unseen:
            _log.warning("not seen: %s", unseen)
        metrics = (lambda: node_metrics.render(self._moment(sensor)), node_metrics.CONTENT_TYPE)
        async with HealthServer(host, port, healthy=lambda: self.healthy, ready=lambda: self.ready, metrics=metrics):
            self._informers.start()
            try:
                async with process.running(sensor, self._keep(sensor), self._tell()) as tasks:
                    await _first_of(self._ending, tasks)
            finally:
                await asyncio.to_thread(self._informers.stop, 1.0)
                watch.close()
                spool.close()

    def _moment(self, sensor: Sensor) -> Moment:
        return Moment(
            report=sensor.report(),
            ready=self.ready,
            kinds=self._informers.freshness(),
            waiting=self._shadows.waiting,
            unenforced=self._enforcement.failed,
        )

    async def _keep(self, sensor: Sensor) -> None:
        """Judge by who is on the node now, and cut off whom resources say, again and again."""
        judged = None
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._came_round = time.monotonic()
            if not self._informers.synced:
                continue
            told = self._objects.look()
            concerned = node_governance.concerned(told.pods, told.agents, told.shadows.values())
            found = await asyncio.to_thread(self._cgroups.find, concerned)
            governance = node_governance.governance(told.pods, told.agents, found)
            if governance != judged:
                sensor.govern(governance)
                judged = governance
            if not self._governed:
                await sensor.list_open()
                sensor.look_around()
                self._governed = True
            await asyncio.to_thread(self._enforcement.settle, told, found)

    async def _tell(self) -> None:
        """Tell of shadow agents, and of their quarantines."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not self._governed:
                continue
            try:
                await asyncio.to_thread(self._shadows.write)
                await asyncio.to_thread(self._enforcement.tell)
            except ClientError as error:
                _log.warning("shadow agents are not told of: %s (%s); it is tried again", error, error.code)
                await asyncio.sleep(_RETRY_SECONDS)


async def _first_of(ending: asyncio.Event, tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait until it is to end. A loop that fails ends the process, so that it is started anew."""
    waiting = asyncio.create_task(ending.wait())
    done, _ = await asyncio.wait((waiting, *tasks), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    for task in done - {waiting}:
        task.result()


def main(arguments: Sequence[str]) -> int:
    """Run until told to end. Exit code 0 after an orderly end, 1 when the process could not start."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="hopgate sensor: %(levelname)s: %(message)s")
    health, pins = listening.place(given.health), given.pins if given.enforce else None
    settings = Settings(node=given.node, spool=given.spool, health=health, pins=pins)
    try:
        with contextlib.closing(Client.connect(given.kubeconfig)) as client, contextlib.closing(programs.open()) as kernel:
            missing = privileges.drop(privileges.ENFORCING if given.enforce else privileges.LOOKING)
            asyncio.run(_serve(settings, client, kernel, missing))
    except (ClientError, AuditError, KernelError) as error:
        remedy = f"; {error.remedy}" if isinstance(error, KernelError) and error.remedy else ""
        sys.stderr.write(f"hopgate sensor: {error}{remedy} ({error.code})\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"hopgate sensor: {error}\n")
        return 1
    return 0


async def _serve(settings: Settings, client: Client, kernel: Kernel, missing: Sequence[str]) -> None:
    sensor = NodeSensor(settings, client, kernel, missing)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, sensor.end)
    await sensor.run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sensor.node", description=__doc__)
    parser.add_argument("--node", required=True, help="the node's name")
    parser.add_argument("--spool", type=Path, required=True, help="the folder that takes the records")
    parser.add_argument("--health", default="[::]:8080", help="where probes are answered, IP:PORT")
    parser.add_argument("--enforce", action="store_true", help="cut off what has `quarantine: true`")
    parser.add_argument("--pins", type=Path, default=enforcement.pins_folder(), help="where quarantines are pinned: a folder of a bpffs")
    parser.add_argument("--kubeconfig", type=Path, help="where the API server is; without it the pod's own service account tells")
    return parser


if __name__ == "__main__":
    # Nothing that is written is for anybody but root.
    os.umask(0o077)
    sys.exit(main(sys.argv[1:]))
