"""What manifests and files ask for is put in force by a sensor, which has the say about what is its own and no more."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from sensor import shadow_agents
from sensor.enforcement import Enforcement
from sensor.events import TCP
from sensor.quarantine import Origin
from sensor.resource_quarantines import AGAIN_SECONDS, ResourceQuarantines
from sensor.shadow_folder import ShadowFolder
from sensor.state import GateListener, GovernedAgent, State
from tests.sensor.quarantine.conftest import World
from tests.sensor.test_shadow_agents import PROGRAM, SEEN

pytestmark = [pytest.mark.root, pytest.mark.bpf]

REFUSED = {"refused": errno.EPERM}
HELLO = {"reached": "hello"}


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def agent(world: World, *, quarantine: bool, cgroup: Path | None = None, name: str = "demo/planner") -> GovernedAgent:
    listener = GateListener(protocol=TCP, ip="127.0.0.1", port=world.gate.port, cgroup_id=0)
    number = (cgroup or world.cgroup).stat().st_ino
    return GovernedAgent(agent=name, cgroup_id=number, netns_cookie=0, listeners=(listener,), quarantine=quarantine)


def standing(world: World) -> list[str]:
    with Enforcement(world.pins) as kernel:
        return [each.subject for each in kernel.quarantines()]


def test_an_agent_is_cut_off_but_for_its_gate_and_let_go(world: World) -> None:
    keeper = ResourceQuarantines(world.pins, None, Clock())
    keeper.govern(State(sequence=1, agents=(agent(world, quarantine=False),)))
    assert keeper.settle() == ()
    assert not world.pins.exists()  # nothing is loaded for those who quarantine nobody
    keeper.govern(State(sequence=2, agents=(agent(world, quarantine=True),)))
    assert keeper.settle() == ()
    assert world.attempt("tcp", f"ip4:{world.server.port}") == REFUSED
    assert world.attempt("tcp", f"ip4:{world.gate.port}") == HELLO
    assert world.attempt("tcp", f"ip4:{world.server.port}", cgroup=world.sibling) == HELLO
    keeper.govern(State(sequence=3, agents=(agent(world, quarantine=False),)))
    assert keeper.settle() == ()
    assert world.attempt("tcp", f"ip4:{world.server.port}") == HELLO


def test_the_next_sensor_takes_over_and_lets_go(world: World) -> None:
    first = ResourceQuarantines(world.pins, None, Clock())
    first.govern(State(sequence=1, agents=(agent(world, quarantine=True),)))
    first.settle()
    with Enforcement(world.pins) as kernel:
        (before,) = kernel.quarantines()
    second = ResourceQuarantines(world.pins, None, Clock())
    assert second.settle() == ()  # it was told of nobody yet
    second.govern(State(sequence=1, agents=(agent(world, quarantine=True),)))
    assert second.settle() == ()
    with Enforcement(world.pins) as kernel:
        (after,) = kernel.quarantines()
    assert after.since_ns == before.since_ns
    second.govern(State(sequence=2, agents=(agent(world, quarantine=False),)))
    second.settle()
    assert standing(world) == []


def test_two_sensors_leave_one_another_alone(world: World) -> None:
    one, other = (ResourceQuarantines(world.pins, None, Clock()) for _ in range(2))
    one.govern(State(sequence=1, agents=(agent(world, quarantine=True),)))
    other.govern(State(sequence=1, agents=(agent(world, quarantine=True, cgroup=world.sibling, name="demo/other"),)))
    assert (one.settle(), other.settle()) == ((), ())
    assert sorted(standing(world)) == ["demo/other", "demo/planner"]
    other.govern(State(sequence=2, agents=(agent(world, quarantine=False, cgroup=world.sibling, name="demo/other"),)))
    other.settle()
    assert standing(world) == ["demo/planner"]


def test_what_a_person_began_no_sensor_ends(world: World) -> None:
    with Enforcement(world.pins) as kernel:
        kernel.begin(world.wanted(), Origin.COMMAND)
    keeper = ResourceQuarantines(world.pins, None, Clock())
    for asked in (True, False):
        keeper.govern(State(sequence=1, agents=(agent(world, quarantine=asked),)))
        keeper.settle()
        assert standing(world) == ["demo/planner"]


def test_what_is_left_of_a_cgroup_that_is_gone_goes_too(world: World) -> None:
    gone = world.cgroup / "beneath"
    gone.mkdir()
    with Enforcement(world.pins) as kernel:
        kernel.begin(world.wanted(cgroup=gone, subject="demo/earlier"), Origin.RESOURCE)
    gone.rmdir()
    keeper = ResourceQuarantines(world.pins, None, Clock())
    keeper.govern(State(sequence=1, agents=(agent(world, quarantine=True),)))
    keeper.settle()
    assert standing(world) == ["demo/planner"]


def test_what_somebody_took_away_is_put_back(world: World) -> None:
    clock = Clock()
    keeper = ResourceQuarantines(world.pins, None, clock)
    keeper.govern(State(sequence=1, agents=(agent(world, quarantine=True),)))
    keeper.settle()
    with Enforcement(world.pins) as kernel:
        assert kernel.end(world.cgroup.stat().st_ino)
    keeper.settle()
    assert standing(world) == []
    clock.seconds += AGAIN_SECONDS
    keeper.settle()
    assert standing(world) == ["demo/planner"]


def test_who_can_not_be_cut_off_is_told_by_name(world: World) -> None:
    keeper = ResourceQuarantines(world.pins, None, Clock())
    homeless = replace_cgroup(agent(world, quarantine=True, name="demo/homeless"))
    root = agent(world, quarantine=True, name="demo/everywhere", cgroup=world.cgroup.parent.parent)
    keeper.govern(State(sequence=1, agents=(homeless, root, agent(world, quarantine=True))))
    first, second = keeper.settle()
    assert first == "`demo/homeless` is not cut off: it has no cgroup of its own"
    assert second.startswith("`demo/everywhere` is not quarantined: expected a cgroup of its own, got the root cgroup")
    assert standing(world) == ["demo/planner"]


def replace_cgroup(of: GovernedAgent) -> GovernedAgent:
    return GovernedAgent(agent=of.agent, cgroup_id=0, netns_cookie=0, listeners=of.listeners, quarantine=True)


def test_a_shadow_agent_is_cut_off_by_its_file(world: World, tmp_path: Path) -> None:
    folder = ShadowFolder(tmp_path)
    seen = replace(SEEN, program=replace(PROGRAM, cgroup="/" + "/".join(world.cgroup.parts[-2:])))
    assert folder.tell(seen)
    name = shadow_agents.name(seen.program)
    path = folder.path / f"{name}.yaml"
    keeper = ResourceQuarantines(world.pins, folder, Clock())
    assert keeper.settle() == ()
    assert world.attempt("tcp", f"ip4:{world.server.port}") == HELLO
    path.write_text(path.read_text().replace("quarantine: false", "quarantine: true"))
    assert keeper.settle() == ()
    assert standing(world) == [name]
    assert world.attempt("tcp", f"ip4:{world.server.port}") == REFUSED
    good = path.read_text()
    path.write_text("{")
    (told,) = keeper.settle()
    assert told.startswith(f"{name}.yaml:")
    assert standing(world) == [name]  # a mistake changes nothing
    path.write_text(good.replace("quarantine: true", "quarantine: false"))
    assert keeper.settle() == ()
    assert world.attempt("tcp", f"ip4:{world.server.port}") == HELLO
    path.write_text(good)
    keeper.settle()
    assert standing(world) == [name]
    path.unlink()
    keeper.settle()
    assert standing(world) == []
