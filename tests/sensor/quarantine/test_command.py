"""`hopgate quarantine` and `hopgate release` on the real kernel."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sensor import shadow_agents
from sensor.shadow_folder import ShadowFolder
from tests.sensor.quarantine.conftest import World
from tests.sensor.test_shadow_agents import PROGRAM, SEEN

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


def test_a_cgroup_of_a_long_path_is_released_by_its_path(world: World) -> None:
    """Containers' paths are longer than what the kernel keeps of one."""
    long = world.cgroup / "beneath" / ("x" * 120)
    long.mkdir(parents=True)
    try:
        path = "/" + "/".join(long.parts[-4:])
        assert hopgate(world, "quarantine", path).returncode == 0
        released = hopgate(world, "release", path)
        assert released.returncode == 0, released.stderr
        assert hopgate(world, "quarantine", "--list", "--json").stdout == ""
    finally:
        long.rmdir()


def test_a_process_stands_for_its_cgroup(world: World) -> None:
    held = world.start("hold", f"tcp:ip4:{world.server.port}")
    assert World.line(held) == "stands\n"
    done = hopgate(world, "quarantine", str(held.pid), "--json")
    assert json.loads(done.stdout)["connectionsEnded"] == 1, done.stderr
    assert json.loads(World.line(held))["reached"]["said"] == {"refused": errno.ECONNABORTED}


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


def shadow(world: World, tmp_path: Path, *, cgroup: str) -> tuple[str, ShadowFolder]:
    """A shadow agent as the sensor writes it down, in the data folder `tmp_path/data`."""
    data = tmp_path / "data"
    data.mkdir()
    folder = ShadowFolder(data)
    seen = replace(SEEN, program=replace(PROGRAM, cgroup=cgroup))
    assert folder.tell(seen)
    return shadow_agents.name(seen.program), folder


@pytest.mark.parametrize("by_id", [False, True])
def test_a_shadow_agent_is_cut_off_by_its_name_and_released(world: World, tmp_path: Path, by_id: bool) -> None:
    name, folder = shadow(world, tmp_path, cgroup="/" + "/".join(world.cgroup.parts[-2:]))
    data = ("--data", str(folder.path.parent))
    done = hopgate(world, "quarantine", name.rpartition("-")[2] if by_id else name, *data)
    assert (done.returncode, done.stdout) == (0, f"{name} is cut off; 0 open connections ended\n"), done.stderr
    assert world.attempt("tcp", f"ip4:{world.server.port}") == {"refused": errno.EPERM}
    assert world.attempt("tcp", f"ip4:{world.server.port}", cgroup=world.sibling) == {"reached": "hello"}
    folder.decide(name, quarantine=True)
    assert hopgate(world, "release", name, *data).returncode == 0
    assert not folder.read().shadows[name].quarantine
    assert world.attempt("tcp", f"ip4:{world.server.port}") == {"reached": "hello"}


@pytest.mark.parametrize(
    ("cgroup", "code", "said"),
    [("/", "QuarantineRefused", "root cgroup"), ("/gone", "SubjectUnknown", "is gone"), ("/../../etc", "SubjectUnknown", "is gone")],
)
def test_a_shadow_agent_that_has_no_cgroup_of_its_own_is_refused(world: World, tmp_path: Path, cgroup: str, code: str, said: str) -> None:
    name, folder = shadow(world, tmp_path, cgroup=cgroup)
    done = hopgate(world, "quarantine", name, "--data", str(folder.path.parent))
    assert (done.returncode, code in done.stderr, said in done.stderr) == (1, True, True), done.stderr


def test_a_shadow_agent_whose_file_is_bad_is_refused(world: World, tmp_path: Path) -> None:
    name, folder = shadow(world, tmp_path, cgroup="/" + "/".join(world.cgroup.parts[-2:]))
    (folder.path / f"{name}.yaml").write_text("spec: {quarantine: perhaps}\n")
    done = hopgate(world, "quarantine", name, "--data", str(folder.path.parent))
    assert (done.returncode, "can't be read" in done.stderr) == (1, True), done.stderr
