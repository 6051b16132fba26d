"""The other paths of a file, from mount tables as texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from hopgate.local import mounts
from hopgate.local.mounts import Mount

TABLE = r"""23 28 0:21 / /proc rw,relatime - proc proc rw
28 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 28 0:25 / /run rw - tmpfs tmpfs rw
31 28 254:0 /srv/data /mnt/data rw - ext4 /dev/vda rw
32 28 254:0 / /mnt/whole\040disk rw - ext4 /dev/vda rw
33 28 254:1 / /home rw - ext4 /dev/vdb rw
"""


def test_a_table_gives_device_root_and_point_with_escapes_undone() -> None:
    parsed = mounts.parse(TABLE)
    assert parsed[4] == Mount(device="254:0", root=Path("/"), point=Path("/mnt/whole disk"))
    assert len(parsed) == 6


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/srv/data/state", {"/mnt/data/state", "/mnt/whole disk/srv/data/state"}),
        ("/mnt/data/state", {"/srv/data/state", "/mnt/whole disk/srv/data/state"}),
        ("/srv", {"/mnt/whole disk/srv", "/mnt/data"}),
        ("/srv/other", {"/mnt/whole disk/srv/other"}),
        ("/home/user", set()),
        ("/run/x", set()),
    ],
    ids=["below a second mount", "seen from the second mount", "above one", "beside one", "a disk mounted once", "a tmpfs"],
)
def test_every_other_path_of_a_folder_is_named(path: str, expected: set[str]) -> None:
    assert {str(alias) for alias in mounts.aliases(mounts.parse(TABLE), Path(path))} == expected


@pytest.mark.parametrize("text", ["", "\n", "a b c\n", "28 1 254:0\n"], ids=["nothing", "a line", "words", "cut"])
def test_a_table_that_is_none_gives_no_mounts(text: str) -> None:
    assert mounts.parse(text) == ()
    assert mounts.aliases((), Path("/x")) == ()
