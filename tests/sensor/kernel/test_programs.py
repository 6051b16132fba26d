"""Processes as the kernel tells them: what they execute, whom they make, when they end."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sensor.events import Operation
from sensor.kernel import Loader
from tests.sensor.kernel.conftest import Place, Seen

pytestmark = [pytest.mark.root, pytest.mark.bpf]


def test_a_child_that_executes_and_ends(seen: Seen, place: Place, loader: Loader) -> None:
    said = place.act("run", "/bin/true")
    exact = loader is Loader.CO_RE
    made = seen.one(Operation.FORKED, other_process=said["child"])
    assert (made.process, made.cgroup_id) == (said["process"], place.cgroup_id)
    executed = seen.one(Operation.EXECUTED, process=said["child"])
    assert (executed.cgroup_id, executed.command, executed.other_process) == (place.cgroup_id, "true", said["process"] if exact else 0)
    assert (executed.started_ns > made.started_ns > 0) if exact else (executed.started_ns == made.started_ns == 0)
    assert executed.netns_cookie == (said["netns"] if exact else 0)
    ended = seen.one(Operation.EXITED, process=said["child"])
    assert (ended.started_ns, ended.cgroup_id, ended.command) == (executed.started_ns, place.cgroup_id, "true")
    assert seen.file_of(said["child"]) == "/bin/true"


def test_a_child_that_connects_and_dies_at_once(seen: Seen, place: Place) -> None:
    said = place.act("child_dies")
    asked = seen.one(Operation.CONNECT, process=said["child"])
    assert (asked.cgroup_id, asked.remote and asked.remote.port) == (place.cgroup_id, said["port"])
    seen.one(Operation.EXITED, process=said["child"])


def test_a_thread_is_no_child_and_its_end_no_process_end(seen: Seen) -> None:
    code = "import threading, os; t = threading.Thread(target=lambda: None); t.start(); t.join(); print(os.getpid())"
    process = int(subprocess.run((sys.executable, "-I", "-S", "-c", code), capture_output=True, check=True).stdout)
    seen.one(Operation.EXITED, process=process)
    assert seen.events(Operation.FORKED, process=process) == []


def test_a_long_name_of_a_file(seen: Seen, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("long")
    for _ in range(3):
        folder /= "d" * 200
    folder.mkdir(parents=True)
    program = folder / "program"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o700)
    child = subprocess.Popen([program])
    assert child.wait() == 0
    assert seen.file_of(child.pid) == str(program)
