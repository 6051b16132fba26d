"""The sensor beside a real gate: what governed programs do is seen, exactly; the gate does not depend on it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from hopgate.local import cgroups, folders
from sensor import objects
from tests.end_to_end.conftest import World
from tests.end_to_end.gates import Gate, wait

pytestmark = [pytest.mark.root, pytest.mark.envoy]

PRIME = 13
REQUEST = "GET /mcp HTTP/1.1\r\nhost: raw.demo.svc\r\nconnection: close\r\n\r\n"


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    objects.build()


def sensor(gate: Gate) -> dict[str, Any]:
    """The sensor of a gate, once it sees everything."""
    found: dict[str, Any] = wait(lambda: (status := gate.status()["sensor"])["pid"] and not status["unseen"] and status, "the sensor is up")
    return found


def flows(gate: Gate, protocol: str = "TCP") -> dict[str, dict[str, Any]]:
    """The last record of each connection so far."""
    return {flow["id"]: flow for flow in gate.records("flows") if flow["protocol"] == protocol}


def send(gate: Gate, count: int) -> None:
    attempts = [{"host": "raw.demo.svc", "port": 80, "data": REQUEST}] * count
    outcomes = gate.json("demo/planner", "raw.py", input=json.dumps(attempts))
    assert [outcome["answer"][9:12] for outcome in outcomes] == ["200"] * count


def test_every_connection_of_a_program_is_seen_once_and_went_through_the_gate(world: World) -> None:
    gate = world.gate
    sensor(gate)
    before = set(flows(gate))
    send(gate, PRIME)
    first = wait(lambda: len(new := set(flows(gate)) - before) >= PRIME and new, "the connections are told")
    send(gate, 1)  # what came before it has been told, too, when it is
    wait(lambda: set(flows(gate)) - before - first, "the one behind them is told")
    made = {key: flow for key, flow in flows(gate).items() if key not in before}
    assert len(made) == PRIME + 1
    assert {(flow["phase"], flow["agent"], flow["attribution"], flow["verdict"], flow["reason"]) for flow in made.values()} == {
        ("Ended", "demo/planner", "Cgroup", "ThroughGate", "AcceptedByGate")
    }
    assert {flow["name"] for flow in made.values()} == {"raw.demo.svc"}  # as the gate's resolver answered
    assert {flow["went"] for flow in made.values()} == {"127.0.0.1:15001"}
    assert {flow["sent_bytes"] for flow in made.values()} == {len(REQUEST)}
    # The decisions know them by the same addresses.
    judged = {decision["source"] for decision in gate.records() if decision["direction"] == "Outbound"}
    assert {flow["source"] for flow in made.values()} <= judged


def test_questions_to_the_resolver_are_seen(world: World) -> None:
    sensor(world.gate)
    before = set(flows(world.gate, "UDP"))
    send(world.gate, 1)
    new = wait(lambda: [flow for key, flow in flows(world.gate, "UDP").items() if key not in before], "the question is told")
    assert {(flow["verdict"], flow["reason"], flow["destination"]) for flow in new} == {("ThroughGate", "AnsweredByGate", "192.0.2.1:53")}


def test_a_sensor_that_was_killed_is_missed_by_nobody_but_the_status_and_comes_back(own_world: World) -> None:
    gate = own_world.gate
    killed = sensor(gate)["pid"]
    os.kill(killed, signal.SIGKILL)
    send(gate, 1)
    again = wait(lambda: (found := sensor(gate))["pid"] != killed and found, "the sensor is back")
    assert again["restarts"] == 1
    assert "the sensor process ended; connections of agents are not seen until it is back (restart 1)" in gate.stderr.read_text()
    # The one from when it was away may be told, too, and late.
    since = time.time() * 1e6
    send(gate, PRIME)
    wait(lambda: sum(flow["time"] > since for flow in flows(gate).values()) == PRIME, "its connections are told")


def test_a_sensor_that_does_not_answer_holds_nothing_up_and_is_told(own_world: World) -> None:
    gate = own_world.gate
    pid = sensor(gate)["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        send(gate, 1)
        assert gate.status()["sensor"]["unseen"] == ["connections of agents are not seen: the sensor does not answer"]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert sensor(gate)["pid"] == pid


def test_a_gate_brought_along_brings_a_sensor_and_leaves_no_cgroup(own_world: World) -> None:
    gate = own_world.gate
    gate.stop()
    with gate.running("demo/planner", "asker.py") as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def seen() -> bool:
            process.stdin.write("ask\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            assert process.stdout.readline() == "200\n"  # type: ignore[union-attr]
            return any(flow["verdict"] == "ThroughGate" for flow in flows(gate).values())

        wait(seen, "a connection is told")
        assert cgroups_of(gate)
    assert gate.run_folders() == []
    assert cgroups_of(gate) == []


def test_a_gate_without_a_sensor_says_so(own_world: World) -> None:
    gate = own_world.gate
    gate.stop()
    gate._options = ("--no-sensor",)
    gate.start()
    send(gate, 1)
    status = gate.status()["sensor"]
    assert (status["pid"], status["unseen"]) == (None, ["connections of agents are not seen: the sensor is switched off (--no-sensor)"])
    assert flows(gate) == {}


def test_a_killed_gate_s_cgroups_are_cleared_by_the_next(own_world: World) -> None:
    gate = own_world.gate
    assert gate.process is not None
    with gate.running("demo/planner", "/bin/cat"):
        wait(lambda: gate.status()["agents"], "the agent runs")
        assert len(cgroups_of(gate)) == 2
        gate.process.kill()
        gate.process.wait()
    gate.start()
    assert len(cgroups_of(gate)) == 1
    gate.stop()
    assert cgroups_of(gate) == []


def cgroups_of(gate: Gate) -> list[Path]:
    """Those of the gate and of the programs that it governs."""
    above = cgroups.own()
    assert above is not None
    return list(above.glob(f"hopgate-{folders.run_base(gate.data).name}-*"))
