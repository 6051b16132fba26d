"""`hopgate status` where no gate runs, and where something else answers in its place."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from hopgate.cli.main import commands
from hopgate.local import control, folders
from hopgate.local.control import AgentStatus, SensorStatus, Status

RUNNING = Status(
    pid=7,
    resources="/r",
    data="/d",
    snapshot_digest="abcdef0123456789",
    snapshot_loaded_at=1_800_000_000,
    mistakes=(),
    agents=(AgentStatus(agent="demo/planner", pid=8, since=1_800_000_000, inbound="127.0.0.1:1", envoy_restarts=0, refused_packets=3),),
    authz_pid=9,
    authz_restarts=1,
    counters={"checks": 2},
    sensor=SensorStatus(
        pid=10, restarts=2, loader="CO-RE", why="this kernel has BTF", unseen=("io_uring: refused",), counters={"flows": 3}
    ),
)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folders, "RUN_ROOT", tmp_path / "run")
    (tmp_path / "data").mkdir(mode=0o700)
    return tmp_path / "data"


def status(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(commands, ["status", "--data", str(data), *arguments])


def answered(data: Path, answer: bytes, *arguments: str) -> Result:
    """The status of a gate that gives this answer."""
    folder = folders.open_run(data, "up")
    listener = control.listen(folder.control)
    listener.settimeout(10)

    def serve() -> None:
        accepted, _ = listener.accept()
        with accepted:
            accepted.recv(control.MAX_PACKET_BYTES)
            accepted.send(answer)

    gate = threading.Thread(target=serve)
    gate.start()
    try:
        return status(data, *arguments)
    finally:
        gate.join()
        listener.close()
        folder.remove()


def test_without_a_gate_it_ends_with_1_and_says_what_to_do(data: Path) -> None:
    ran = status(data)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "hopgate up" in ran.stderr


def test_a_gate_that_was_killed_is_none(data: Path) -> None:
    folder = folders.open_run(data, "up")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(str(folder.control))
    held = folder.path
    os.close(folder.descriptor)
    assert held.exists()
    assert status(data).exit_code == 1


def test_a_gate_is_described(data: Path) -> None:
    ran = answered(data, msgspec.json.encode(RUNNING))
    assert (ran.exit_code, ran.stderr) == (0, "")
    for told in ("gate 7", "abcdef012345", "process 9, restarted 1 times", "demo/planner, process 8", "127.0.0.1:1", "3 packets refused"):
        assert told in ran.stdout


def test_what_the_sensor_sees_and_does_not_is_described(data: Path) -> None:
    ran = answered(data, msgspec.json.encode(RUNNING))
    for told in (
        "process 10, restarted 2 times, programs loaded by CO-RE: this kernel has BTF",
        "not seen   io_uring: refused",
        "sensor.flows 3",
    ):
        assert told in ran.stdout
    without = msgspec.structs.replace(RUNNING.sensor, pid=None, unseen=("connections of agents are not seen: switched off",), counters={})
    ran = answered(data, msgspec.json.encode(msgspec.structs.replace(RUNNING, sensor=without)))
    assert ran.exit_code == 0
    assert "not seen   connections of agents are not seen: switched off" in ran.stdout
    assert "sensor  " not in ran.stdout


def test_a_gate_is_told_to_programs_as_it_is(data: Path) -> None:
    ran = answered(data, msgspec.json.encode(RUNNING), "--json")
    assert json.loads(ran.stdout)["counters"] == {"checks": 2}


def test_a_folder_with_mistakes_ends_with_1(data: Path) -> None:
    ran = answered(data, msgspec.json.encode(msgspec.structs.replace(RUNNING, mistakes=("a.yaml:1: wrong",))))
    assert ran.exit_code == 1
    assert "a.yaml:1: wrong" in ran.stdout


def test_an_answer_that_is_none_is_an_error(data: Path) -> None:
    ran = answered(data, b"hello")
    assert ran.exit_code == 1
    assert isinstance(ran.exception, control.ControlError)
