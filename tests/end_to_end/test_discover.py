"""`hopgate discover` beside a real gate: its agents are registered, the gate is nobody, the same program without it is a shadow."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sensor.shadow_folder import ShadowFolder
from tests.end_to_end.conftest import World
from tests.end_to_end.gates import HOPGATE, PROGRAMS, environment, wait

pytestmark = [pytest.mark.root, pytest.mark.bpf, pytest.mark.envoy]


@contextmanager
def discovering(folder: Path, data: Path) -> Iterator[Path]:
    """`hopgate discover` while the block lasts; the file that it writes to."""
    output, errors = folder / "discovered", folder / "discover.stderr"
    with output.open("wb") as stdout, errors.open("wb") as stderr:
        process = subprocess.Popen(
            (HOPGATE, "discover", "--watch", "--json", "--all", "--data", str(data)),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=environment(),
        )
        try:
            wait(lambda: "watching" in errors.read_text(), "discover watches")
            yield output
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


def found(output: Path) -> dict[str, dict[str, Any]]:
    """The last that was said of each program, by its id."""
    return {each["id"]: each for each in map(json.loads, output.read_text().splitlines())}


def of_script(output: Path, host: str) -> list[dict[str, Any]]:
    return [
        each
        for each in found(output).values()
        if "sdk_client.py" in each["command"] and host in {place["host"] for place in each["reached"]}
    ]


def test_a_governed_agent_is_registered_and_the_same_program_without_the_gate_is_a_shadow(world: World, tmp_path: Path) -> None:
    with discovering(tmp_path, world.gate.data) as output:
        world.gate.json("demo/planner", "sdk_client.py", "openai")
        governed = wait(lambda: of_script(output, "api.openai.com"), "the agent is told")
        assert [(each["kind"], each["agent"]) for each in governed] == [("Registered", "demo/planner")]
        # Nothing answers it here, and it need not: what it asks for is seen.
        address = {"OPENAI_API_KEY": "x", "OPENAI_BASE_URL": f"http://127.0.0.1:{world.raw.port}/v1"}
        subprocess.run(
            (sys.executable, str(PROGRAMS / "sdk_client.py"), "openai"),
            env=environment(**address),
            capture_output=True,
            check=False,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        ungoverned = wait(lambda: of_script(output, f"127.0.0.1:{world.raw.port}"), "the shadow is told")
        assert [(each["kind"], each["agent"]) for each in ungoverned] == [("Shadow", "")]
        assert not [each for each in found(output).values() if "envoy" in each["program"]]
    assert ungoverned[0]["shadow_agent"] in ShadowFolder(world.gate.data).read().shadows
    assert governed[0]["shadow_agent"] == ""
    assert f"shadow agents written down in `{world.gate.data}/shadow-agents`: " in (tmp_path / "discover.stderr").read_text()
