"""A place of each test's own: a network namespace with servers, cgroups, and a bpffs that nothing else is pinned in."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from hopgate import kernel
from hopgate.local import cgroups as local_cgroups
from sensor import cgroups, enforcement, objects
from sensor.enforcement import Enforcement
from sensor.events import TCP, UDP, Endpoint
from sensor.kernel import KernelError
from sensor.quarantine import Destination, Wanted
from tests.cluster.api_server import eventually
from tests.network_namespaces import Namespace

ATTEMPTS = Path(__file__).parent / "attempts.py"
ADDRESSES = {"ip4": "127.0.0.1", "ip6": "::1", "mapped": "127.0.0.1"}
# Generous: it only ends a test that would never.
SECONDS = 30
_numbers = itertools.count(1)


class Server:
    """Says `hello` to whoever comes, and `again` to what he says then; TCP and UDP at one port, for both families."""

    def __init__(self, namespace: Namespace) -> None:
        tcp = namespace.socket(socket.AF_INET6)
        tcp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        tcp.setsockopt(socket.IPPROTO_TCP, 23, 5)  # TCP_FASTOPEN
        tcp.bind(("::", 0))
        self.port: int = tcp.getsockname()[1]
        tcp.listen(64)
        udp = namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        udp.bind(("::", self.port))
        self._open = [tcp, udp]
        for each in self._open:
            each.setblocking(True)
        threading.Thread(target=self._accept, args=(tcp,), daemon=True).start()
        threading.Thread(target=self._answer, args=(udp,), daemon=True).start()

    def _accept(self, tcp: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = tcp.accept()
                self._open.append(accepted)
                threading.Thread(target=self._talk, args=(accepted,), daemon=True).start()

    @staticmethod
    def _talk(accepted: socket.socket) -> None:
        with contextlib.suppress(OSError):
            accepted.sendall(b"hello")
            while accepted.recv(64):
                accepted.sendall(b"again")

    @staticmethod
    def _answer(udp: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                _, asker = udp.recvfrom(64)
                if not asker:  # it is shut down
                    return
                udp.sendto(b"hello", asker)

    def close(self) -> None:
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


class World:
    """One test's. `cgroup` is what is cut off, `sibling` what is not."""

    def __init__(self, folder: Path) -> None:
        self.bpffs = folder / "bpf"
        self.pins = self.bpffs / "hopgate"
        hierarchy = cgroups.find()
        if hierarchy is None:
            pytest.skip("no cgroup2")
        self._root = hierarchy.mount / f"hopgate-quarantine-{os.getpid()}-{next(_numbers)}"
        self.cgroup, self.sibling = self._root / "one", self._root / "sibling"
        self.namespace = Namespace()
        self._started: list[subprocess.Popen[str]] = []

    def make(self) -> None:
        self.bpffs.mkdir()
        kernel.mount("bpf", self.bpffs)
        for each in (self._root, self.cgroup, self.sibling):
            each.mkdir()
        self.namespace.raise_loopback()
        self.server, self.gate = Server(self.namespace), Server(self.namespace)

    def wanted(self, *kinds: str, cgroup: Path | None = None, subject: str = "demo/planner") -> Wanted:
        """The cgroup cut off, but for the gate at the addresses of these kinds."""
        allowed = {
            Destination(Endpoint(ip_address(ADDRESSES[kind]), self.gate.port), protocol) for kind in kinds for protocol in (TCP, UDP)
        }
        return Wanted(cgroup_id=(cgroup or self.cgroup).stat().st_ino, subject=subject, allowed=frozenset(allowed))

    def start(self, attempt: str, argument: str = "", *, cgroup: Path | None = None) -> subprocess.Popen[str]:
        """Begin one attempt of attempts.py."""
        script = 'echo 0 >"$1/cgroup.procs"; shift; exec "$@"'
        inside = ("sh", "-c", script, "sh", str(cgroup or self.cgroup))
        entered = ("nsenter", f"--net=/proc/self/fd/{self.namespace.descriptor}", "--")
        command = (*inside, *entered, sys.executable, "-I", "-S", str(ATTEMPTS), attempt, argument)
        surroundings = {**os.environ, "CGROUP": str(self.cgroup), "OTHER_CGROUP": str(self.sibling)}
        return self.launch(command, env=surroundings, pass_fds=(self.namespace.descriptor,))

    def launch(self, command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a program that ends with the test."""
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # A session of its own: what it forks holds its pipes open, and ends with it.
        self._started.append(subprocess.Popen(command, text=True, start_new_session=True, **pipes, **options))
        return self._started[-1]

    @staticmethod
    def line(process: subprocess.Popen[str]) -> str:
        """The next line that a program writes, within a deadline. Its output is read by nothing else while it is waited for."""
        assert process.stdout is not None
        reader = threading.Thread(target=lambda: lines.append(process.stdout.readline()), daemon=True)  # type: ignore[union-attr]
        lines: list[str] = []
        reader.start()
        reader.join(SECONDS)
        assert lines, f"nothing was written in {SECONDS} s"
        return lines[0]

    def attempt(self, attempt: str, argument: str = "", *, cgroup: Path | None = None) -> dict[str, Any]:
        """Do one attempt; what came of it."""
        started = self.start(attempt, argument, cgroup=cgroup)
        out, err = started.communicate(timeout=SECONDS)
        if started.returncode < 0:
            return {"killed": -started.returncode}
        assert started.returncode == 0, err
        said: dict[str, Any] = json.loads(out)
        return said

    def remove(self) -> None:
        for each in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            with contextlib.suppress(ValueError):  # its pipes are closed
                each.communicate(timeout=SECONDS)
        with contextlib.suppress(KernelError, OSError):
            enforcement.uninstall(self.pins)
        if self.bpffs.is_mount():
            kernel.unmount(self.bpffs)
        if hasattr(self, "server"):
            self.server.close()
            self.gate.close()
        self.namespace.close()
        for folder in (self.cgroup / "beneath", self.cgroup, self.sibling, self._root):
            eventually(lambda folder=folder: local_cgroups.remove(folder), f"{folder} is empty")  # type: ignore[misc]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("loading BPF programs needs root")
    try:
        objects.build(objects.QUARANTINE)
    except KernelError as error:
        pytest.skip(str(error))
    made = World(tmp_path)
    try:
        made.make()
        yield made
    finally:
        made.remove()


@pytest.fixture
def enforced(world: World) -> Iterator[Enforcement]:
    with Enforcement(world.pins) as made:
        yield made
