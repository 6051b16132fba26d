"""The sensor beside a gate writes down the agents that nobody registered, and those alone."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hopgate.local import cgroups
from hopgate.local.sensor_process import SensorProcess
from sensor import objects
from sensor.shadow_folder import ShadowFolder
from sensor.state import GovernedAgent, State
from tests.sensor.model_world import ModelWorld

pytestmark = [pytest.mark.root, pytest.mark.bpf]

CALL = "import sys, urllib.request\nprint(urllib.request.urlopen(sys.argv[1]).status)\n"
SECONDS = 30


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    objects.build()


@asynccontextmanager
async def watching(folder: Path, state: State) -> AsyncIterator[SensorProcess]:
    process = SensorProcess(folder, lambda _: None, wanted=True, sightings=True)
    await process.update(state)
    process.begin(pause_seconds=0)
    try:
        await process.started()
        await process.update(state)
        await process.status()  # what runs already has been looked at when this is answered
        yield process
    finally:
        await process.stop()


def sightings(folder: Path, program: str) -> list[dict[str, Any]]:
    """The rows about a program, by its command line."""
    lines = [line for path in sorted((folder / "spool" / "sightings").glob("*.jsonl")) for line in path.read_bytes().splitlines()]
    return [row for line in lines if program in (row := json.loads(line)["record"])["command"]]


async def test_an_unregistered_agent_is_written_down_and_a_registered_one_and_no_agent_are_not(tmp_path: Path) -> None:
    for name in ("shadow.py", "ordinary.py", "registered.py"):
        (tmp_path / name).write_text(CALL, encoding="utf-8")
    registered = cgroups.make(f"hopgate-test-{os.getpid()}-registered")
    assert registered is not None
    agent = GovernedAgent(agent="demo/planner", cgroup_id=registered.id, netns_cookie=0, listeners=())
    data = tmp_path / "data"
    data.mkdir()
    try:
        async with (
            ModelWorld(tmp_path, ("api.openai.com", "www.example.com")) as world,
            watching(data, State(sequence=1, agents=(agent,))),
        ):
            entering = ("sh", "-c", f'echo 0 > "{registered.processes}"; exec python3 registered.py https://api.openai.com/')
            await world.run(*entering)
            await world.run_python("ordinary.py", "https://www.example.com/")
            await world.run_python("shadow.py", "https://api.openai.com/")
            async with asyncio.timeout(SECONDS):
                while True:
                    if any("api.openai.com" in row["reached"] for row in sightings(data, "shadow.py")):
                        break
                    await asyncio.sleep(0.05)  # between two looks at the records
    finally:
        cgroups.remove(registered.path)
    rows = sightings(data, "shadow.py")
    assert {row["id"] for row in rows} == {rows[0]["id"]}
    last = rows[-1]
    assert (last["kind"], last["user"], last["reached"]) == ("Shadow", 0, ["api.openai.com"])
    assert last["weight"] >= 50
    assert any("api.openai.com" in sentence for sentence in last["evidence"])
    assert last["first_seen"] <= last["last_seen"] <= last["time"]
    assert sightings(data, "ordinary.py") == sightings(data, "registered.py") == []
    written = {name: each for name, each in ShadowFolder(data).read().shadows.items() if name.endswith(last["id"])}
    (shadow,) = written.values()
    assert (shadow.quarantine, shadow.cgroup) == (False, last["cgroup"])
    assert shadow.manifest["status"]["reached"][0]["host"] == "api.openai.com"
    assert [piece["message"] for piece in shadow.manifest["status"]["evidence"]]
    told = [each.manifest["status"]["program"].get("command", "") for each in ShadowFolder(data).read().shadows.values()]
    assert not [command for command in told if "ordinary.py" in command or "registered.py" in command]
