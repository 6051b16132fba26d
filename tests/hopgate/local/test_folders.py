"""A gate's folders are its own: locked while it lives, cleared when it was killed, never taken from one that lives."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hopgate.local import folders
from hopgate.local.folders import FolderError

HOLD = """
import sys
from pathlib import Path
from hopgate.local import folders
folders.RUN_ROOT = Path(sys.argv[1])
held = folders.open_run(Path(sys.argv[2]), sys.argv[3])
held.control.touch()
print(held.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folders, "RUN_ROOT", tmp_path / "run")
    (tmp_path / "data").mkdir(mode=0o700)
    return tmp_path / "data"


def other_gate(data: Path, name: str) -> subprocess.Popen[str]:
    """Another process that holds the run folder `name`, until its standard input ends or it is killed."""
    command = [sys.executable, "-c", HOLD, str(folders.RUN_ROOT), str(data), name]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=10)


class TestDataFolder:
    def test_is_made_private_whatever_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            found = folders.open_data(tmp_path / "a" / "b")
        finally:
            os.umask(before)
        assert stat.S_IMODE(found.stat().st_mode) == 0o700

    @pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o777], ids=oct)
    def test_is_refused_where_others_have_a_way_in(self, tmp_path: Path, mode: int) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data").chmod(mode)
        with pytest.raises(FolderError, match=f"mode {mode:04o}") as refused:
            folders.open_data(tmp_path / "data")
        assert "chmod 700" in refused.value.remedy
        (tmp_path / "data").chmod(0o700)
        assert folders.open_data(tmp_path / "data") == tmp_path / "data"

    @pytest.mark.root
    def test_of_another_user_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir(mode=0o700)
        os.chown(tmp_path / "data", 12345, 12345)
        with pytest.raises(FolderError, match="owner 12345"):
            folders.open_data(tmp_path / "data")


class TestRunFolder:
    def test_is_private_and_short_enough_for_a_socket(self, data: Path) -> None:
        held = folders.open_run(data, "up")
        try:
            assert stat.S_IMODE(held.path.stat().st_mode) == 0o700
            assert len(str(Path("/run/hopgate") / held.certificates.relative_to(folders.RUN_ROOT))) < 108
            assert {held.control.parent, held.authz.parent, held.certificates.parent} == {held.path}
        finally:
            held.remove()

    def test_is_held_by_one_gate(self, data: Path) -> None:
        held = folders.open_run(data, "up")
        with pytest.raises(FolderError, match="running already"):
            folders.open_run(data, "up")
        held.remove()
        folders.open_run(data, "up").remove()

    def test_goes_with_its_gate_and_the_last_takes_the_base(self, data: Path) -> None:
        first, second = folders.open_run(data, "up"), folders.open_run(data, "run-1")
        first.remove()
        assert (first.path.exists(), second.path.exists()) == (False, True)
        second.remove()
        assert not folders.run_base(data).exists()

    def test_of_a_gate_that_lives_is_left_and_of_a_killed_one_cleared(self, data: Path) -> None:
        living, killed = other_gate(data, "run-1"), other_gate(data, "run-2")
        end(killed)
        base = folders.run_base(data)
        assert {path.name for path in base.iterdir()} == {"run-1", "run-2"}
        held = folders.open_run(data, "up")
        try:
            assert {path.name for path in base.iterdir()} == {"run-1", "up"}
            assert (base / "run-1" / "control.sock").exists()
        finally:
            held.remove()
            end(living)

    def test_of_a_gate_killed_over_another_data_folder_is_cleared_too(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        living = other_gate(tmp_path / "third", "run-1")
        end(other_gate(tmp_path / "other", "up"))
        held = folders.open_run(data, "up")
        try:
            assert not folders.run_base(tmp_path / "other").exists()
            assert (folders.run_base(tmp_path / "third") / "run-1" / "control.sock").exists()
        finally:
            held.remove()
            end(living)

    def test_of_a_killed_gate_is_taken_over(self, data: Path) -> None:
        end(other_gate(data, "up"))
        held = folders.open_run(data, "up")
        assert not held.control.exists()
        held.remove()

    def test_of_another_data_folder_is_another(self, data: Path, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        first, second = folders.open_run(data, "up"), folders.open_run(tmp_path / "other", "up")
        assert first.path != second.path
        first.remove()
        second.remove()


@pytest.mark.root
class TestCgroup:
    """Each folder may have one; nothing of it stays behind."""

    def test_goes_with_its_folder(self, data: Path) -> None:
        held = folders.open_run(data, "up")
        made = held.make_cgroup()
        assert made is not None
        assert made.path.stat().st_ino == made.id
        held.remove()
        assert not made.path.exists()

    def test_of_a_killed_gate_is_cleared_by_the_next_start_once_nothing_is_in_it(self, data: Path) -> None:
        killed = folders.open_run(data, "run-1")
        made = killed.make_cgroup()
        assert made is not None
        left = subprocess.Popen(["sh", "-c", 'echo 0 > "$1"; echo in; read x', "sh", str(made.processes)], stdin=-1, stdout=-1)
        assert left.stdout is not None
        assert left.stdout.readline() == b"in\n"
        os.close(killed.descriptor)
        folders.open_run(data, "up").remove()
        assert made.path.exists()
        left.communicate(b"\n", timeout=10)
        folders.open_run(data, "up").remove()
        assert not made.path.exists()
        assert not folders.run_base(data).exists()

    def test_of_a_killed_gate_whose_processes_are_not_gone_yet_is_taken_over(self, data: Path) -> None:
        killed = folders.open_run(data, "up")
        made = killed.make_cgroup()
        assert made is not None
        killed.control.touch()
        left = subprocess.Popen(["sh", "-c", 'echo 0 > "$1"; echo in; read x', "sh", str(made.processes)], stdin=-1, stdout=-1)
        assert left.stdout is not None
        assert left.stdout.readline() == b"in\n"
        os.close(killed.descriptor)
        held = folders.open_run(data, "up")
        assert held.make_cgroup() == made
        assert not held.control.exists()
        left.communicate(b"\n", timeout=10)
        held.remove()
        assert not made.path.exists()


class TestLive:
    def test_nothing_runs_where_nothing_was_started(self, data: Path) -> None:
        assert list(folders.live(data)) == []
        assert not folders.run_base(data).exists()

    def test_names_the_gates_that_run_the_shared_one_first(self, data: Path) -> None:
        running = [other_gate(data, name) for name in ("run-1", "zzz", "up")]
        try:
            assert [path.parent.name for path in folders.live(data)] == ["up", "run-1", "zzz"]
        finally:
            for process in running:
                end(process)
        assert list(folders.live(data)) == []

    def test_a_gate_without_a_control_socket_is_not_named_yet(self, data: Path) -> None:
        held = folders.open_run(data, "up")
        assert list(folders.live(data)) == []
        held.control.touch()
        assert list(folders.live(data)) == [held.control]
        held.remove()
