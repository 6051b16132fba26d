"""A data folder without room, or that can't be written: every hop is denied with its own reason, and passes again when there is room."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.end_to_end.conftest import World, build
from tests.end_to_end.gates import HOPGATE, wait
from tests.failures.test_parts import asking

pytestmark = [pytest.mark.root, pytest.mark.envoy]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world whose data folder is a small file system of its own."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    with ExitStack() as stack:
        mount = ("mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(data))
        subprocess.run(mount, check=True)
        stack.callback(subprocess.run, ("umount", "--lazy", str(data)), check=True)
        yield build(tmp_path, stack)


def test_a_full_disk_denies_and_room_allows_again(world: World) -> None:
    filler = world.gate.data / "filler"
    with asking(world.gate) as asker:
        assert asker.ask() == 200
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\0" * 4096):
                pass
        # The page that the segment ends in may have room left for some records.
        wait(lambda: asker.ask() == 403, "there is no room for a record")
        reached = len(world.raw.received)
        # 0: the name asked for could not be recorded either, so it was not answered.
        assert {asker.ask(), asker.ask(), asker.ask()} <= {403, 0}
        assert len(world.raw.received) == reached
        filler.unlink()
        assert asker.ask() == 200
    assert world.gate.status()["counters"]["reason.RecordFailed"] >= 1
    verify = subprocess.run((HOPGATE, "audit", "verify", "--data", str(world.gate.data)), capture_output=True, text=True, check=False)
    assert verify.returncode == 0, verify.stdout


def test_a_read_only_disk_denies_and_a_writable_one_allows_again(world: World) -> None:
    decisions = world.gate.data / "spool" / "decisions"
    decisions.mkdir(parents=True, exist_ok=True)
    subprocess.run(("mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(decisions)), check=True)
    try:
        with asking(world.gate) as asker:
            reached = len(world.raw.received)
            assert [asker.ask(), asker.ask()] == [403, 403]
            assert len(world.raw.received) == reached
            subprocess.run(("umount", str(decisions)), check=True)
            assert asker.ask() == 200
    finally:
        subprocess.run(("umount", str(decisions)), check=False, capture_output=True)
    assert world.gate.status()["counters"]["reason.RecordFailed"] == 2
