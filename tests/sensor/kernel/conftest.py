"""The sensor's programs in the kernel, by each loader; and a place of each test's own, by which its events are told from all others'."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hopgate import cache
from hopgate.local import cgroups as local_cgroups
from sensor import bcc_loader, cgroups, objects, programs
from sensor.events import Event, Kind, Operation, Payload
from sensor.kernel import Kernel, KernelError, Loader
from tests.cluster.api_server import eventually
from tests.network_namespaces import Namespace

ACTIONS = Path(__file__).parent / "actions.py"
HEADERS = cache.folder() / "kernel-headers"

_numbers = itertools.count(1)


def require(loader: Loader) -> None:
    """Skip unless this machine can load programs this way."""
    if os.geteuid() != 0:
        pytest.skip("loading BPF programs needs root")
    if loader is Loader.CO_RE:
        try:
            objects.build()
        except KernelError as error:
            pytest.skip(str(error))
    elif not bcc_loader.is_here():
        pytest.skip("bcc is not installed")
    elif not Path(f"/lib/modules/{os.uname().release}/build").exists():
        if not HEADERS.is_dir():
            pytest.skip("no kernel headers; `make bpf` brings them")
        os.environ["BCC_KERNEL_SOURCE"] = str(HEADERS)


@pytest.fixture(scope="session", params=list(Loader), ids=str)
def loader(request: pytest.FixtureRequest) -> Loader:
    chosen: Loader = request.param
    require(chosen)
    return chosen


class Seen:
    """What the kernel told so far, kept until a test asks."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._events: list[Event] = []
        self._payloads: list[Payload] = []

    def events(self, *operations: Operation, **fields: object) -> list[Event]:
        """Those that have all these values."""
        self._events += self.kernel.events()
        return [each for each in self._events if each.operation in operations and _has(each, fields)]

    def payloads(self, *kinds: Kind, **fields: object) -> list[Payload]:
        self._payloads += self.kernel.payloads()
        return [each for each in self._payloads if each.kind in kinds and _has(each, fields)]

    def one(self, operation: Operation, **fields: object) -> Event:
        """The one such event, waited for."""
        found = eventually(lambda: self.events(operation, **fields), f"{operation.name} with {fields}", 5)
        assert len(found) == 1, found
        return found[0]

    def file_of(self, process: int) -> str:
        found = eventually(lambda: self.payloads(Kind.EXECUTED, process=process), f"the file of {process}", 5)
        return found[-1].data.decode()


def _has(value: object, fields: dict[str, object]) -> bool:
    return all(getattr(value, name) == wanted for name, wanted in fields.items())


@pytest.fixture(scope="session")
def kernel(loader: Loader) -> Iterator[Kernel]:
    with contextlib.closing(programs.open(loader=loader)) as opened:
        yield opened


@pytest.fixture
def seen(kernel: Kernel) -> Seen:
    kernel.events()
    kernel.payloads()
    return Seen(kernel)


class Place:
    """A cgroup and a network namespace of one test."""

    def __init__(self) -> None:
        self._root = _mount() / f"hopgate-sensor-{os.getpid()}-{next(_numbers)}"
        self.cgroup, self.other_cgroup = self._root / "one", self._root / "other"
        self.namespace = Namespace()

    def make(self) -> None:
        self._root.mkdir()
        self.cgroup.mkdir()
        self.other_cgroup.mkdir()
        self.namespace.raise_loopback()

    @property
    def cgroup_id(self) -> int:
        return self.cgroup.stat().st_ino

    def act(self, action: str, argument: str = "", **environment: str) -> dict[str, Any]:
        """Do one action of actions.py inside; what it says."""
        script = 'echo 0 >"$1/cgroup.procs"; shift; exec "$@"'
        inside = ("sh", "-c", script, "sh", str(self.cgroup), "nsenter", f"--net=/proc/self/fd/{self.namespace.descriptor}", "--")
        command = (*inside, sys.executable, "-I", "-S", str(ACTIONS), action, argument)
        surroundings = {**os.environ, "OTHER_CGROUP": str(self.other_cgroup), **environment}
        descriptors = (self.namespace.descriptor,)
        done = subprocess.run(command, capture_output=True, text=True, env=surroundings, pass_fds=descriptors, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def remove(self) -> None:
        self.namespace.close()
        for folder in (self.cgroup, self.other_cgroup, self._root):
            eventually(lambda folder=folder: local_cgroups.remove(folder), f"{folder} is empty")  # type: ignore[misc]


def _mount() -> Path:
    found = cgroups.find()
    if found is None:
        pytest.skip("no cgroup2")
    return found.mount


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    try:
        made.make()
        yield made
    finally:
        made.remove()
