"""What is planned for a program to see. That bubblewrap makes it so is shown in test_sandbox.py."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from hopgate.local import mounts, view
from hopgate.local.errors import PathRefusedError
from hopgate.local.rights import Account
from hopgate.local.view import View


@pytest.fixture
def home() -> Iterator[Path]:
    with TemporaryDirectory(dir="/srv", prefix="hopgate-test-") as folder:
        (Path(folder) / "state").mkdir()
        yield Path(folder)


def planned(home: Path, uid: int = 65534, **given: tuple[Path, ...] | Path) -> View:
    arguments = {"working_directory": home, "binds": (), "hidden": (), "allow_sockets": (), "bound_sockets": (), **given}
    account = Account(uid=uid, gid=uid, name="someone", home=home, shell="/bin/sh")
    return view.plan(account=account, mounts=mounts.parse(Path("/proc/self/mountinfo").read_text(encoding="utf-8")), **arguments)  # type: ignore[arg-type]  # one dictionary of differently typed arguments


def test_an_ordinary_users_files_stay_writable_and_uid_0_has_two_writable_folders(home: Path) -> None:
    assert planned(home).writable is None
    assert planned(home, uid=0).writable == (home,)


@pytest.mark.parametrize("folder", ["/", "/etc", "/usr/lib", "/var", "/var/lib", "/boot"])
def test_a_system_folder_is_not_writable_for_uid_0_because_it_is_the_working_directory(home: Path, folder: str) -> None:
    assert planned(home, uid=0, working_directory=Path(folder)).writable == (home,)


def test_a_system_folder_is_writable_for_uid_0_when_it_is_bound(home: Path) -> None:
    assert planned(home, uid=0, working_directory=Path("/etc"), binds=(Path("/etc"),)).binds == (Path("/etc"),)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/etc/hosts", True),
        ("/usr/bin/env", True),
        ("/run/x", False),
        ("/tmp/x", False),
        ("/proc/1", False),
        ("/sys/x", False),
        ("/dev/x", False),
    ],
)
def test_the_meeting_places_and_the_kernels_are_not_shown(home: Path, path: str, *, shown: bool) -> None:
    assert planned(home).shows(Path(path)) is shown


def test_a_bind_is_shown_and_what_is_hidden_in_it_is_not(home: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    found = planned(home, binds=(tmp_path,), hidden=(tmp_path / "data", home / "state"))
    assert found.shows(tmp_path / "file")
    assert not found.shows(tmp_path / "data" / "file")
    assert not found.shows(home / "state" / "file")
    assert set(found.hidden) == {tmp_path / "data", home / "state"}


def test_a_hidden_folder_in_a_covered_place_needs_no_cover_of_its_own(home: Path, tmp_path: Path) -> None:
    assert planned(home, hidden=(tmp_path,)).hidden == ()


def test_a_hidden_folder_that_does_not_exist_is_not_made(home: Path) -> None:
    assert planned(home, hidden=(home / "absent",)).hidden == ()


def test_hidden_comes_after_every_bind_so_that_none_undoes_it(home: Path) -> None:
    made = view.arguments(planned(home, binds=(home,), hidden=(home / "state",)))
    assert made.index("--remount-ro") > max(at for at, word in enumerate(made) if word == "--bind")


def test_sockets_are_masked_where_they_are_shown_unless_they_are_allowed(home: Path, tmp_path: Path) -> None:
    places = (home / "one.sock", home / "two.sock", tmp_path / "three.sock")
    listeners = [socket.socket(socket.AF_UNIX) for _ in places]
    for listener, path in zip(listeners, places, strict=True):
        listener.bind(str(path))
    found = planned(home, bound_sockets=places, allow_sockets=(home / "two.sock",))
    for listener in listeners:
        listener.close()
    assert found.masked == (home / "one.sock",)
    assert found.sockets == (home / "two.sock",)


def test_a_link_is_followed_before_it_is_judged(home: Path) -> None:
    (home / "link").symlink_to(home / "state")
    with pytest.raises(PathRefusedError, match="folder of the gate"):
        planned(home, binds=(home / "link",), hidden=(home / "state",))
    assert planned(home, binds=(home / "link",)).binds == (home / "state",)


def test_a_relative_bind_is_below_the_working_directory(home: Path) -> None:
    assert planned(home, binds=(Path("state"),)).binds == (home / "state",)


@pytest.mark.parametrize("path", ["/", "/dev", "/proc", "/proc/sys", "/sys", "/sys/fs/cgroup"])
def test_a_bind_that_would_undo_the_sandbox_is_refused(home: Path, path: str) -> None:
    with pytest.raises(PathRefusedError, match=f"`{path}`"):
        planned(home, binds=(Path(path),))


def test_one_device_may_be_bound_and_is_usable_as_a_device(home: Path) -> None:
    made = view.arguments(planned(home, binds=(Path("/dev/full"),)))
    assert made[made.index("--dev-bind") :][:3] == ["--dev-bind", "/dev/full", "/dev/full"]


def test_a_home_below_a_covered_place_is_bound_back(home: Path, tmp_path: Path) -> None:
    account = Account(uid=65534, gid=65534, name="someone", home=tmp_path, shell="/bin/sh")
    found = view.plan(account=account, working_directory=home, binds=(), hidden=(), allow_sockets=(), bound_sockets=(), mounts=())
    assert found.binds == (tmp_path,)


def test_an_allowed_socket_in_a_hidden_folder_is_refused(home: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(home / "state" / "control.sock"))
        with pytest.raises(PathRefusedError, match="folder of the gate"):
            planned(home, hidden=(home / "state",), allow_sockets=(home / "state" / "control.sock",))
