"""`hopgate run`: the program's end is its own, its files stay, its keys are placeholders, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hopgate.local import folders
from tests.end_to_end import manifests
from tests.end_to_end.conftest import World
from tests.end_to_end.gates import DEADLINE_SECONDS, environment, wait

pytestmark = [pytest.mark.root, pytest.mark.envoy]


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", -15)])
def test_the_programs_end_is_the_commands_end(world: World, script: str, code: int) -> None:
    assert world.gate.run("demo/planner", "/bin/sh", "-c", script).returncode == code


def test_input_and_output_are_the_programs(world: World) -> None:
    done = world.gate.run("demo/planner", "/bin/sh", "-c", "cat; echo wrong >&2", input="through\n")
    assert (done.stdout, done.stderr) == ("through\n", "wrong\n")


def test_a_signal_reaches_the_program(world: World) -> None:
    # Not `read`: a signal that comes just before the shell blocks in it is told only after the next line.
    script = 'trap "echo told; exit 3" TERM; echo ready; while :; do sleep 0.05; done'
    with world.gate.running("demo/planner", "/bin/sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "told\n"
        assert process.wait(DEADLINE_SECONDS) == 3


@pytest.mark.parametrize("ignored", [(), ("--ignore-signal=HUP",), ("--ignore-signal=INT",)], ids=["none", "HUP", "INT"])
def test_the_program_ignores_the_signals_that_its_caller_ignores_and_no_others(world: World, ignored: tuple[str, ...]) -> None:
    asked = ("/bin/grep", "SigIgn", "/proc/self/status")
    folder = world.gate.resources.parent.parent
    plain, governed = (
        subprocess.run(("env", *ignored, *command), capture_output=True, text=True, env=environment(), cwd=folder, check=True).stdout
        for command in (asked, world.gate.command("demo/planner", *asked))
    )
    assert governed == plain


def test_what_can_not_be_started_is_said_with_a_remedy(world: World) -> None:
    for agent, program, said in (("demo/ghost", "/bin/true", "not registered"), ("demo/planner", "/nowhere/true", "can't be executed")):
        done = world.gate.run(agent, program)
        assert done.returncode == 125
        assert said in done.stderr
        assert "to mend it:" in done.stderr


def test_no_secret_of_the_gate_is_where_the_program_can_look(world: World) -> None:
    given = environment(OPENAI_API_KEY="my-own-key", KEPT_API_KEY="kept", ANTHROPIC_API_KEY="mine-too")
    options = ("--keep-env", "ANTHROPIC_API_KEY")
    looked = (str(world.gate.data), str(world.gate.resources), str(world.gate.resources.parent))
    found = world.gate.json("demo/planner", "look.py", *looked, options=options, env=given, input=manifests.MARKER)
    assert found["found"] == []
    assert found["environ"]["OPENAI_API_KEY"] == "hopgate-placeholder"
    assert found["environ"]["ANTHROPIC_API_KEY"] == "mine-too"
    started = [change for change in world.gate.records("changes") if change["operation"] == "Start"][-1]
    assert started["after"]["keptVariables"] == ["ANTHROPIC_API_KEY"]


def test_no_secret_is_in_records_logs_or_errors(world: World) -> None:
    asked = "GET {} HTTP/1.1\r\nhost: web.example.com\r\n\r\n"
    attempts = [
        {"host": "web.example.com", "port": 443, "tls": "web.example.com", "data": asked.format(path)} for path in ("/public/a", "/private")
    ]
    script = ("-c", f'{sys.executable} raw.py <<< "$1"; read', "bash", json.dumps(attempts))
    with world.gate.running("demo/planner", "/bin/bash", *script) as process:
        assert process.stdout is not None
        answers = json.loads(process.stdout.readline())
        assert [answer["answer"][9:12] for answer in answers] == ["200", "403"]
        assert manifests.MARKER in str(world.web.received[-1])
        folders_of_the_gate = (world.gate.data, *world.gate.run_folders())
        seen = [path for folder in folders_of_the_gate for path in folder.rglob("*") if path.is_file()]
        assert {path.parent.name for path in seen} >= {"decisions", "names", "changes"}
        assert "envoy.json" in {path.name for path in seen}
        for path in (*seen, world.gate.stderr):
            assert manifests.MARKER.encode() not in path.read_bytes(), path


def test_a_root_program_that_deletes_the_rules_reaches_nothing(world: World) -> None:
    script = "nft flush ruleset; nft delete table inet gate; ip link; exec timeout 5 sh -c 'exec 3<>/dev/tcp/203.0.113.7/80'"
    done = world.gate.run("demo/planner", "/bin/bash", "-c", script, options=("--uid", "0"))
    assert done.returncode != 0
    assert "not permitted" in done.stderr.lower()


def test_opened_paths_and_sockets_are_seen_and_recorded(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    read = ("-c", f"cat {tmp_path}/file")
    assert world.gate.run("demo/planner", "/bin/sh", *read).returncode != 0
    assert world.gate.run("demo/planner", "/bin/sh", *read, options=("--bind", str(tmp_path))).stdout == "here"
    started = [change for change in world.gate.records("changes") if change["operation"] == "Start"][-1]
    assert str(tmp_path) in started["after"]["binds"]


def test_of_an_agent_that_ended_the_gate_keeps_nothing(world: World) -> None:
    def agents() -> set[Path]:
        return {path for folder in world.gate.run_folders() for path in folder.glob("agent-*")}

    before = agents()
    with world.gate.running("demo/planner", "/bin/cat"):
        (folder,) = wait(lambda: agents() - before, "the agent has a folder")
    wait(lambda: not folder.exists(), "its folder, with its credential, is gone")


def test_a_gate_brought_along_leaves_nothing_behind(own_world: World) -> None:
    own_world.gate.stop()
    done = own_world.gate.run(
        "demo/planner",
        "raw.py",
        input=json.dumps([{"host": "raw.demo.svc", "port": 80, "data": "GET /mcp HTTP/1.1\r\nhost: raw.demo.svc\r\n\r\n"}]),
    )
    assert "200" in done.stdout[:40], done.stderr
    assert own_world.gate.run_folders() == []
    assert not _processes_of(own_world.gate.data)


@pytest.mark.parametrize("victim", ["hopgate run", "hopgate.local"])
def test_a_part_killed_at_once_leaves_nothing_that_the_next_start_does_not_clear(own_world: World, victim: str) -> None:
    gate = own_world.gate
    gate.stop()
    with subprocess.Popen(
        gate.command("demo/planner", "/bin/sh", "-c", "echo ready; exec sleep 60"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        program = wait(lambda: [pid for pid in _children(process.pid) if "sleep" in _command(pid)], "the program runs")
        own = [pid for pid in _children(process.pid) if "hopgate.local" in _command(pid)]
        os.kill(process.pid if victim == "hopgate run" else own[0], signal.SIGKILL)
        if victim == "hopgate run":
            wait(lambda: not Path(f"/proc/{program[0]}").exists(), "the program ended with its parent")
        wait(lambda: not [pid for pid in _processes_of(gate.data) if _is_gates(pid)], "the gate's processes ended")
        process.kill()
    assert gate.run("demo/planner", "/bin/true").returncode == 0
    assert gate.run_folders() == []


def test_an_edit_is_in_force_within_a_second_and_a_bad_one_never(own_world: World) -> None:
    gate = own_world.gate
    policy = gate.resources / "policy.yaml"
    request = json.dumps([{"host": "raw.demo.svc", "port": 80, "data": "GET /mcp HTTP/1.1\r\nhost: raw.demo.svc\r\n\r\n"}])

    def allowed() -> bool:
        return bool(gate.json("demo/planner", "raw.py", input=request)[0]["answer"].startswith("HTTP/1.1 200"))

    assert allowed()
    digest = gate.status()["snapshot_digest"]
    policy.rename(policy.with_suffix(".off"))
    written = time.monotonic()
    wait(lambda: gate.status()["snapshot_digest"] != digest, "the edit is in force")
    assert time.monotonic() - written < 2.0  # a second, and what asking for the status takes
    assert not allowed()
    before = gate.status()["snapshot_digest"]
    policy.write_text(manifests.POLICY.replace("context.arguments.limit <= 100", "context.arguments.limmit <= 100"))
    status = wait(lambda: (found := gate.status())["mistakes"] and found, "the mistake is told")
    assert "policy.yaml:" in status["mistakes"][0]
    assert status["snapshot_digest"] == before
    assert b"policy.yaml:" in gate.stderr.read_bytes()
    policy.write_text(manifests.POLICY)
    wait(lambda: not gate.status()["mistakes"], "the folder is well again")
    assert wait(allowed, "the policy is in force again")


def _processes_of(data: Path) -> list[int]:
    run = str(folders.run_base(data))
    return [pid for pid in _all() if str(data) in _command(pid) or run in _command(pid)]


def _is_gates(pid: int) -> bool:
    """The sandbox goes on without its gate, with no way out."""
    return any(part in _command(pid) for part in ("-m authz", "-m hopgate.local", "envoy"))


def _children(parent: int) -> list[int]:
    found: list[int] = []
    for pid in _all():
        try:
            status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(status[1]) == parent:
            found += [pid, *_children(pid)]
    return found


def _all() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal() and int(path.name) != os.getpid()]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
