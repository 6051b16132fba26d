"""What /proc says of a process: program, user, where it runs, and names that tell of models. No memory of it is read.

Everything is read through one descriptor of /proc/PID, which never becomes another process, and the start time is compared with the
event's: a process id that is used again is never taken for the process that an event was about. Of the environment only the names of
variables that hold keys are kept. What can be known of libraries is what is mapped as a file: native parts of packages are, plain
Python and JavaScript files are not, and a static program shows only itself.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sensor import arguments, containers
from sensor.arguments import CommandLine
from sensor.containers import Placement
from sensor.providers import Package, Providers

PROC: Final = Path("/proc")
_TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
# A read gives a page at least: 4 MiB, beyond what execve takes by default for command line and environment (2 MiB).
_MAX_READS: Final = 1024
_NAME = re.compile(rb"(?:\A|\0)([A-Za-z_][A-Za-z0-9_]*)=")
_PACKAGE_PATH = re.compile(rb"/[^\n]*/(?:site-packages|dist-packages|node_modules)/[^\n]+")
_UID = re.compile(r"^Uid:\s+\d+\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process. `uid` is the effective user's; `user` is empty where no name is known or the name would be another system's.

    `variables` are names only; the script of `command` is an absolute path. `readable`: its program could be read; without the right to
    it only name and user are known.
    """

    process: int
    started_ns: int
    parent: int
    name: str
    executable: str
    command: CommandLine
    uid: int
    user: str
    placement: Placement
    variables: tuple[str, ...]
    packages: tuple[Package, ...]
    readable: bool


class Processes:
    """Reads processes of this machine. `proc` is where the first pid namespace's /proc is mounted."""

    def __init__(self, providers: Providers, proc: Path = PROC) -> None:
        self._providers = providers
        self._proc = proc

    def read(self, process: int, started_ns: int = 0) -> Process | None:
        """The process, or None: it is gone, or another one has its id. `started_ns` is the event's, 0 when it is not known."""
        try:
            folder = os.open(self._proc / str(process), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return self._read(folder, process, started_ns)
        except OSError:
            return None
        finally:
            os.close(folder)

    def running(self) -> Iterator[Process]:
        """Every process that runs a program, this one left out."""
        for entry in (path.name for path in self._proc.iterdir()):
            if entry.isdigit() and int(entry) != os.getpid():
                found = self.read(int(entry))
                if found is not None and (found.executable or found.command.shown):
                    yield found

    def parents(self) -> dict[int, int]:
        """The parent of each process."""
        found = {}
        for entry in (path.name for path in self._proc.iterdir()):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    found[int(entry)] = _stat((self._proc / entry / "stat").read_bytes())[1]
        return found

    def sockets(self, process: int) -> frozenset[int]:
        """The inode numbers of the sockets that a process holds; none when it is gone or may not be looked at."""
        return sockets(process, self._proc)

    def _read(self, folder: int, process: int, started_ns: int) -> Process | None:
        name, parent, began_ns = _stat(_contents(folder, "stat"))
        # The kernel rounds down to ticks; one more for clocks that are read one after the other.
        if started_ns and abs(started_ns - began_ns) > 2 * _TICK_NS:
            return None
        executable, readable = _executable(folder)
        status = _contents(folder, "status").decode("utf-8", "replace")
        found = _UID.search(status)
        uid = int(found[1]) if found else -1
        placement = containers.of_process(_contents(folder, "cgroup").decode("utf-8", "replace"))
        command = self._command(folder, executable or name)
        return Process(
            process=process,
            started_ns=began_ns,
            parent=parent,
            name=name,
            executable=executable,
            command=command,
            uid=uid,
            user="" if placement.container else user_name(uid),
            placement=placement,
            variables=self._variables(folder),
            packages=self._packages(folder, executable, command),
            readable=readable,
        )

    @staticmethod
    def _command(folder: int, executable: str) -> CommandLine:
        text = _contents(folder, "cmdline")
        if not text:
            return CommandLine(shown="")
        words = [os.fsdecode(word) for word in text.rstrip(b"\0").split(b"\0")]
        command = arguments.read(executable, words, functools.partial(_is_file, folder))
        if not command.script or command.script.startswith("/"):
            return command
        # Two scripts of one name in two folders are two programs.
        with contextlib.suppress(OSError):
            return replace(command, script=os.path.normpath(f"{os.readlink('cwd', dir_fd=folder)}/{command.script}"))
        return command

    def _variables(self, folder: int) -> tuple[str, ...]:
        """Names of variables that hold keys, as the program was started with them. The values go when this returns."""
        try:
            names = {found[1].decode() for found in _NAME.finditer(_contents(folder, "environ"))}
        except OSError:
            return ()
        return tuple(sorted(names & self._providers.variables))

    def _packages(self, folder: int, executable: str, command: CommandLine) -> tuple[Package, ...]:
        paths = {executable, command.script}
        if command.script:
            with contextlib.suppress(OSError):
                # Commands of packages are links into the folder of packages.
                paths.add(os.readlink(_inside(command.script), dir_fd=folder))
        if command.module:
            paths.add(f"/site-packages/{command.module.partition('.')[0]}")
        with contextlib.suppress(OSError):
            paths.update(os.fsdecode(path) for path in set(_PACKAGE_PATH.findall(_contents(folder, "maps"))))
        found = {package for path in paths if (package := self._providers.package_of(f"/{path}")) is not None}
        return tuple(sorted(found, key=lambda package: package.name))


def sockets(process: int, proc: Path = PROC) -> frozenset[int]:
    """The inode numbers of the sockets that a process holds; none when it is gone or may not be looked at."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in (proc / str(process) / "fd").iterdir():
            with contextlib.suppress(OSError):
                kind, _, number = str(entry.readlink()).partition(":[")
                if kind == "socket":
                    found.add(int(number.removesuffix("]")))
    return frozenset(found)


@functools.lru_cache(maxsize=1024)
def user_name(uid: int) -> str:
    """The name of a user of this machine; empty when it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return ""


def _stat(text: bytes) -> tuple[str, int, int]:
    """Name, parent and start (nanoseconds since boot) from /proc/PID/stat, whose name may hold spaces and brackets (proc(5))."""
    head, _, rest = text.rpartition(b")")
    fields = rest.split()
    return head.partition(b"(")[2].decode("utf-8", "replace"), int(fields[1]), int(fields[19]) * _TICK_NS


def _executable(folder: int) -> tuple[str, bool]:
    """The path of the program's file, and whether it may be known. Kernel threads have none."""
    try:
        return os.readlink("exe", dir_fd=folder).removesuffix(" (deleted)"), True
    except PermissionError:
        return "", False
    except OSError:
        return "", True


def _inside(path: str) -> str:
    """Where a path of the process is below /proc/PID."""
    return f"root{path}" if path.startswith("/") else f"cwd/{path}"


def _is_file(folder: int, path: str) -> bool:
    try:
        mode = os.stat(_inside(path), dir_fd=folder, follow_symlinks=False).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _contents(folder: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        pieces: list[bytes] = []
        while len(pieces) < _MAX_READS and (piece := os.read(descriptor, 1 << 16)):
            pieces.append(piece)
    finally:
        os.close(descriptor)
    return b"".join(pieces)
