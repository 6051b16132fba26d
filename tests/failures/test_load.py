"""Parts that end, pause or have much to read while several requests are under way at all times."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end.conftest import World, build
from tests.end_to_end.gates import DEADLINE_SECONDS, Gate, wait
from tests.end_to_end.manifests import POLICY
from tests.failures.test_parts import Asker, asking, authz, passed_in_records

pytestmark = [pytest.mark.root, pytest.mark.envoy]
PROGRAMS = Path(__file__).parent / "programs"
# Seen also where the checkout is below /tmp.
BIND = ("--bind", str(PROGRAMS))
# Takes a second or more to read, check and compile.
MANY = 1500


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        yield build(tmp_path_factory.mktemp("load"), stack)


@contextmanager
def load(gate: Gate) -> Iterator[dict[str, int]]:
    """Requests go on while the block runs; how often each status came is known after it."""
    counted: dict[str, int] = {}
    with gate.running("demo/planner", sys.executable, str(PROGRAMS / "loader.py"), options=BIND) as process:
        yield counted
        said, _ = process.communicate("", timeout=DEADLINE_SECONDS)
        counted.update(json.loads(said))


def more(world: World, count: int = 20) -> None:
    """Wait until `count` more requests have reached the upstream: so many have passed since."""
    reached = len(world.raw.received)
    wait(lambda: len(world.raw.received) >= reached + count, "requests pass")


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_every_request_that_passes_has_its_record_though_authz_is_restarted(world: World, signum: signal.Signals) -> None:
    reached, recorded = len(world.raw.received), passed_in_records(world.gate)
    with load(world.gate) as statuses:
        for _ in range(3):
            more(world)
            pid = authz(world.gate)
            os.kill(pid, signum)
            wait(partial(_is_another, world.gate, pid), "another authz took its place")
        more(world)
    arrived = len(world.raw.received) - reached
    assert set(statuses) <= {"200", "503", "0"}
    assert statuses["200"] <= arrived <= passed_in_records(world.gate) - recorded
    assert world.gate.status()["counters"]["allowed_on_failure"] == 0


def test_a_request_that_waits_for_a_stopped_authz_passes_when_it_goes_on_in_time(world: World) -> None:
    pid = authz(world.gate)
    with asking(world.gate) as asker, ThreadPoolExecutor(1) as one:
        assert asker.ask() == 200
        reached = len(world.raw.received)
        os.kill(pid, signal.SIGSTOP)
        try:
            answer = one.submit(asker.ask)
            wait(lambda: checks_under_way(world.gate) == 1, "the check waits for authz")
            assert len(world.raw.received) == reached
        finally:
            os.kill(pid, signal.SIGCONT)
        status = answer.result(DEADLINE_SECONDS)
    # On a machine that is busy with other things the time may be over.
    assert (status, len(world.raw.received) - reached) in {(200, 1), (503, 0)}


def checks_under_way(gate: Gate) -> int:
    """How many answers the agent's Envoy waits for, by its own count."""
    (admin,) = (path for folder in gate.run_folders() for path in folder.glob("agent-*/admin.sock"))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(admin))
        connection.sendall(b"GET /stats?filter=^cluster.authz.upstream_rq_active$ HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")
        with connection.makefile("rb") as file:
            return int(file.read().rpartition(b"upstream_rq_active: ")[2].split()[0])


def test_while_a_large_folder_is_read_the_old_policies_hold_and_then_only_the_new(world: World) -> None:
    gate, policy = world.gate, world.gate.resources / "policy.yaml"
    before = gate.status()["snapshot_digest"]
    permit = (
        'permit (principal == Hopgate::Agent::"demo/stranger", action, resource == Hopgate::Tool::"demo/raw/search") when {{ {} > 0 }};'
    )
    rules = "".join(f"    {permit.format(f'context.arguments.limit + {number}')}\n" for number in range(MANY))
    none = f"apiVersion: hopgate.dev/v1alpha1\nkind: Policy\nmetadata: {{name: many, namespace: demo}}\nspec:\n  cedar: |\n{rules}"
    statuses: list[int] = []
    try:
        with asking(gate) as asker:
            statuses.append(asker.ask())
            replacement = policy.with_suffix(".new")
            replacement.write_text(none)
            replacement.rename(policy)
            wait(partial(_asked_in_vain, asker, statuses), "the new policies are in force")
            statuses += [asker.ask() for _ in range(5)]
            assert gate.status()["snapshot_digest"] != before
    finally:
        policy.write_text(POLICY)
        wait(lambda: gate.status()["snapshot_digest"] == before, "the policies are as they were")
    denied = statuses.index(403)
    assert set(statuses[:denied]) <= {200, 503}
    assert statuses[0] == 200
    assert set(statuses[denied:]) == {403}


def test_an_agent_whose_gate_is_killed_has_no_way_out_of_any_kind(tmp_path: Path) -> None:
    with ExitStack() as stack:
        world = build(tmp_path, stack)
        port = str(world.raw.port)
        process = stack.enter_context(world.gate.running("demo/planner", sys.executable, str(PROGRAMS / "leaver.py"), port, options=BIND))
        assert tried(process) == {"upstream": False, "outside": False, "resolver": True, "address": True, "kept": True}
        reached = len(world.raw.received)
        assert world.gate.process is not None
        world.gate.process.kill()
        world.gate.process.wait()
        wait(lambda: not any(tried(process).values()), "nothing answers any more")
        settled = len(world.raw.received)
        assert set(tried(process).values()) == {False}
        assert len(world.raw.received) == settled
        assert settled >= reached


def tried(process: subprocess.Popen[str]) -> dict[str, bool]:
    """What the program says of its ways out."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("try\n")
    process.stdin.flush()
    outcomes: dict[str, bool] = json.loads(process.stdout.readline())
    return outcomes


def _is_another(gate: Gate, pid: int) -> bool:
    return authz(gate) not in {0, pid}


def _asked_in_vain(asker: Asker, statuses: list[int]) -> bool:
    statuses.append(asker.ask())
    return statuses[-1] == 403
