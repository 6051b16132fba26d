"""A quarantined agent of a real gate: it reaches that gate and nothing else, by command and by its manifest."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hopgate import kernel
from hopgate.local import cgroups as local_cgroups
from hopgate.local.namespace import DNS_PORT, PROXY_PORT
from sensor import cgroups, enforcement, objects, shadow_agents
from sensor.enforcement import PINS_VARIABLE
from sensor.shadow_folder import ShadowFolder
from tests.end_to_end.conftest import World, build
from tests.end_to_end.gates import HOPGATE, PROGRAMS, Gate, environment, wait
from tests.sensor.test_shadow_agents import PROGRAM, SEEN

pytestmark = [pytest.mark.root, pytest.mark.bpf, pytest.mark.envoy]

THROUGH = ("raw.demo.svc", 80)
REFUSED = errno.EPERM


class Agent:
    """A governed program that does what it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def do(self, *words: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the agent has ended"
        said: dict[str, Any] = json.loads(line)
        return said

    def free(self) -> bool:
        return self.do("get", *THROUGH).get("status") == 200

    def cut(self) -> bool:
        return self.do("get", *THROUGH).get("error") is not None


@pytest.fixture
def pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A bpffs of the test's own, for all of hopgate's processes."""
    objects.build()
    objects.build(objects.QUARANTINE)
    bpffs = tmp_path / "bpf"
    bpffs.mkdir()
    kernel.mount("bpf", bpffs)
    monkeypatch.setenv(PINS_VARIABLE, str(bpffs / "hopgate"))
    try:
        yield bpffs / "hopgate"
    finally:
        enforcement.uninstall(bpffs / "hopgate")
        kernel.unmount(bpffs)


@pytest.fixture
def cut_world(tmp_path: Path, pins: Path) -> Iterator[World]:
    assert not pins.exists()
    with ExitStack() as stack:
        yield build(tmp_path, stack)


@pytest.fixture
def agents(cut_world: World) -> Iterator[dict[str, Agent]]:
    with ExitStack() as stack:
        names = ("demo/planner", "demo/researcher")
        yield {name: Agent(stack.enter_context(cut_world.gate.running(name, "reach.py"))) for name in names}


def hopgate(gate: Gate, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = (HOPGATE, *arguments, "--data", str(gate.data))
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=environment(), stdin=subprocess.DEVNULL)


def sensor(gate: Gate) -> dict[str, Any]:
    found: dict[str, Any] = wait(lambda: (status := gate.status()["sensor"])["pid"] and not status["unseen"] and status, "the sensor is up")
    return found


def say(gate: Gate, *, quarantine: bool) -> None:
    """Change the manifest of `demo/planner`, as a person does: the file alone."""
    path = next(path for path in gate.resources.iterdir() if "name: planner" in path.read_text())
    text = re.sub(r"(name: planner, namespace: demo}\nspec:) .*", rf"\1 {{quarantine: {str(quarantine).lower()}}}", path.read_text())
    new = path.with_name(".new")
    new.write_text(text)
    new.replace(path)


def test_by_command_an_agent_reaches_its_gate_and_nothing_else(cut_world: World, agents: dict[str, Agent]) -> None:
    gate, planner, neighbour = cut_world.gate, agents["demo/planner"], agents["demo/researcher"]
    assert planner.free()
    assert planner.do("hold", *THROUGH) == {"held": True}
    assert planner.do("held") == {"held": True}
    before = neighbour.do("get", *THROUGH)["status"]
    done = hopgate(gate, "quarantine", "demo/planner", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["quarantined"], told["connectionsEnded"]) == ("demo/planner", 1)
    began = time.monotonic()
    assert planner.do("held")["error"] == errno.ECONNABORTED
    assert time.monotonic() - began < 1
    assert planner.do("get", "192.0.2.77", 80)["error"] == REFUSED
    assert planner.do("get", "2001:db8:7::7", 80)["error"] == REFUSED
    assert planner.cut()
    for host in ("127.0.0.1", "::1"):
        assert planner.do("touch", host, PROXY_PORT) == {"opened": True}
        assert planner.do("ask", host, DNS_PORT) == {"answers": 1}
        assert planner.do("touch", host, PROXY_PORT + 1)["error"] == REFUSED
        assert planner.do("ask", host, DNS_PORT + 1)["error"] == REFUSED
    assert neighbour.do("get", *THROUGH)["status"] == before
    listed = json.loads(hopgate(gate, "quarantine", "--list", "--json").stdout)
    assert (listed["by"], set(listed["allowed"])) == ("command", {"127.0.0.1:15001", "[::1]:15001", "127.0.0.1:15053", "[::1]:15053"})
    assert listed["refusedConnections"] >= 3
    assert hopgate(gate, "release", "demo/planner").returncode == 0
    assert planner.free()


def test_a_manifest_cuts_an_agent_off_and_lets_it_go(cut_world: World, agents: dict[str, Agent], pins: Path) -> None:
    gate, planner, neighbour = cut_world.gate, agents["demo/planner"], agents["demo/researcher"]
    sensor(gate)
    assert planner.free()
    assert planner.do("hold", *THROUGH) == {"held": True}
    before = neighbour.do("get", *THROUGH)["status"]
    assert not pins.exists()  # nothing is loaded for those who quarantine nobody
    said = time.monotonic()
    say(gate, quarantine=True)
    wait(lambda: not planner.do("held").get("held"), "the open connection is cut")
    assert time.monotonic() - said < 1
    assert planner.do("get", "192.0.2.77", 80)["error"] == REFUSED
    assert planner.do("touch", "127.0.0.1", PROXY_PORT) == {"opened": True}
    assert planner.do("ask", "127.0.0.1", DNS_PORT) == {"answers": 1}
    assert neighbour.do("get", *THROUGH)["status"] == before
    assert gate.status()["sensor"]["unenforced"] == []

    killed = sensor(gate)["pid"]
    os.kill(killed, signal.SIGKILL)
    assert planner.do("get", "192.0.2.77", 80)["error"] == REFUSED
    wait(lambda: sensor(gate)["pid"] != killed, "the sensor is back")
    assert planner.do("get", "192.0.2.77", 80)["error"] == REFUSED
    (standing,) = enforcement.read(pins)
    assert standing.subject == "demo/planner"

    said = time.monotonic()
    say(gate, quarantine=False)
    wait(lambda: enforcement.read(pins) == [], "the quarantine ends")
    assert time.monotonic() - said < 1
    wait(planner.free, "it is free again")


def test_a_person_is_told_when_the_manifest_would_cut_it_off_again(cut_world: World, agents: dict[str, Agent], pins: Path) -> None:
    gate, planner = cut_world.gate, agents["demo/planner"]
    sensor(gate)
    say(gate, quarantine=True)
    wait(lambda: pins.exists() and enforcement.read(pins), "it is cut off")
    done = hopgate(gate, "release", "demo/planner")
    assert "set `spec.quarantine` to false" in done.stderr
    wait(lambda: enforcement.read(pins), "its gate cuts it off again")
    assert planner.cut()


def test_what_can_not_be_enforced_is_told_by_name(cut_world: World, agents: dict[str, Agent], pins: Path) -> None:
    gate, planner, neighbour = cut_world.gate, agents["demo/planner"], agents["demo/researcher"]
    sensor(gate)
    before = neighbour.do("get", *THROUGH)["status"]
    pins.mkdir()
    with ExitStack() as stack:
        held = os.open(pins, os.O_RDONLY)
        stack.callback(os.close, held)
        fcntl.flock(held, fcntl.LOCK_EX)  # somebody holds the pins and does not let go
        say(gate, quarantine=True)
        told = wait(lambda: gate.status()["sensor"]["unenforced"], "the failure is told")
        assert told[0].startswith("`demo/planner` is not cut off: expected to get hold of")
        assert "not cut    `demo/planner`" in hopgate(gate, "status").stdout
        # The gate refuses it all the same.
        assert "Quarantined" in planner.do("get", *THROUGH)["text"]
        assert neighbour.do("get", *THROUGH)["status"] == before
    wait(lambda: gate.status()["sensor"]["unenforced"] == [], "it is in force")
    assert planner.do("get", "192.0.2.77", 80)["error"] == REFUSED


def test_without_a_sensor_the_gate_refuses_and_says_that_the_kernel_does_not(tmp_path: Path, pins: Path) -> None:
    with ExitStack() as stack:
        assert not pins.exists()
        without = build(tmp_path, stack, "--no-sensor").gate
        planner = Agent(stack.enter_context(without.running("demo/planner", "reach.py")))
        assert planner.free()
        say(without, quarantine=True)
        said = wait(lambda: (found := planner.do("get", *THROUGH))["status"] == 403 and found, "the gate refuses it")
        assert "Quarantined" in said["text"]
        (told,) = without.status()["sensor"]["unenforced"]
        assert told.startswith("`demo/planner`: the sensor, which cuts agents off, does not answer or does not run")
        say(without, quarantine=False)
        wait(planner.free, "it is free again")
        assert without.status()["sensor"]["unenforced"] == []


def test_an_agent_that_is_started_anew_is_cut_off_as_well(cut_world: World, pins: Path) -> None:
    gate = cut_world.gate
    say(gate, quarantine=True)
    with gate.running("demo/planner", "reach.py") as first:
        wait(lambda: Agent(first).do("get", "192.0.2.77", 80).get("error") == REFUSED, "the first is cut off")
    with gate.running("demo/planner", "reach.py") as second, gate.running("demo/researcher", "reach.py") as neighbour:
        wait(lambda: Agent(second).do("get", "192.0.2.77", 80).get("error") == REFUSED, "the second is cut off")
        assert Agent(neighbour).do("touch", *THROUGH) == {"opened": True}
        (standing,) = wait(lambda: len(found := enforcement.read(pins)) == 1 and found, "what is left of the first is gone")
        assert standing.subject == "demo/planner"


def test_a_shadow_agents_file_cuts_its_cgroup_off_beside_a_gate(cut_world: World, pins: Path) -> None:
    gate = cut_world.gate
    sensor(gate)
    hierarchy = cgroups.find()
    assert hierarchy is not None
    own = hierarchy.mount / f"hopgate-shadow-{os.getpid()}"
    own.mkdir()
    folder = ShadowFolder(gate.data)
    seen = replace(SEEN, program=replace(PROGRAM, cgroup=f"/{own.name}"))
    script = 'echo 0 >"$1/cgroup.procs"; exec "$2" -I "$3"'
    program = str(PROGRAMS / "reach.py")
    shadow = subprocess.Popen(
        ("sh", "-c", script, "sh", str(own), sys.executable, program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert folder.tell(seen)
        name = shadow_agents.name(seen.program)
        reach = ("touch", "127.0.0.1", cut_world.raw.port)
        assert Agent(shadow).do(*reach) == {"opened": True}
        assert Agent(shadow).do("hold", *reach[1:]) == {"held": True}
        decided = time.monotonic()
        folder.decide(name, quarantine=True)
        wait(lambda: not Agent(shadow).do("held").get("held"), "its open connection is cut")
        assert time.monotonic() - decided < 1
        assert Agent(shadow).do(*reach)["error"] == REFUSED
        good = (folder.path / f"{name}.yaml").read_text()
        (folder.path / f"{name}.yaml").write_text("{")
        wait(lambda: gate.status()["sensor"]["unenforced"], "the bad file is told")
        assert Agent(shadow).do(*reach)["error"] == REFUSED
        (folder.path / f"{name}.yaml").write_text(good)
        wait(lambda: gate.status()["sensor"]["unenforced"] == [], "it is well again")
        folder.decide(name, quarantine=False)
        wait(lambda: Agent(shadow).do(*reach) == {"opened": True}, "it is free again")
    finally:
        shadow.kill()
        shadow.communicate(timeout=30)
        wait(lambda: local_cgroups.remove(own), "its cgroup is empty")
