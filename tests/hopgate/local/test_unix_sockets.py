"""Finding the path-based Unix sockets of the machine, with real sockets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hopgate.local import unix_sockets

LISTING = """Num       RefCount Protocol Flags    Type St Inode Path
000000009030c389: 00000003 00000000 00000000 0001 03  1588
00000000ac58d0d9: 00000002 00000000 00010000 0001 01  1600 /run/docker.sock
00000000ac58d0da: 00000002 00000000 00010000 0005 01  1601 /run/a folder/with spaces.sock
00000000ac58d0db: 00000002 00000000 00010000 0001 01  1602 @abstract
00000000ac58d0dc: 00000002 00000000 00010000 0001 01 160300 relative.sock
00000000ac58d0dd: 00000003 00000000 00000000 0001 03  1604 /run/docker.sock
"""


def test_a_listing_gives_paths_with_their_inodes_and_no_abstract_names() -> None:
    assert unix_sockets.parse(LISTING) == {
        "/run/docker.sock": {1600, 1604},
        "/run/a folder/with spaces.sock": {1601},
        "relative.sock": {160300},
    }


@pytest.mark.parametrize("text", ["", "\n\n", "Num RefCount", "zz: 1 2 3", "\0" * 100], ids=["nothing", "lines", "a title", "junk", "NULs"])
def test_a_listing_that_is_none_gives_nothing(text: str) -> None:
    assert unix_sockets.parse(text) == {}


def test_a_bound_socket_is_found_and_a_file_beside_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "with space.sock"))
        found = unix_sockets.bound_paths()
    assert tmp_path / "with space.sock" in found
    assert tmp_path / "file" not in found


def test_a_datagram_socket_is_found(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "log"))
        assert tmp_path / "log" in unix_sockets.bound_paths()


def test_a_socket_whose_path_is_gone_is_left_out(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "gone.sock"))
        (tmp_path / "gone.sock").unlink()
        assert tmp_path / "gone.sock" not in unix_sockets.bound_paths()


@pytest.mark.parametrize("wrapper", [[], ["unshare", "--net"]], ids=["this network namespace", "another network namespace"])
@pytest.mark.root
def test_a_socket_bound_by_a_relative_name_is_found_where_it_is(tmp_path: Path, wrapper: list[str]) -> None:
    script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.bind('here.sock'); print('bound', flush=True); sys.stdin.read()"
    command = [*wrapper, sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "bound\n"
        found = unix_sockets.bound_paths()
        holder.communicate()
    assert tmp_path / "here.sock" in found


def test_a_link_to_a_socket_is_one_and_a_link_to_nothing_is_not(tmp_path: Path) -> None:
    (tmp_path / "nothing").symlink_to(tmp_path / "absent")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "real.sock"))
        (tmp_path / "link").symlink_to(tmp_path / "real.sock")
        assert unix_sockets.is_socket(tmp_path / "link")
    assert not unix_sockets.is_socket(tmp_path / "nothing")


def test_a_path_that_no_system_call_takes_is_no_socket() -> None:
    assert not unix_sockets.is_socket(Path("/a\0b"))
    assert not unix_sockets.is_socket(Path("/" + "x" * os.pathconf("/", "PC_NAME_MAX") * 2))
