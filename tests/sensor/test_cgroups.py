"""Cgroups by their id, on the machine's own hierarchy."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sensor import cgroups
from sensor.cgroups import Cgroups


@pytest.fixture
def mount() -> Path:
    found = cgroups.find()
    if found is None or os.geteuid() != 0:
        pytest.skip("needs root and cgroup2")
    return found.mount


@pytest.fixture
def group(mount: Path) -> Iterator[Path]:
    """A cgroup of the test's own."""
    made = mount / f"hopgate-test-{uuid.uuid4().hex}"
    made.mkdir()
    yield made
    if made.exists():
        made.rmdir()


@pytest.mark.root
def test_an_id_is_a_path(mount: Path, group: Path) -> None:
    with Cgroups(mount) as known:
        assert known.path(group.stat().st_ino) == f"/{group.name}"
        assert known.path(mount.stat().st_ino) == "/"


@pytest.mark.root
def test_a_path_that_was_asked_for_stays_known_and_another_does_not(mount: Path, group: Path) -> None:
    number = group.stat().st_ino
    with Cgroups(mount) as known, Cgroups(mount) as late:
        assert known.path(number)
        group.rmdir()
        assert known.path(number) == f"/{group.name}"
        assert late.path(number) == ""


@pytest.mark.root
def test_an_id_that_never_was_is_no_path(mount: Path) -> None:
    with Cgroups(mount) as known:
        assert known.path(2**62) == ""


def written(folder: Path, mountinfo: str, cgroup: str) -> Path:
    (folder / "mountinfo").write_text(mountinfo, encoding="utf-8")
    (folder / "cgroup").write_text(cgroup, encoding="utf-8")
    return folder


UNIFIED = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
BESIDE = "30 25 0:26 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n"
OLD = "31 25 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"


def test_the_hierarchy_is_found_and_a_hybrid_one_told(tmp_path: Path) -> None:
    found = cgroups.find(written(tmp_path, OLD + BESIDE, "1:cpu:/\n0::/\n"))
    assert found is not None
    assert (str(found.mount), found.hybrid) == ("/sys/fs/cgroup/unified", True)
    found = cgroups.find(written(tmp_path, UNIFIED, "0::/init.scope\n"))
    assert found is not None
    assert (str(found.mount), found.hybrid) == ("/sys/fs/cgroup", False)
    assert cgroups.find(written(tmp_path, OLD, "1:cpu:/\n")) is None
