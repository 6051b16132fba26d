"""`hopgate quarantine` and `hopgate release` on the real kernel."""

from __future__ import annotations

import errno
import json
import subprocess
import sys

import pytest

from tests.sensor.quarantine.conftest import World

pytestmark = [pytest.mark.root, pytest.mark.bpf]


def hopgate(world: World, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = (sys.executable, "-c", "from hopgate.cli.main import main; main()", command, *arguments, "--pins", str(world.pins))
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


def test_a_cgroup_is_cut_off_listed_and_released(world: World) -> None:
    path = "/" + "/".join(world.cgroup.parts[-2:])
    done = hopgate(world, "quarantine", path)
    assert (done.returncode, done.stdout) == (0, f"{path} is cut off; 0 open connections ended\n"), done.stderr
    assert world.attempt("tcp", f"ip4:{world.server.port}") == {"refused": errno.EPERM}
    listed = json.loads(hopgate(world, "quarantine", "--list", "--json").stdout)
    assert (listed["subject"], listed["refusedConnections"], listed["by"]) == (path, 1, "command")
    assert path in hopgate(world, "quarantine", "--list").stdout
    assert hopgate(world, "release", path).stdout == f"{path} is released\n"
    assert world.attempt("tcp", f"ip4:{world.server.port}") == {"reached": "hello"}
    again = hopgate(world, "release", path)
    assert (again.returncode, "SubjectUnknown" in again.stderr) == (1, True)
    assert hopgate(world, "quarantine", "--uninstall").returncode == 0
    assert not world.pins.exists()


def test_a_process_stands_for_its_cgroup(world: World) -> None:
    held = world.start("hold", f"tcp:ip4:{world.server.port}")
    assert held.stdout is not None
    assert held.stdout.readline() == "stands\n"
    done = hopgate(world, "quarantine", str(held.pid), "--json")
    assert json.loads(done.stdout)["connectionsEnded"] == 1, done.stderr
    assert json.loads(held.stdout.readline())["reached"]["said"] == {"refused": errno.ECONNABORTED}


@pytest.mark.parametrize(
    ("subject", "code", "said"),
    [
        ("/", 1, "QuarantineRefused"),
        ("/no/such", 1, "SubjectUnknown"),
        ("demo/nobody", 1, "SubjectUnknown"),
        ("what is this", 1, "SubjectUnknown"),
    ],
)
def test_who_can_not_be_cut_off_is_told(world: World, subject: str, code: int, said: str) -> None:
    done = hopgate(world, "quarantine", subject)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert "to mend it: " in done.stderr
