"""authz and Envoy killed, stopped and slow while requests go on, and a gate that is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.conftest import World, build
from tests.end_to_end.gates import HOPGATE, Gate, wait

pytestmark = [pytest.mark.root, pytest.mark.envoy]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        yield build(tmp_path_factory.mktemp("failures"), stack)


class Asker:
    """A governed program that sends one request for each line it is given, and tells each answer's status."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self) -> int:
        """The status of one request; 0 when the connection gave none."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("ask\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def asking(gate: Gate) -> Iterator[Asker]:
    with gate.running("demo/planner", "asker.py") as process:
        yield Asker(process)


def authz(gate: Gate) -> int:
    return int(gate.status()["authz_pid"] or 0)


def passed_in_records(gate: Gate) -> int:
    return sum(record["verdict"] == "Allow" for record in gate.records())


def test_while_authz_is_killed_every_request_is_denied_and_the_next_after_it_is_back_passes(world: World) -> None:
    with asking(world.gate) as asker:
        assert asker.ask() == 200
        for _ in range(3):
            before = world.gate.status()
            os.kill(before["authz_pid"], signal.SIGKILL)
            between = []
            while (status := asker.ask()) != 200:
                between.append(status)
            assert set(between) <= {0, 503}  # 0: the connection ended without an answer
            assert authz(world.gate) != before["authz_pid"]
        assert world.gate.status()["authz_restarts"] >= 3


def test_while_authz_is_stopped_every_request_is_denied_and_the_next_passes(world: World) -> None:
    pid = authz(world.gate)
    with asking(world.gate) as asker:
        assert asker.ask() == 200
        os.kill(pid, signal.SIGSTOP)
        try:
            reached = len(world.raw.received)
            assert [asker.ask(), asker.ask()] == [503, 503]
            assert len(world.raw.received) == reached
        finally:
            os.kill(pid, signal.SIGCONT)
        assert asker.ask() == 200
    assert authz(world.gate) == pid
    late = [record for record in world.gate.records() if record["reason"] == "DeadlineExceeded"]
    assert all(record["verdict"] == "Deny" for record in late)


def test_no_answered_request_lacks_its_record_though_authz_is_killed_under_load(world: World) -> None:
    reached, recorded = len(world.raw.received), passed_in_records(world.gate)
    statuses = []
    with asking(world.gate) as asker:
        for round_ in range(60):
            if round_ % 20 == 10:
                os.kill(authz(world.gate), signal.SIGKILL)
            statuses.append(asker.ask())
        wait(lambda: asker.ask() == 200, "the gate recovered")
    answered = len(world.raw.received) - reached
    assert set(statuses) <= {200, 503}
    assert answered >= statuses.count(200)
    assert passed_in_records(world.gate) - recorded >= answered
    assert world.gate.status()["counters"]["allowed_on_failure"] == 0


def test_an_envoy_that_is_killed_is_replaced_and_nothing_passes_meanwhile(world: World) -> None:
    with asking(world.gate) as asker:
        assert asker.ask() == 200
        running = _envoys(world.gate)
        assert running
        for pid in running:
            os.kill(pid, signal.SIGKILL)
        wait(lambda: asker.ask() == 200, "another Envoy took its place")


def test_an_agent_whose_gate_is_killed_has_no_way_out(own_gate: World) -> None:
    gate = own_gate.gate
    with asking(gate) as asker:
        assert asker.ask() == 200
        assert gate.process is not None
        gate.process.kill()
        gate.process.wait()
        wait(lambda: not _envoys(gate), "the Envoys ended with their gate")
        assert asker.ask() == 0


@pytest.fixture
def own_gate(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield build(tmp_path, stack)


def test_records_of_a_killed_writer_are_whole(world: World) -> None:
    with asking(world.gate) as asker:
        assert asker.ask() == 200
        os.kill(authz(world.gate), signal.SIGKILL)
        wait(lambda: asker.ask() == 200, "authz is back")
    newest = max((world.gate.data / "spool" / "decisions").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    with newest.open("ab") as file:
        file.write(b'{"writer":"half')
    found = subprocess.run(
        (HOPGATE, "audit", "verify", "--json", "--data", str(world.gate.data)), capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout
    assert len(json.loads(found.stdout)["unfinished"]) == 1


def _envoys(gate: Gate) -> list[int]:
    """The Envoys of a gate, by the bootstrap that their command lines name."""
    folders = [str(folder) for folder in gate.run_folders()]
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                command = (path / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "envoy.json" in command and any(folder in command for folder in folders):
                found.append(int(path.name))
    return found
