"""The controller's process on a real API server, for tests: with the chart's rights, and no others."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import helm as helms
from tests.cluster.api_server import ApiServer, User, eventually, free_ports
from tests.cluster.conftest import DEFINITIONS

SYSTEM = "hopgate"
NAME = "hopgate"
ACCOUNT = f"system:serviceaccount:{SYSTEM}:{NAME}-controller"


def install(server: ApiServer) -> User:
    """hopgate's kinds and namespace, what owns the authorities, and the controller's account with its rights."""
    server.install(DEFINITIONS)
    server.kubectl("create", "namespace", SYSTEM)
    manifests = helms.of_this_machine().manifests(release=NAME, namespace=SYSTEM)
    server.kubectl("apply", "-f", "-", stdin=helms.as_list(helms.rights(manifests)))
    return server.user(ACCOUNT)


class Controller:
    """One process."""

    def __init__(self, server: ApiServer, user: User, folder: Path, pod: str, before: tuple[str, ...] = ()) -> None:
        self.server = server
        self.pod = pod
        self._port = free_ports(1)[0]
        self._log = folder / f"{pod}.log"
        options = {
            "--kubeconfig": user.kubeconfig,
            "--namespace": SYSTEM,
            "--pod": pod,
            "--name": NAME,
            "--health": f"127.0.0.1:{self._port}",
        }
        given = [str(part) for option in options.items() for part in option]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                (*before, sys.executable, "-m", "hopgate.cluster", "controller", *given), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def probe(self, path: str = "/readyz") -> int:
        """What it answers; 0: it doesn't."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def await_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.log
            return self.probe() == 200

        eventually(ready, "the controller is ready")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def running(server: ApiServer, user: User, folder: Path, pod: str = "controller-1", before: tuple[str, ...] = ()) -> Iterator[Controller]:
    controller = Controller(server, user, folder, pod, before)
    try:
        controller.await_ready()
        yield controller
    finally:
        controller.kill()


def leader(server: ApiServer) -> str:
    """The pod that holds the Lease; empty for none."""
    found = server.kubectl(
        "get", "lease", f"{NAME}-controller", "-n", SYSTEM, "-o", "jsonpath={.spec.holderIdentity}", "--ignore-not-found"
    )
    return found.partition("_")[0]


def status(server: ApiServer, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
    inside = () if namespace is None else ("-n", namespace)
    found = json.loads(server.kubectl("get", f"{kind.lower()}.hopgate.dev", name, *inside, "-o", "json"))
    return dict(found.get("status") or {})


def condition(found: dict[str, Any]) -> dict[str, Any]:
    """The only condition of a status; empty for none."""
    conditions = found.get("conditions") or [{}]
    assert len(conditions) == 1
    return dict(conditions[0])
