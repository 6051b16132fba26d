"""A record counts when it is there whole; whatever fails, the chain is whole afterwards and goes on."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hopgate.audit import chain, verify
from hopgate.audit.errors import SpoolError
from hopgate.audit.spool import Durability
from tests.hopgate.audit import samples

WRITE_FOR_EVER = """
import sys, time
from pathlib import Path
from hopgate.audit.records import Name
from hopgate.audit.spool import Durability, Spool
spool = Spool(Path(sys.argv[1]), sys.argv[2], clock=time.time, durability=Durability.WRITE, segment_bytes=20_000)
count = int(sys.argv[3])
number = 0
while number != count:
    spool.append(Name(id="i" * 32, time=number, agent="demo/a", name="x" * 60, type="A", answer="NoData", transport="UDP"))
    number += 1
    if number == 100:
        print("writing", flush=True)
"""


def writer(folder: Path, name: str, count: int) -> subprocess.Popen[str]:
    """A process that writes `count` records (negative: for ever) and says so once it has written a hundred."""
    command = [sys.executable, "-c", WRITE_FOR_EVER, str(folder), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)


def sequences(folder: Path, name: str = samples.WRITER, table: str = "decisions") -> list[int]:
    """The sequence numbers of a writer in the order of its files."""
    lines = b"".join(path.read_bytes() for path in sorted((folder / table).glob(f"{name}-*.jsonl"))).splitlines()
    links = [chain.decode(line) for line in lines]
    return [found.sequence for found in links if found is not None]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_is_private_to_its_owner_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        [path] = samples.written(tmp_path / "spool", 1)
    finally:
        os.umask(before)
    assert [oct(mode(found)) for found in (tmp_path / "spool", path.parent, path)] == ["0o700", "0o700", "0o600"]


def test_each_table_has_its_own_chain(tmp_path: Path) -> None:
    spool = samples.spool(tmp_path)
    for record in (samples.decision(), samples.name(), samples.change(), samples.name(1)):
        spool.append(record)
    spool.close()
    assert [sequences(tmp_path, table=table) for table in ("decisions", "names", "changes")] == [[0], [0, 1], [0]]
    assert not verify.verify(tmp_path).faults


def test_a_segment_that_is_full_is_followed_by_another(tmp_path: Path) -> None:
    segments = samples.written(tmp_path, 6, segment_bytes=2000)
    assert len(segments) > 1
    assert all(path.stat().st_size >= 2000 for path in segments[:-1])
    assert [path.name for path in segments] == [f"authz-1-{number:06d}.jsonl" for number in range(1, len(segments) + 1)]
    assert not verify.verify(tmp_path).faults


@pytest.mark.parametrize(("age", "segments"), [(59.9, 1), (60.0, 2)], ids=["younger than its age", "of its age"])
def test_a_segment_is_left_at_its_age(tmp_path: Path, age: float, segments: int) -> None:
    now = 1000.0
    spool = samples.spool(tmp_path, clock=lambda: now, segment_seconds=60)
    spool.append(samples.decision(0))
    now += age
    spool.append(samples.decision(1))
    spool.close()
    assert len(list((tmp_path / "decisions").iterdir())) == segments
    assert not verify.verify(tmp_path).faults


def test_never_writes_into_a_file_that_is_there(tmp_path: Path) -> None:
    [path] = samples.written(tmp_path, 1)
    held = path.read_bytes()
    with pytest.raises(SpoolError):
        samples.spool(tmp_path).append(samples.decision())
    assert path.read_bytes() == held


@pytest.mark.parametrize("name", ["", "a/b", "..", "a_b", "A", "a\n", "a" * 101], ids=repr)
def test_refuses_a_writers_name_that_could_lead_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="expected a writer's name"):
        samples.spool(tmp_path, name)


def test_threads_share_one_chain(tmp_path: Path) -> None:
    spool = samples.spool(tmp_path, segment_bytes=5000)

    def write() -> None:
        for number in range(50):
            spool.append(samples.decision(number))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spool.close()
    found = verify.verify(tmp_path)
    assert (found.records, found.faults) == (200, ())


def test_processes_write_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    running = [writer(tmp_path / "spool", f"w-{number}", 500) for number in range(3)]
    for process in running:
        process.communicate(timeout=60)
    assert [process.returncode for process in running] == [0, 0, 0]
    found = verify.verify(tmp_path / "spool")
    assert (found.records, found.writers, found.faults) == (1500, 3, ())


def test_a_killed_writer_leaves_whole_records(tmp_path: Path) -> None:
    process = writer(tmp_path, "killed", -1)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    found = verify.verify(tmp_path)
    assert found.records >= 100
    assert not found.faults


def test_a_record_that_did_not_reach_the_disk_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = samples.spool(tmp_path, durability=Durability.FSYNC)
    spool.append(samples.decision(0))

    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fails)
        with pytest.raises(SpoolError, match="Input/output error"):
            spool.append(samples.decision(1))
    spool.append(samples.decision(2))
    spool.close()
    assert sequences(tmp_path) == [0, 1]
    assert not verify.verify(tmp_path).faults


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, *, but: int) -> Path:
    """Take all room of a disk but some bytes; the file that does."""
    room = os.statvfs(disk)
    path = disk / "filler"
    path.write_bytes(b"x" * (room.f_bavail * room.f_frsize - but))
    return path


@pytest.mark.root
def test_a_full_disk_costs_no_link_of_the_chain(small_disk: Path) -> None:
    spool = samples.spool(small_disk)
    spool.append(samples.decision(0))
    filler = fill(small_disk, but=8192)
    before = 1
    with pytest.raises(SpoolError, match=r"No space left|no room"):  # noqa: PT012 - as many as fit, then the one that does not
        while True:
            spool.append(samples.decision(before, message="m" * 900))
            before += 1
    assert before > 3
    with pytest.raises(SpoolError):
        spool.append(samples.decision(before, message="m" * 9000))
    assert sequences(small_disk) == list(range(before))
    assert not verify.verify(small_disk).faults
    filler.unlink()
    spool.append(samples.decision(before))
    spool.close()
    assert sequences(small_disk) == list(range(before + 1))
    assert not verify.verify(small_disk).faults


@pytest.mark.root
def test_the_first_record_on_a_full_disk_is_refused_and_the_second_is_the_first(small_disk: Path) -> None:
    spool = samples.spool(small_disk)
    filler = fill(small_disk, but=0)
    for _ in range(3):
        with pytest.raises(SpoolError):
            spool.append(samples.decision(0))
    filler.unlink()
    spool.append(samples.decision(1))
    spool.close()
    assert sequences(small_disk) == [0]
    assert not verify.verify(small_disk).faults


@pytest.mark.root
def test_a_disk_that_became_read_only_costs_no_link_of_the_chain(small_disk: Path) -> None:
    spool = samples.spool(small_disk)
    spool.append(samples.decision(0))
    spool.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(SpoolError, match="Read-only file system"):
        spool.append(samples.decision(1))
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    spool.append(samples.decision(2))
    spool.close()
    assert sequences(small_disk) == [0, 1]
    assert not verify.verify(small_disk).faults
