"""The folders of a gate: the data folder, which stays, and the run folder, which lives as long as the gate.

Run folders are below one root of the machine, since the path of a Unix socket may have 107 bytes at most. A gate holds
a lock in its own; a folder whose lock nobody holds belongs to a gate that was killed, and the next start clears it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hopgate.local import cgroups
from hopgate.local.cgroups import Cgroup
from hopgate.local.errors import LocalError

RUN_ROOT = Path("/run/hopgate")
SHARED_GATE = "up"
AUTHZ_SOCKET = "authz.sock"
# names the folder's cgroup, by its path
_CGROUP = "cgroup"


class FolderError(LocalError):
    """A folder of the gate that others could read or that is in use."""

    code = "FolderUnusable"


def open_data(folder: Path) -> Path:
    """The data folder, made when absent, private to its owner. Raises FolderError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise FolderError(
            f"expected the data folder `{folder}` to be private to user {os.geteuid()}, "
            f"got owner {status.st_uid} and mode {stat.S_IMODE(status.st_mode):04o}",
            remedy=f"run `chown {os.geteuid()} {folder} && chmod 700 {folder}`, or name another with --data",
        )
    return folder.resolve()


def run_base(data: Path) -> Path:
    """Where the run folders of all gates of one data folder are."""
    return RUN_ROOT / hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """A gate's run folder, held by the lock `descriptor` until `remove`."""

    path: Path
    descriptor: int

    @property
    def control(self) -> Path:
        """Where `hopgate run` and `hopgate status` reach the gate."""
        return self.path / "control.sock"

    @property
    def authz(self) -> Path:
        """Where Envoy reaches authz."""
        return self.path / AUTHZ_SOCKET

    @property
    def certificates(self) -> Path:
        """Where Envoy reaches the certificate server."""
        return self.path / "certificates.sock"

    def make_cgroup(self) -> Cgroup | None:
        """A cgroup that goes with this folder; None where none can be made. At most one for each folder."""
        made = cgroups.make(f"hopgate-{self.path.parent.name}-{self.path.name}")
        if made is not None:
            (self.path / _CGROUP).write_text(str(made.path), encoding="utf-8")
        return made

    def remove(self) -> None:
        """Take the folder away and let go of its lock."""
        with _only_one():
            _remove(self.path)
            with contextlib.suppress(OSError):
                self.path.parent.rmdir()  # the last one of this data folder
        os.close(self.descriptor)


def open_run(data: Path, name: str) -> RunFolder:
    """Make and lock the run folder `name`, clearing what killed gates left, of any data folder. Raises FolderError when it is in use."""
    base = run_base(data)
    with _only_one():
        _clear()
        base.mkdir(mode=0o700, exist_ok=True)
        path = base / name
        path.mkdir(mode=0o700, exist_ok=True)
        descriptor = _lock(path)
    if descriptor is None:
        raise FolderError(f"a gate for `{data}` is running already", remedy="use it, or stop it first; `hopgate status` shows it")
    return RunFolder(path=path, descriptor=descriptor)


def live(data: Path) -> Iterator[Path]:
    """The control sockets of the gates that run for this data folder, the shared one first."""
    base = run_base(data)
    if not base.is_dir():
        return
    with _only_one():
        abandoned = set(_abandoned(base)) if base.is_dir() else set()
        found = _folders(base) if base.is_dir() else []
    for path in sorted(found, key=lambda found: (found.name != SHARED_GATE, found.name)):
        if path not in abandoned and (path / "control.sock").exists():
            yield path / "control.sock"


@contextlib.contextmanager
def _only_one() -> Iterator[None]:
    """Held while folders are made or looked through, so that one just made is not taken for one left behind."""
    RUN_ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(RUN_ROOT / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _clear() -> None:
    """Take away every run folder whose gate is gone."""
    for base in _folders(RUN_ROOT):
        for left in _abandoned(base):
            _remove(left)
        with contextlib.suppress(OSError):
            base.rmdir()  # only where it is empty


def _remove(folder: Path) -> None:
    """Take a run folder away with its cgroup. While a process is in that, what names it stays, for the next start to clear."""
    cgroup = folder / _CGROUP
    if not cgroup.exists() or cgroups.remove(Path(cgroup.read_text(encoding="utf-8"))):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for left in folder.iterdir():
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        elif left != cgroup:
            left.unlink(missing_ok=True)


def _folders(base: Path) -> list[Path]:
    return [path for path in base.iterdir() if path.is_dir()]


def _abandoned(base: Path) -> list[Path]:
    found = []
    for path in _folders(base):
        descriptor = _lock(path)
        if descriptor is not None:
            os.close(descriptor)
            found.append(path)
    return found


def _lock(path: Path) -> int | None:
    """The lock's descriptor, or None while a living process holds it."""
    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
