"""The sensor on the real kernel: every way around the gate has its verdict, both families, and every connection is counted once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hopgate.audit.spool import Durability, Spool
from sensor import objects, programs
from sensor.kernel import Loader
from sensor.process import Sensor
from tests.sensor.kernel.conftest import require
from tests.sensor.watched import EXEMPT_USER, OUTSIDE, PORT, PROXY_PORT, Watched, end, watched

pytestmark = pytest.mark.root

PRIME = 13
LOOPBACK = {4: "127.0.0.1", 6: "::1"}


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    objects.build()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Watched]:
    """The agent's surroundings, with the rules and a gate."""
    with watched(tmp_path) as made:
        made.turn()
        yield made


def counted(world: Watched, **fields: Any) -> Counter[tuple[str, str, str]]:
    """How many connections there are of each (protocol, verdict, reason): the last row of an id counts."""
    last = {flow["id"]: flow for flow in world.flows()}
    return Counter(
        (flow["protocol"], flow["verdict"], flow["reason"])
        for flow in last.values()
        if all(flow[name] == value for name, value in fields.items())
    )


Way = Callable[[Watched, int], None]


def connect(world: Watched, family: int) -> None:
    world.call("connect", OUTSIDE[family], count=PRIME)


def as_the_gates_user(way: str) -> Way:
    return lambda world, family: world.call(way, OUTSIDE[family], count=PRIME, user=EXEMPT_USER)


def handed_over(world: Watched, family: int) -> None:
    path = str(world.data / "handed")
    world.start("hand-over", OUTSIDE[family], PORT, PRIME, path, cgroup=world.stranger, namespace=world.outside)
    world.call("received", OUTSIDE[family], PORT, PRIME, path)


def to_a_stranger(world: Watched, family: int) -> None:
    world.start("serve", LOOPBACK[family], PORT, cgroup=world.stranger)
    world.call("connect", LOOPBACK[family], PORT, PRIME)


WAYS: dict[str, tuple[Way, tuple[str, str, str]]] = {
    "redirected": (connect, ("TCP", "ThroughGate", "AcceptedByGate")),
    "redirected, over io_uring": (
        lambda world, family: world.call("ring", OUTSIDE[family], count=PRIME),
        ("TCP", "ThroughGate", "AcceptedByGate"),
    ),
    "redirected, with TCP Fast Open": (
        lambda world, family: world.call("fast-open", OUTSIDE[family], count=PRIME),
        ("TCP", "ThroughGate", "AcceptedByGate"),
    ),
    "as the gate's user": (as_the_gates_user("connect"), ("TCP", "Bypass", "NotRedirected")),
    "as the gate's user, over io_uring": (as_the_gates_user("ring"), ("TCP", "Bypass", "NotRedirected")),
    "as the gate's user, with TCP Fast Open": (as_the_gates_user("fast-open"), ("TCP", "Bypass", "NotRedirected")),
    "as the gate's user, forked and gone": (as_the_gates_user("fork"), ("TCP", "Bypass", "NotRedirected")),
    "datagrams": (lambda world, family: world.call("datagram", OUTSIDE[family], count=PRIME), ("UDP", "Bypass", "NotRedirected")),
    "datagrams of a connected socket": (
        lambda world, family: world.call("connected-datagram", OUTSIDE[family], count=PRIME),
        ("UDP", "Bypass", "NotRedirected"),
    ),
    "questions to the resolver": (
        lambda world, family: world.call("datagram", OUTSIDE[family], 53, PRIME),
        ("UDP", "ThroughGate", "AnsweredByGate"),
    ),
    "questions to the resolver, over TCP": (
        lambda world, family: world.call("connect", OUTSIDE[family], 53, PRIME),
        ("TCP", "ThroughGate", "AcceptedByGate"),
    ),
    "questions to a server of its own": (
        lambda world, family: world.call("datagram", OUTSIDE[family], 53, PRIME, user=EXEMPT_USER),
        ("UDP", "Bypass", "NotRedirected"),
    ),
    "raw packets": (lambda world, family: world.call("raw", OUTSIDE[family], count=PRIME), ("Raw", "Bypass", "RawSocket")),
    "packet sockets": (lambda world, family: world.call("packet", OUTSIDE[family], count=PRIME), ("Packet", "Bypass", "PacketSocket")),
    "in another namespace": (
        lambda world, family: world.call("connect", OUTSIDE[family], count=PRIME, namespace=world.outside),
        ("TCP", "Bypass", "OtherNamespace"),
    ),
    "over sockets handed over": (handed_over, ("TCP", "Bypass", "OtherNamespace")),
    "to the gate's port itself": (
        lambda world, family: world.call("connect", LOOPBACK[family], PROXY_PORT, PRIME),
        ("TCP", "Local", "GatePort"),
    ),
    "to itself": (lambda world, family: world.call("own-server", LOOPBACK[family], 0, PRIME), ("TCP", "Local", "Loopback")),
    "to a stranger on its loopback": (to_a_stranger, ("TCP", "Bypass", "AcceptedByAnother")),
    "refused on its loopback": (
        lambda world, family: world.call("refused", LOOPBACK[family], 9, PRIME),
        ("TCP", "Local", "Loopback"),
    ),
}


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("name", WAYS)
async def test_each_way_has_its_verdict_and_is_counted_exactly(world: Watched, name: str, family: int) -> None:
    way, expected = WAYS[name]
    async with world.sensor() as sensor:
        assert sensor.pid is not None, (await sensor.status()).unseen
        way(world, family)
    assert counted(world) == {expected: PRIME}


async def test_ipv4_over_an_ipv6_socket_is_ipv4(world: Watched) -> None:
    async with world.sensor():
        world.call("mapped", OUTSIDE[4], count=PRIME)
        world.call("mapped", OUTSIDE[4], count=PRIME, user=EXEMPT_USER)
    assert counted(world, destination=f"{OUTSIDE[4]}:{PORT}") == {
        ("TCP", "ThroughGate", "AcceptedByGate"): PRIME,
        ("TCP", "Bypass", "NotRedirected"): PRIME,
    }


async def test_a_flow_says_who_where_and_how_much(world: Watched) -> None:
    async with world.sensor():
        world.call("connect", OUTSIDE[4], user=1000)
    [flow] = world.flows()
    state = world.state()
    assert {name: flow[name] for name in ("phase", "agent", "attribution", "destination", "went", "user", "from_start")} == {
        "phase": "Ended",
        "agent": "demo/planner",
        "attribution": "Cgroup",
        "destination": f"{OUTSIDE[4]}:{PORT}",
        "went": f"127.0.0.1:{PROXY_PORT}",
        "user": 1000,
        "from_start": True,
    }
    assert (flow["cgroup"], flow["namespace"]) == (world.agent.id, state.agents[0].netns_cookie)
    assert (flow["sent_bytes"], flow["received_bytes"]) == (1, 1)
    assert flow["program"].startswith("python")
    assert flow["source"].startswith("198.51.100.2:")


async def test_a_socket_that_tries_again_makes_a_connection_each_time(tmp_path: Path) -> None:
    with watched(tmp_path) as world:  # no rules: nothing is turned, and port 1 refuses
        async with world.sensor():
            world.call("again", OUTSIDE[4], PORT, PRIME)
        assert counted(world) == {("TCP", "Bypass", "NotRedirected"): PRIME}
        assert Counter(flow["destination"] for flow in world.flows() if flow["phase"] == "Ended") == {
            f"{OUTSIDE[4]}:1": PRIME - 1,
            f"{OUTSIDE[4]}:{PORT}": 1,
        }


async def test_a_gate_that_does_not_listen_accepts_nothing(tmp_path: Path) -> None:
    with watched(tmp_path) as world:
        world.turn(gate=False)
        async with world.sensor():
            world.call("refused", OUTSIDE[4], PORT, PRIME)
        assert counted(world) == {("TCP", "Local", "NotAccepted"): PRIME}


async def test_a_stranger_in_the_gates_place_is_not_the_gate(tmp_path: Path) -> None:
    with watched(tmp_path) as world:
        world.turn(gate=False)
        world.start("serve", "127.0.0.1", PROXY_PORT, cgroup=world.stranger)
        async with world.sensor():
            world.call("connect", OUTSIDE[4], PORT, PRIME)
        assert counted(world) == {("TCP", "Bypass", "AcceptedByAnother"): PRIME}


async def test_what_a_stranger_does_is_no_flow(world: Watched) -> None:
    async with world.sensor() as sensor:
        world.call("connect", OUTSIDE[4], count=PRIME, cgroup=world.stranger)
        world.call("datagram", OUTSIDE[4], count=PRIME, cgroup=world.stranger, namespace=world.outside)
        world.call("look-up-own-address", OUTSIDE[4], count=PRIME)
        status = await sensor.status()
    assert world.flows() == []
    assert status.counters["events.lost"] == 0


async def test_what_stood_before_the_sensor_is_marked_and_judged_by_the_gates_own_connections(world: Watched) -> None:
    through = world.start("hold", OUTSIDE[4], PORT, 5)
    around = world.start("hold", OUTSIDE[6], PORT, 3, user=EXEMPT_USER)
    elsewhere = world.start("hold", OUTSIDE[4], PORT, 2, namespace=world.outside)
    async with world.sensor():
        await _eventually_flows(world, 10)
        for each in (through, around, elsewhere):
            end(each)
    assert counted(world, from_start=False) == {
        ("TCP", "ThroughGate", "AcceptedByGate"): 5,
        ("TCP", "Unattributable", "BeganBefore"): 3,
        ("TCP", "Bypass", "OtherNamespace"): 2,
    }
    assert counted(world, phase="Ended") == counted(world)


async def test_a_sensor_that_was_killed_is_started_again_and_tells_of_the_same_by_the_same_ids(world: Watched) -> None:
    said: list[str] = []
    async with world.sensor(said) as sensor:
        held = world.start("hold", OUTSIDE[4], PORT, PRIME)
        await _eventually_flows(world, PRIME)
        killed = sensor.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await _until(lambda: sensor.pid not in (None, killed))
        status = await sensor.status()
        while status.unseen:
            status = await sensor.status()
        assert (status.restarts, status.pid) == (1, sensor.pid)
        world.call("connect", OUTSIDE[4], count=7)
        end(held)
    assert said == ["the sensor process ended; connections of agents are not seen until it is back (restart 1)"]
    assert counted(world) == {("TCP", "ThroughGate", "AcceptedByGate"): PRIME + 7}


async def test_two_sensors_tell_of_one_connection_by_one_id(world: Watched) -> None:
    async with world.sensor(), world.sensor():
        world.call("connect", OUTSIDE[4], count=PRIME)
        world.call("datagram", OUTSIDE[6], count=PRIME)
    assert len(world.flows()) == 4 * PRIME
    assert counted(world) == {("TCP", "ThroughGate", "AcceptedByGate"): PRIME, ("UDP", "Bypass", "NotRedirected"): PRIME}


async def test_an_agent_without_a_cgroup_is_known_by_its_namespace(world: Watched) -> None:
    world.without_cgroups = True
    async with world.sensor():
        world.call("connect", OUTSIDE[4], count=PRIME, cgroup=world.stranger)
        world.call("connect", OUTSIDE[4], count=PRIME, cgroup=world.stranger, user=EXEMPT_USER)
        world.call("connect", OUTSIDE[4], count=PRIME, cgroup=world.stranger, namespace=world.outside)
    assert counted(world, attribution="Namespace") == {
        ("TCP", "ThroughGate", "AcceptedByGate"): PRIME,
        ("TCP", "Bypass", "NotRedirected"): PRIME,
    }


async def test_by_bcc_which_does_not_say_who_accepted_the_gates_port_stands_for_the_gate(world: Watched) -> None:
    require(Loader.BCC)
    spool = Spool(world.data / "spool", "sensor-bcc", clock=lambda: 0.0, durability=Durability.WRITE)
    with contextlib.closing(programs.open(loader=Loader.BCC)) as kernel:
        sensor = Sensor(kernel, spool)
        sensor.apply(world.state())
        world.call("connect", OUTSIDE[4], count=PRIME)
        world.call("connect", OUTSIDE[6], count=PRIME, user=EXEMPT_USER)
        world.call("raw", OUTSIDE[4], count=PRIME)
        await sensor.finish()
    spool.close()
    assert counted(world) == {
        ("TCP", "ThroughGate", "AcceptedAtGate"): PRIME,
        ("TCP", "Bypass", "NotRedirected"): PRIME,
        ("Raw", "Bypass", "RawSocket"): PRIME,
    }


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while True:
            if condition():
                return
            await asyncio.sleep(0.02)  # between two looks at the condition


async def _eventually_flows(world: Watched, count: int) -> None:
    await _until(lambda: len({flow["id"] for flow in world.flows()}) >= count)
