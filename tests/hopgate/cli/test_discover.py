"""`hopgate discover` without the kernel's programs: what still works, and what is said about the rest."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hopgate.cli import discover_view as view
from sensor import containers
from sensor.evidence import Evidence, EvidenceKind
from sensor.sightings import Program, Reached, Sighting

SECRET = "zq7-hunter2-never-shown"
NOBODY = 65534
WAITING = "print('ready', flush=True); import sys; sys.stdin.read()"
DISCOVER = (sys.executable, "-c", "from hopgate.cli.main import main; main()", "discover")


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[int]:
    """A program that looks like an agent: an SDK's files, a provider's key, and a secret wherever one can be."""
    script = tmp_path / "agent.py"
    script.write_text(f"import jiter; {WAITING}", encoding="utf-8")
    environment = {**os.environ, "OPENAI_API_KEY": SECRET, "OTHER": SECRET}
    command = (sys.executable, "agent.py", "--key", SECRET, f"--token={SECRET}", f"-p{SECRET}", f"NAME={SECRET}", SECRET)
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdin is not None
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        yield started.pid
        started.stdin.close()


def discover(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DISCOVER, *options], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60)


def discover_as_nobody(*options: str) -> subprocess.CompletedProcess[str]:
    """As a user without rights. It becomes that user when all is imported, since the interpreter may be in a folder of root's."""
    program = (
        "import os, sys, encodings.utf_8_sig, hopgate.cli.discover_run; from hopgate.cli.main import main;"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY}); sys.argv[0] = 'hopgate'; main()"
    )
    command = [sys.executable, "-c", program, "discover", "--data", "/nonexistent", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60)


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
@pytest.mark.root
def test_without_rights_it_says_so_and_lists_what_it_may(agent: int) -> None:
    ran = discover_as_nobody("--json")
    assert ran.returncode == 3
    assert f"calls are not watched: expected root, got user {NOBODY} (KernelUnusable)" in ran.stderr
    assert "to mend it: run it as `sudo hopgate discover`" in ran.stderr
    assert "what still works: programs that run now" in ran.stderr
    assert "not seen: programs that may not be read" in ran.stderr
    assert agent not in {found["pid"] for found in objects(ran.stdout)}


def test_a_file_of_providers_with_mistakes_ends_with_2_and_each_mistake(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("providers:\n  - name: A\n    hosts: [com]\n    port: 1\n", encoding="utf-8")
    ran = discover("--providers", str(own))
    assert ran.returncode == 2
    assert [line.split(":")[1] for line in ran.stdout.splitlines()] == ["3", "4"]
    assert "(ProvidersInvalid)" in ran.stderr
    own.write_text("providers:\n  - name: A\n    hosts: [a.example.com]\n", encoding="utf-8")
    assert discover("--providers", str(own), "--duration", "0").returncode != 2


@pytest.mark.parametrize("options", [("--duration", "-1"), ("--duration", "x"), ("--nothing",)])
def test_wrong_usage_ends_with_2(options: tuple[str, ...]) -> None:
    assert discover(*options).returncode == 2


def sighting(**fields: Any) -> Sighting:
    program = Program(
        name="python3.11",
        executable="/usr/bin/python3.11",
        script="agent.py",
        shown="python3.11 agent.py --key …",
        uid=1000,
        user="ann",
        placement=containers.place("/system.slice/my-agent.service"),
    )
    made: dict[str, Any] = {
        "program": program,
        "process": 7,
        "processes": 3,
        "agent": "",
        "evidence": (
            Evidence(kind=EvidenceKind.MODEL_HANDSHAKE, subject="api.openai.com (OpenAI)"),
            Evidence(kind=EvidenceKind.SDK_IN_USE, subject="the OpenAI SDK"),
            Evidence(kind=EvidenceKind.PROVIDER_KEY, subject="OPENAI_API_KEY"),
        ),
        "reached": (Reached(host="api.openai.com", provider="OpenAI", connections=1000),),
        "others": 2,
        "connections": 1002,
        "first_seen_ns": 10**18,
        "last_seen_ns": 10**18,
    }
    return Sighting(**(made | fields))


def drawn(found: Sighting, width: int) -> str:
    """The table as a terminal of so many columns shows it, without its styles."""
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(view.table([found], width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 119, 120, 160, 250])
def test_a_table_fits_its_terminal_and_says_all(width: int) -> None:
    text = drawn(sighting(), width)
    assert max(map(len, text.splitlines())) <= width
    words = set(text.split())
    assert {"very", "likely", "api.openai.com", "1000", "ann,", "agent.py", "OPENAI_API_KEY", "7"} <= words
    assert ("where" in words) == (width >= view.WIDE)


def test_a_narrow_terminal_folds_and_drops_nothing() -> None:
    text = drawn(sighting(), 40)
    assert max(map(len, text.splitlines())) <= 40
    assert set("api.openai.com1000") <= set(text)


def test_what_others_chose_is_shown_and_not_obeyed() -> None:
    evil = "a\x1b[31m\nb\u202e"
    text = drawn(sighting(program=Program(name=evil, shown=evil, uid=0), reached=(Reached(host=evil, provider="", connections=1),)), 160)
    assert not {"\x1b", "\u202e"} & set(text)
    assert text.count(r"a\x1b[31m\x0ab\x202e") == 2


def test_a_line_and_an_object_say_the_same() -> None:
    line = view.line(sighting())
    for word in (
        "very likely",
        "python3.11 agent.py --key …",
        "ann",
        "my-agent.service",
        "process 7 and 2 more",
        "api.openai.com (OpenAI), 1000 times",
    ):
        assert word in line
    found = view.as_json(sighting())
    assert (found["kind"], found["likelihood"], found["weight"], found["unit"]) == ("Shadow", "very likely", 100, "my-agent.service")
    assert found["reached"] == [{"host": "api.openai.com", "provider": "OpenAI", "connections": 1000}]
    json.dumps(found)


def test_a_registered_agent_is_told_by_its_name() -> None:
    assert view.held_for(sighting(agent="demo/planner")) == "registered as demo/planner"
    assert view.held_for(sighting()) == "very likely"
    assert "whose is not known" in view.held_for(sighting(program=Program()))
