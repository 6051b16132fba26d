"""A change of a folder is reported once it has come to rest, within three looks, and not twice."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hopgate.manifests.watch import INTERVAL_SECONDS, FolderWatcher

Step = Callable[[Path], object]


class _Clock:
    """Lets the watcher look only when the test says so: `look` lets one wait end and returns when the next one begins."""

    def __init__(self) -> None:
        self._waiting = asyncio.Event()
        self._go = asyncio.Event()
        self.waited: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)
        self._waiting.set()
        await self._go.wait()
        self._go.clear()

    async def look(self) -> None:
        await self._waiting.wait()
        self._waiting.clear()
        self._go.set()
        await self._waiting.wait()


class _Watched:
    """A watcher under a test's clock, and how often it reported."""

    def __init__(self, folder: Path) -> None:
        self.clock = _Clock()
        self.reports = 0
        self._watcher = FolderWatcher(folder, self._report, sleep=self.clock.sleep)

    def _report(self) -> None:
        self.reports += 1

    async def __aenter__(self) -> _Watched:
        self._task = asyncio.create_task(self._watcher.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self._task

    async def look(self, times: int = 1) -> int:
        for _ in range(times):
            await self.clock.look()
        return self.reports


def _replace(folder: Path) -> None:
    (folder / "new").write_text("a: 3\n")
    (folder / "new").rename(folder / "a.yaml")


def _same_size_and_time(folder: Path) -> None:
    """As `cp -p` and archives do: other bytes, the old length and the old time of modification."""
    before = (folder / "a.yaml").stat()
    # Until the kernel's clock, which ticks every few milliseconds, has moved on since the file was made.
    while (folder / "a.yaml").stat().st_ctime_ns == before.st_ctime_ns:
        (folder / "a.yaml").write_text("a: 9\n")
        os.utime(folder / "a.yaml", ns=(before.st_atime_ns, before.st_mtime_ns))


def _swap_config_map(folder: Path) -> None:
    (folder / "..new").mkdir()
    (folder / "..new" / "linked.yaml").write_text("a: 1\n")
    (folder / "..tmp").symlink_to("..new")
    (folder / "..tmp").rename(folder / "..data")


def _move(folder: Path, to: Path) -> None:
    folder.rename(to)


def _empty(folder: Path) -> None:
    for path in (folder / "a.yaml", folder / "linked.yaml"):
        path.unlink()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.yaml").write_text("a: 1\n")
    (tmp_path / "..old").mkdir()
    (tmp_path / "..old" / "linked.yaml").write_text("a: 1\n")
    (tmp_path / "..data").symlink_to("..old")
    (tmp_path / "linked.yaml").symlink_to("..data/linked.yaml")
    return tmp_path


async def test_nothing_is_reported_while_nothing_changes(folder: Path) -> None:
    async with _Watched(folder) as watched:
        assert await watched.look(4) == 0
        assert set(watched.clock.waited) == {INTERVAL_SECONDS}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda folder: (folder / "a.yaml").write_text("a: 22\n"), id="written in place"),
        pytest.param(_same_size_and_time, id="written in place with the old length and time"),
        pytest.param(_replace, id="renamed over"),
        pytest.param(lambda folder: (folder / "a.yaml").unlink(), id="removed"),
        pytest.param(lambda folder: (folder / "b.yaml").write_text("b: 1\n"), id="added"),
        pytest.param(lambda folder: (folder / "a.yaml").rename(folder / "b.yaml"), id="renamed"),
        pytest.param(lambda folder: (folder / "a.yaml").rename(folder / ".a.yaml"), id="hidden"),
        pytest.param(_swap_config_map, id="swapped as Kubernetes does"),
        pytest.param(_empty, id="emptied"),
    ],
)
async def test_every_way_of_changing_is_reported_once(folder: Path, change: Step) -> None:
    async with _Watched(folder) as watched:
        assert await watched.look() == 0
        change(folder)
        assert await watched.look() == 0
        assert await watched.look() == 1
        assert await watched.look(3) == 1


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda folder: (folder / ".a.yaml.swp").write_text("x"), id="an editor's own file"),
        pytest.param(lambda folder: (folder / "notes.txt").write_text("x"), id="a file that is no manifest"),
        pytest.param(lambda folder: (folder / "a.yaml").read_text(), id="a file is read"),
    ],
)
async def test_what_is_no_manifest_is_not_reported(folder: Path, change: Step) -> None:
    async with _Watched(folder) as watched:
        change(folder)
        assert await watched.look(4) == 0


async def test_a_file_that_is_still_being_written_is_waited_for(folder: Path) -> None:
    async with _Watched(folder) as watched:
        for length in range(1, 5):
            (folder / "a.yaml").write_text("a: 1\n" * length)
            assert await watched.look() == 0
        assert await watched.look() == 1


async def test_a_change_between_making_the_watcher_and_its_first_look_is_reported(folder: Path) -> None:
    watched = _Watched(folder)
    (folder / "a.yaml").write_text("a: 22\n")
    async with watched:
        assert await watched.look(2) == 1


async def test_a_change_that_is_taken_back_at_once_is_none(folder: Path) -> None:
    async with _Watched(folder) as watched:
        (folder / "a.yaml").rename(folder / "b.yaml")
        await watched.look()
        (folder / "b.yaml").unlink()
        (folder / "a.yaml").write_text("a: 1\n")
        assert await watched.look(2) == 1


async def test_a_folder_that_goes_and_comes_back_is_reported_both_times(folder: Path) -> None:
    async with _Watched(folder) as watched:
        away = folder.with_name(f"{folder.name}-away")
        _move(folder, away)
        assert await watched.look(2) == 1
        _move(away, folder)
        assert await watched.look(2) == 2


async def test_an_edit_is_picked_up_within_a_second(folder: Path) -> None:
    """With the real clock; the deadline is the promise itself."""
    changed = asyncio.Event()
    task = asyncio.create_task(FolderWatcher(folder, changed.set).run())
    await asyncio.wait_for(asyncio.to_thread((folder / "a.yaml").write_text, "a: 22\n"), 1)
    started = time.monotonic()
    await asyncio.wait_for(changed.wait(), 10)
    task.cancel()

    assert time.monotonic() - started < 1
