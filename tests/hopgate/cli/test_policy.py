"""`hopgate policy check`: each mistake with its file and line, and an exit code that CI can go by."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hopgate.cli.main import commands

AGENT = """apiVersion: hopgate.dev/v1alpha1
kind: Agent
metadata: {name: planner, namespace: demo}
spec: {}
"""


def check(*arguments: str) -> Result:
    return CliRunner().invoke(commands, ["policy", "check", *arguments])


@pytest.fixture
def good(tmp_path: Path, repository: Path) -> Path:
    shutil.copy(repository / "tests" / "world" / "resources.yaml", tmp_path / "world.yaml")
    return tmp_path


def test_a_folder_without_mistakes_ends_with_0(good: Path) -> None:
    ran = check(str(good))
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert ran.stdout.startswith("valid: 3 agents, ")
    told = json.loads(check(str(good), "--json").stdout)
    assert (told["valid"], told["agents"]) == (True, 3)


BAD = {
    "a field that is none": (AGENT.replace("spec: {}", "spec: {ownr: a}"), 4),
    "an unknown kind": (AGENT.replace("kind: Agent", "kind: Agnt"), 2),
    "a name in upper case": (AGENT.replace("planner", "Planner"), 3),
    "no YAML": ("a: [\n", 2),
    "a policy that does not parse": (
        "apiVersion: hopgate.dev/v1alpha1\nkind: Policy\nmetadata: {name: p, namespace: demo}\nspec:\n  cedar: |\n    permit (\n",
        6,
    ),
}


@pytest.mark.parametrize(("text", "line"), BAD.values(), ids=BAD)
def test_a_mistake_ends_with_1_and_is_told_with_its_line(good: Path, text: str, line: int) -> None:
    (good / "bad.yaml").write_text(text, encoding="utf-8")
    ran = check(str(good))
    assert ran.exit_code == 1
    assert ran.stdout.startswith(f"{good / 'bad.yaml'}:{line}: ")
    assert "to mend" in ran.stderr
    told = json.loads(check(str(good), "--json").stdout)
    assert (told["valid"], told["mistakes"]) == (False, ran.stdout.splitlines())


def test_a_folder_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    ran = check(str(tmp_path / "nowhere"))
    assert ran.exit_code in (1, 2)
    assert "nowhere" in ran.stdout + ran.stderr


def test_without_a_folder_it_is_wrong_usage() -> None:
    assert check().exit_code == 2
