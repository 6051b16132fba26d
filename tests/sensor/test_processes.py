"""What /proc says of real processes, and that it says it of no other."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sensor import data, processes
from sensor.processes import Process, Processes
from sensor.providers import Providers

SECRET = "zq7-hunter2-never-shown"
# Says that it runs, then waits until its input ends.
WAITING = "import sys; print('ready', flush=True); sys.stdin.read()"


@pytest.fixture(scope="module")
def known() -> Providers:
    return data.built_in()


@contextlib.contextmanager
def running(*command: str, environment: dict[str, str] | None = None, folder: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """A program that has begun (it said so) and waits."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={"PATH": os.environ["PATH"], **(environment or {})},
    ) as started:
        assert started.stdin is not None
        assert started.stdout is not None
        try:
            assert started.stdout.readline() == "ready\n"
            yield started
        finally:
            started.stdin.close()
            started.wait(10)


def read(known: Providers, process: int, started_ns: int = 0) -> Process:
    found = Processes(known).read(process, started_ns)
    assert found is not None
    return found


def test_a_program_is_described_without_any_value(known: Providers, tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(WAITING, encoding="utf-8")
    environment = {"OPENAI_API_KEY": SECRET, "ANOTHER_SECRET": SECRET, "NOTE": f"OPENAI_API_KEY={SECRET}"}
    with running(sys.executable, "agent.py", "--key", SECRET, environment=environment, folder=tmp_path) as started:
        found = read(known, started.pid)
    assert found.variables == ("OPENAI_API_KEY",)
    assert found.command.script == str(tmp_path / "agent.py")
    assert found.command.shown.endswith("agent.py --key …")
    assert found.executable == str(Path(sys.executable).resolve())
    assert (found.uid, found.parent) == (os.geteuid(), os.getpid())
    assert found.user == processes.user_name(os.geteuid()) != ""
    assert SECRET not in repr(found)


def test_without_the_key_there_is_no_variable(known: Providers) -> None:
    with running(sys.executable, "-c", WAITING, environment={"NOTE": f"OPENAI_API_KEY={SECRET}"}) as started:
        assert read(known, started.pid).variables == ()


def test_a_mapped_sdk_is_seen_and_another_library_is_none(known: Providers) -> None:
    with running(sys.executable, "-c", f"import jiter; {WAITING}") as started:
        assert ["jiter" in package.name for package in read(known, started.pid).packages] == [True]
    with running(sys.executable, "-c", f"import msgspec; {WAITING}") as started:
        assert read(known, started.pid).packages == ()


def test_a_command_that_links_into_a_package_is_that_package(known: Providers, tmp_path: Path) -> None:
    for folder, expected in (("node_modules/@openai/codex", ["Codex"]), ("node_modules/@example/codex", [])):
        package = tmp_path / folder
        package.mkdir(parents=True)
        (package / "cli.py").write_text(WAITING, encoding="utf-8")
        link = tmp_path / f"command-{len(expected)}"
        link.symlink_to(package / "cli.py")
        with running(sys.executable, str(link)) as started:
            assert [package.name for package in read(known, started.pid).packages] == expected


def test_a_module_that_is_run_is_its_package(known: Providers, tmp_path: Path) -> None:
    for name, expected in (("aider", ["Aider"]), ("spider", [])):
        (tmp_path / f"{name}.py").write_text(WAITING, encoding="utf-8")
        with running(sys.executable, "-m", name, folder=tmp_path) as started:
            assert [package.name for package in read(known, started.pid).packages] == expected


def test_another_start_time_is_another_process(known: Providers) -> None:
    with running(sys.executable, "-c", WAITING) as started:
        found = read(known, started.pid)
        began = found.started_ns
        assert 0 <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) - began < 60 * 10**9
        # The event's time has nanoseconds, /proc has ticks of ten milliseconds.
        assert read(known, started.pid, began + 9_999_999).process == started.pid
        assert Processes(known).read(started.pid, began + 10**9) is None
        assert Processes(known).read(started.pid, began - 10**9) is None


def test_a_process_that_is_gone_is_not_described(known: Providers) -> None:
    with running(sys.executable, "-c", WAITING) as started:
        pass
    assert Processes(known).read(started.pid) is None


def test_a_name_with_brackets_and_spaces_is_read_whole(known: Providers, tmp_path: Path) -> None:
    odd = tmp_path / "a) R (b"
    odd.symlink_to("/bin/cat")
    with subprocess.Popen([odd], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdin is not None
        assert started.stdout is not None
        started.stdin.write("ready\n")
        started.stdin.flush()
        assert started.stdout.readline() == "ready\n"
        found = read(known, started.pid)
        started.stdin.close()
    assert (found.name, found.parent) == ("a) R (b", os.getpid())


def test_all_that_run_are_listed_but_not_the_kernels_threads_or_this_one(known: Providers) -> None:
    with running(sys.executable, "-c", WAITING) as started:
        found = {process.process: process for process in Processes(known).running()}
    assert started.pid in found
    assert os.getpid() not in found
    assert all(process.executable or process.command.shown for process in found.values())


def test_a_proc_that_makes_no_sense_describes_nothing(known: Providers, tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    assert list(Processes(known, tmp_path).running()) == []
