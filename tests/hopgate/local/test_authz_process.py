"""The real authz process: told the gate's state, told it again when it is back, and heard when it can't start."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from authz.state import InboundGate, Report, State
from hopgate.local.authz_process import AuthzError, AuthzProcess

SECONDS = 30


@pytest.fixture
def resources(tmp_path: Path, repository: Path) -> Path:
    folder = tmp_path / "resources"
    folder.mkdir()
    shutil.copy(repository / "tests" / "world" / "resources.yaml", folder / "world.yaml")
    return folder


@asynccontextmanager
async def started(resources: Path, said: list[str] | None = None) -> AsyncIterator[AuthzProcess]:
    folder = resources.parent
    arguments = ("--resources", str(resources), "--data", str(folder / "data"), "--socket", str(folder / "authz.sock"))
    process = AuthzProcess(arguments, (said if said is not None else []).append)
    await process.spawn()
    try:
        await process.ready()
        yield process
    finally:
        await process.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)  # between two looks at the condition


async def reported(process: AuthzProcess, condition: Callable[[Report], bool]) -> Report:
    """The first report of which the condition holds."""
    async with asyncio.timeout(SECONDS):
        while True:
            report = await process.report(SECONDS)
            if report is not None and condition(report):
                return report
            await asyncio.sleep(0.05)  # between two looks at the condition


def gates(sequence: int, agent: str = "demo/researcher") -> State:
    return State(sequence=sequence, gates=(InboundGate(agent=agent, ip="127.0.0.1", port=4000),))


def is_gone(pid: int) -> bool:
    """Whether no such process runs; a zombie is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_starts_takes_a_state_and_ends(resources: Path) -> None:
    async with started(resources) as process:
        pid = process.pid
        assert pid is not None
        assert (resources.parent / "authz.sock").is_socket()
        await asyncio.wait_for(process.update(gates(1)), SECONDS)
        report = await process.report(SECONDS)
        assert report is not None
        assert (report.mistakes, report.counters["checks"], report.counters["allowed_on_failure"]) == ((), 0, 0)
        assert len(report.snapshot_digest) == 64
    assert is_gone(pid)
    assert process.pid is None


async def test_a_killed_process_is_started_again_and_takes_states_as_before(resources: Path) -> None:
    said: list[str] = []
    async with started(resources, said) as process:
        await process.update(gates(1))
        first = process.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: process.pid not in (None, first))
        await asyncio.wait_for(process.update(gates(2)), SECONDS)
        assert process.restarts == 1
        assert said == ["the authz process ended; every hop is denied until it is back (restart 1)"]


async def test_a_state_that_is_told_while_it_is_down_is_in_force_when_it_is_back(resources: Path) -> None:
    async with started(resources) as process:
        await process.update(gates(1))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        await until(lambda: process.pid is None)
        await asyncio.wait_for(process.update(gates(2)), SECONDS)
        assert process.pid is not None


async def test_is_not_ended_for_being_slow(resources: Path) -> None:
    async with started(resources) as process:
        pid = process.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        assert await process.report(0.05) is None
        os.kill(pid, signal.SIGCONT)
        report = await process.report(SECONDS)
        assert report is not None
        assert (process.pid, process.restarts) == (pid, 0)


async def test_mistakes_at_the_start_are_told_all_of_them(resources: Path) -> None:
    (resources / "bad.yaml").write_text(
        "apiVersion: hopgate.dev/v1alpha1\nkind: Agent\nmetadata: {name: Bad, namespace: demo}\nspec: {ownr: a}\n", encoding="utf-8"
    )
    with pytest.raises(AuthzError) as failed:
        async with started(resources):
            pass
    lines = str(failed.value).splitlines()
    assert len(lines) == 2
    assert all("bad.yaml:" in line for line in lines)
    assert (failed.value.code, failed.value.remedy) == ("AuthzUnavailable", "mend what it names and start again")


async def test_a_mistake_made_later_is_reported_and_the_former_resources_stay(resources: Path) -> None:
    async with started(resources) as process:
        before = await process.report(SECONDS)
        assert before is not None
        (resources / "bad.yaml").write_text("a: [\n", encoding="utf-8")
        report = await reported(process, lambda found: bool(found.mistakes))
        assert "bad.yaml:2" in report.mistakes[0]
        assert report.snapshot_digest == before.snapshot_digest
        (resources / "bad.yaml").unlink()
        await reported(process, lambda found: not found.mistakes)


async def test_a_process_that_can_t_start_at_all_is_told() -> None:
    process = AuthzProcess(("--no-such-option",), lambda line: None)
    await process.spawn()
    with pytest.raises(AuthzError, match="ended at its start"):
        await process.ready()
    await process.stop()


async def test_ready_without_a_start_is_an_error() -> None:
    with pytest.raises(AuthzError, match="was not started"):
        await AuthzProcess((), lambda line: None).ready()
