"""What a governed program sees of the machine's files, as a value, and the same as bubblewrap's arguments.

Files stay where they are, except: the folders where other programs keep their sockets (/run, /tmp) are empty ones of its own,
sockets elsewhere are masked, the gate's own folders are hidden, /dev and /proc are its own, and what steers the kernel is
read-only. For uid 0, which owns the machine's files even without capabilities, the rest is read-only too, but for the working
directory and the home folder.

`plan` reads the file system, decides, and changes nothing. What would open more than was asked for is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hopgate.local import mounts as mount_table
from hopgate.local import unix_sockets
from hopgate.local.errors import PathRefusedError
from hopgate.local.mounts import Mount
from hopgate.local.rights import Account

# Where programs keep sockets and other meeting points; /var/run is a link to /run wherever it is no folder of its own.
_MEETING_PLACES: Final = (Path("/run"), Path("/tmp"), Path("/var/run"))  # noqa: S108 - it is covered, not written to
_KERNEL_PLACES: Final = (Path("/proc"), Path("/sys"))
_DEVICES: Final = Path("/dev")
# Of /proc, what is the machine's and not a process's. Its files belong to uid 0, who needs no capability to write them:
# core_pattern names a program that the kernel runs outside of any sandbox.
_PROC_READ_ONLY: Final = ("acpi", "bus", "driver", "fs", "irq", "mtrr", "scsi", "sys", "sysrq-trigger")
# Writing here makes something run outside the sandbox: a working directory of uid 0 that is (above) one of these stays read-only.
_SYSTEM_FOLDERS: Final = tuple(Path(folder) for folder in ("/etc", "/boot", "/usr", "/var/spool", "/var/lib", "/bin", "/sbin", "/lib"))
_SCRATCH_OF_ROOT: Final = Path("/var/tmp")  # noqa: S108 - it is covered, not written to


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All paths are absolute and resolved. `binds` are those that open what would else be covered: given, or found to be needed.

    `writable` are the folders of uid 0 that are not read-only (None: the whole root is as it is outside). `masked` are sockets.
    """

    writable: tuple[Path, ...] | None
    covered: tuple[Path, ...]
    binds: tuple[Path, ...]
    masked: tuple[Path, ...]
    hidden: tuple[Path, ...]
    sockets: tuple[Path, ...]

    def shows(self, path: Path) -> bool:
        """Whether what is at `path` (absolute, resolved) outside is there inside."""
        if _inside(path, self.hidden):
            return False
        return _inside(path, self.binds) or not _inside(path, (*self.covered, _DEVICES, *_KERNEL_PLACES))


def plan(
    *,
    account: Account,
    working_directory: Path,
    binds: Iterable[Path],
    hidden: Iterable[Path],
    allow_sockets: Iterable[Path],
    bound_sockets: Sequence[Path],
    mounts: tuple[Mount, ...],
) -> View:
    """The view of a program. Raises PathRefusedError, which names the path and what to do instead.

    `bound_sockets` are the machine's, `mounts` its mount table: what is hidden or masked is so at every path that shows it.
    """
    secret = _hidden(hidden, mounts)
    covered = _covered(account)
    given = tuple(_bind(working_directory / path, secret) for path in binds)
    given += _restored(account, working_directory, covered, given, secret)
    sockets = tuple(_socket(working_directory / path, secret) for path in allow_sockets)
    view = View(
        writable=None if account.uid != 0 else _writable(account, working_directory, covered),
        covered=covered,
        binds=_outermost_first(given),
        masked=(),
        hidden=tuple(path for path in secret if _inside(path, given) or not _inside(path, covered)),
        sockets=sockets,
    )
    everywhere = {alias for path in bound_sockets for alias in (path, *mount_table.aliases(mounts, path))}
    masked = (path for path in everywhere - set(sockets) if view.shows(path) and unix_sockets.is_socket(path))
    return View(
        writable=view.writable, covered=covered, binds=view.binds, masked=tuple(sorted(masked)), hidden=view.hidden, sockets=sockets
    )


def arguments(view: View) -> list[str]:
    """bubblewrap's arguments for `view`. Each mount covers those before it, so the order is the rule: hidden comes after every bind."""
    made = [
        "--bind" if view.writable is None else "--ro-bind",
        "/",
        "/",
        "--dev",
        str(_DEVICES),
        "--proc",
        "/proc",
        "--ro-bind",
        "/sys",
        "/sys",
    ]
    for name in _PROC_READ_ONLY:
        made += _same("--ro-bind-try", Path("/proc") / name)
    for place in view.covered:
        made += ["--perms", "0755" if place.name == "run" else "1777", "--tmpfs", str(place)]
    for folder in view.writable or ():
        made += _same("--bind", folder)
    for path in view.binds:
        made += [*way_to(view, path), *_same("--dev-bind" if path.is_relative_to(_DEVICES) else "--bind", path)]
    for path in view.masked:
        made += ["--ro-bind", "/dev/null", str(path)]
    for path in view.hidden:
        made += ["--perms", "0000", "--tmpfs", str(path), "--remount-ro", str(path)]
    for path in view.sockets:
        made += [*way_to(view, path), *_same("--bind", path)]
    return made


def way_to(view: View, path: Path) -> list[str]:
    """Arguments that make the folders above `path` where a covered place has none: bubblewrap's own would be closed to others."""
    above = [folder for folder in reversed(path.parents) if any(place in folder.parents for place in view.covered)]
    return [argument for folder in above if not _inside(folder, view.binds) for argument in ("--perms", "0755", "--dir", str(folder))]


def _same(option: str, path: Path) -> list[str]:
    return [option, str(path), str(path)]


def _inside(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _outermost_first(paths: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(sorted(set(paths), key=lambda path: (len(path.parts), path)))


def _hidden(folders: Iterable[Path], mounts: tuple[Mount, ...]) -> tuple[Path, ...]:
    """Those that exist, at every path that shows them. A folder that is not there is not made: it would be made outside as well."""
    there = [folder.resolve() for folder in folders if folder.is_dir()]
    found = {shown for folder in there for shown in (folder, *mount_table.aliases(mounts, folder)) if shown.is_dir()}
    return _outermost_first(path for path in found if not _inside(path, found - {path}))


def _covered(account: Account) -> tuple[Path, ...]:
    places = [place for place in _MEETING_PLACES if place.is_dir() and not place.is_symlink()]
    if account.uid == 0 and _SCRATCH_OF_ROOT.is_dir():
        places.append(_SCRATCH_OF_ROOT)  # the real one is read-only for uid 0, and programs expect to write there
    return tuple(places)


def _bind(path: Path, hidden: tuple[Path, ...]) -> Path:
    resolved = path.resolve()
    if not resolved.exists():
        raise PathRefusedError(f"expected `{path}` to exist, to bind it into the sandbox", remedy="name a path that exists with --bind")
    if resolved in (Path("/"), _DEVICES) or _inside(resolved, _KERNEL_PLACES):
        raise PathRefusedError(
            f"`{path}` is not bound into the sandbox: it would undo /dev, /proc and /sys",
            remedy="name the one folder or device that is needed",
        )
    if _inside(resolved, hidden):
        raise PathRefusedError(
            f"`{path}` is not bound into the sandbox: it is in a folder of the gate, which no agent may see",
            remedy="keep what agents use out of the data folder and the folder of resources",
        )
    return resolved


def _restored(
    account: Account, working_directory: Path, covered: tuple[Path, ...], binds: tuple[Path, ...], hidden: tuple[Path, ...]
) -> tuple[Path, ...]:
    """The working directory and the home folder, where a covered place would hide them."""
    current = working_directory.resolve()
    if not current.is_dir():
        raise PathRefusedError(f"expected the working directory `{working_directory}` to be a folder", remedy="start from one that exists")
    if _inside(current, hidden):
        raise PathRefusedError(
            f"the working directory `{working_directory}` is in a folder of the gate, which no agent may see",
            remedy="start from another folder; keep the program out of the data folder and the folder of resources",
        )
    if current in covered and not _inside(current, binds):
        raise PathRefusedError(
            f"the working directory `{working_directory}` is where other programs keep their sockets, so the sandbox has an empty one",
            remedy=f"start from a folder of your own, or open it with `--bind {current}`",
        )
    home = account.home.resolve()
    wanted = [current]
    if home.is_dir() and home not in covered and not _inside(home, hidden):
        wanted.append(home)
    return tuple(path for path in wanted if _inside(path, covered) and not _inside(path, binds))


def _writable(account: Account, working_directory: Path, covered: tuple[Path, ...]) -> tuple[Path, ...]:
    wanted = (working_directory.resolve(), account.home.resolve())
    return _outermost_first(path for path in wanted if path.is_dir() and not _steers_the_machine(path) and not _inside(path, covered))


def _steers_the_machine(path: Path) -> bool:
    """Whether `path` is a system folder, or in one, or above one."""
    places = (*_SYSTEM_FOLDERS, *_KERNEL_PLACES, _DEVICES)
    return _inside(path, places) or any(place.is_relative_to(path) for place in places)


def _socket(path: Path, hidden: tuple[Path, ...]) -> Path:
    resolved = path.resolve()
    if not unix_sockets.is_socket(resolved):
        raise PathRefusedError(
            f"expected `{path}` to be a Unix socket, to open it to the program", remedy="name a socket with --allow-socket"
        )
    if _inside(resolved, hidden):
        raise PathRefusedError(
            f"`{path}` is not opened to the program: it is in a folder of the gate, which no agent may see", remedy="leave it out"
        )
    return resolved
