"""The sandbox of `hopgate run`: made by bubblewrap, entered by the program, ended with it.

bubblewrap makes the namespaces and the view of the files, and keeps them with one process that only waits (`cat` on a pipe). The
network namespace is plugged meanwhile. `release` lets a child of this process enter and become the program, as the calling user
and without any right. When this process ends, however it ends, the kernel ends the keeper and with it everything inside.

It refuses to start a program whose standard streams lead out, whose command is not there inside, or whose working directory
is one of the gate's.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import select
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hopgate import kernel
from hopgate.local import environment, mounts, seccomp, unix_sockets, view
from hopgate.local.cgroups import Cgroup
from hopgate.local.entry import Entry
from hopgate.local.errors import CommandError, DescriptorError, SandboxError
from hopgate.local.rights import Account
from hopgate.local.view import View

# It takes some milliseconds; a machine that swaps may need very many of them.
_SETUP_SECONDS: Final = 20.0
# In no subnet of the program's own, so that a question to it takes the way of every hop (and is no loopback address).
RESOLVER_ADDRESS: Final = "192.0.2.1"
# The memory devices of linux/major.h: null, zero, full, random
_MEMORY_DEVICES: Final = 1
_NAMESPACES: Final = (
    ("net", kernel.CLONE_NEWNET),
    ("ipc", kernel.CLONE_NEWIPC),
    ("uts", kernel.CLONE_NEWUTS),
    ("mnt", kernel.CLONE_NEWNS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """What runs, as whom, and what of the machine it sees.

    `hidden` folders are not reachable by any path. `binds` and `allow_sockets` are opened, relative ones from the working directory.
    `inside` is a folder of the gate's files, readable by everyone, and where the program sees it; `spawn` adds the resolver's files.
    HOME, USER, LOGNAME, SHELL and PWD follow `account` and `working_directory`, whatever `environment` says. `cgroup` is the program's own.
    """

    command: tuple[str, ...]
    working_directory: Path
    account: Account
    environment: Mapping[str, str]
    hidden: tuple[Path, ...]
    binds: tuple[Path, ...]
    allow_sockets: tuple[Path, ...]
    inside: tuple[Path, Path]
    cgroup: Cgroup | None = None


class SandboxProcess:
    """A sandbox and, once released, the program in it. Not for use by several threads at a time.

    `pid` is the sandbox's own first process, whose /proc/PID/ns/net is to be plugged; `binds` are what is opened to the program,
    given or found to be needed. The sandbox ends when the thread that spawned it ends.
    """

    def __init__(self, spec: SandboxSpec, view: View, keeper: subprocess.Popen[bytes], pid: int) -> None:
        self.pid = pid
        self.binds = view.binds
        self._spec = spec
        self._view = view
        self._keeper = keeper
        self._first = os.pidfd_open(pid)
        self._program: subprocess.Popen[bytes] | None = None
        self._early_signals: list[int] = []
        self._foreground = _foreground_terminal()

    @property
    def program_pid(self) -> int | None:
        """The program's process id as this machine sees it, None before `release`."""
        return None if self._program is None else self._program.pid

    def release(self) -> None:
        """Let the program begin. Raises SandboxError when the sandbox was not made, CommandError when the command can't be executed."""
        _await_keeper(self._keeper)
        report, told = os.pipe()
        try:
            with contextlib.ExitStack() as opened, _children_in(self.pid):
                entry = self._entry(opened, told)
                self._program = subprocess.Popen(
                    self._spec.command,
                    stdin=_stream(0),
                    stdout=_stream(1),
                    stderr=_stream(2),
                    env=_variables(self._spec),
                    preexec_fn=entry,  # noqa: PLW1509 - namespaces and rights can change only between fork and exec
                )
        except subprocess.SubprocessError as error:
            os.set_blocking(report, False)
            raise SandboxError(f"could not {_read(report)}", remedy="see that the program's user may do that") from error
        except OSError as error:
            raise _command_error(self._spec.command[0], self._view, error) from error
        finally:
            os.close(report)
            os.close(told)
        for signum in self._early_signals:
            self._program.send_signal(signum)

    def signal(self, signum: int) -> None:
        """Send a signal to the program itself, at the latest when it begins; after its end there is nobody to get it.

        Called from a signal handler, which can run between the program's first instruction and `release` knowing its process.
        """
        if self._program is None:
            self._early_signals.append(signum)
        else:
            self._program.send_signal(signum)

    def wait(self) -> int:
        """Wait for the program's end and end the sandbox. Its exit code, or minus the signal that ended it."""
        if self._program is None:
            raise SandboxError("the program was not released", remedy="release it before waiting for it")
        code = self._program.wait()
        self.kill()
        if self._foreground is not None:
            _take_terminal(self._foreground)
        return code

    def kill(self) -> None:
        """End the program and everything that it started, and wait until nothing is left. May be called again."""
        if self._first < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._first, signal.SIGKILL)
        os.close(self._first)
        self._first = -1
        if self._program is not None:
            self._program.wait()
        _end(self._keeper)

    def _entry(self, opened: contextlib.ExitStack, report: int) -> Entry:
        account = self._spec.account
        namespaces = tuple((_opened(opened, f"/proc/{self.pid}/ns/{name}"), kind) for name, kind in _NAMESPACES)
        cgroup = None if self._spec.cgroup is None else _opened(opened, str(self._spec.cgroup.processes), os.O_WRONLY)
        return Entry(
            namespaces=namespaces,
            cgroup=cgroup,
            uid=account.uid,
            gid=account.gid,
            groups=tuple(os.getgrouplist(account.name, account.gid)),
            working_directory=self._spec.working_directory.resolve(),
            seccomp=seccomp.program(platform.machine()),
            report=report,
        )


def spawn(spec: SandboxSpec) -> SandboxProcess:
    """Make the sandbox; nothing of the program runs before `release`. Raises SandboxError (see errors.py for its kinds)."""
    _require_harmless_streams()
    seen = view.plan(
        account=spec.account,
        working_directory=spec.working_directory,
        binds=spec.binds,
        hidden=spec.hidden,
        allow_sockets=spec.allow_sockets,
        bound_sockets=unix_sockets.bound_paths(),
        mounts=mounts.parse(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")),
    )
    _require_visible(spec, seen)
    names = _name_files(spec.inside[0], seen)
    told, tell = os.pipe()
    filtered = _filter_descriptor()
    try:
        options = [*view.arguments(seen), *_terminal(), "--ro-bind", *map(str, spec.inside), *names, *_isolation(tell, filtered)]
        keeper = subprocess.Popen(
            [_tool("bwrap"), *options, "--", _tool("cat")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(tell, filtered),
            env={"LC_ALL": "C"},
            start_new_session=True,  # the terminal and its signals are for the program alone
        )
    finally:
        os.close(tell)
        os.close(filtered)
    try:
        process = SandboxProcess(spec, seen, keeper, _first_process(told, keeper))
        # bubblewrap brings up loopback itself and fails when somebody else does so meanwhile: nobody plugs before it is done.
        _await_keeper(keeper)
        return process
    except BaseException:  # also an interrupt: bubblewrap is not left behind, and it is raised again
        keeper.kill()
        _end(keeper)
        raise
    finally:
        os.close(told)


def _isolation(information: int, filtered: int) -> list[str]:
    """The namespaces. No --new-session: the program is not bubblewrap's child, and the filter keeps it from typing for others."""
    separate = [f"--unshare-{kind}" for kind in ("net", "pid", "ipc", "uts")]
    return [*separate, "--die-with-parent", "--cap-drop", "ALL", "--chdir", "/", "--info-fd", str(information), "--seccomp", str(filtered)]


def _name_files(folder: Path, seen: View) -> list[str]:
    """Write the resolver's files into the gate's folder and bind them where libraries look.

    Each one's real place is taken, since resolv.conf often is a link into /run. One that this machine has not is left out: binding it would
    make it outside. (Without a resolv.conf libraries ask loopback, which is redirected as well.)
    """
    switch = Path("/etc/nsswitch.conf")
    texts = {
        Path("/etc/resolv.conf"): environment.resolver_configuration(RESOLVER_ADDRESS),
        Path("/etc/hosts"): environment.host_names(socket.gethostname()),
        switch: environment.name_service(switch.read_text(encoding="utf-8") if switch.exists() else ""),
    }
    options = []
    for place, text in texts.items():
        if place.is_file():
            written = folder / place.name
            written.write_text(text, encoding="utf-8")
            written.chmod(0o644)
            options += [*view.way_to(seen, place.resolve()), "--ro-bind", str(written), str(place.resolve())]
    return options


def _terminal() -> list[str]:
    """The program's terminal by a name that exists inside, for what asks for its name."""
    for descriptor in range(3):
        with contextlib.suppress(OSError):
            return ["--dev-bind", os.ttyname(descriptor), "/dev/console"]
    return []


def _filter_descriptor() -> int:
    descriptor = os.memfd_create("seccomp")
    os.write(descriptor, seccomp.program(platform.machine()))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _tool(name: str) -> str:
    found = shutil.which(name, path="/usr/bin:/bin:/usr/local/bin:/usr/sbin:/sbin")
    if found is None:
        raise SandboxError(f"expected the program `{name}` in a system folder, found none", remedy="apt-get install bubblewrap coreutils")
    return found


def _require_harmless_streams() -> None:
    """A socket, a folder or an unnamed descriptor (io_uring, a process) as a standard stream is a way out that no namespace closes."""
    for descriptor in range(3):
        try:
            status = os.fstat(descriptor)
        except OSError:
            continue
        mode = status.st_mode
        harmless = stat.S_ISREG(mode) or stat.S_ISFIFO(mode)
        if stat.S_ISCHR(mode):
            harmless = os.isatty(descriptor) or os.major(status.st_rdev) == _MEMORY_DEVICES
        if not harmless:
            what = "a socket" if stat.S_ISSOCK(mode) else "neither a file, a pipe nor a terminal"
            raise DescriptorError(
                f"expected descriptor {descriptor} to be a file, a pipe or a terminal, it is {what}, a way round the gate",
                remedy="put a pipe between: `… | hopgate run … | cat`, or use a file",
            )


def _stream(descriptor: int) -> int | None:
    """The program's stream: ours, or /dev/null where it is closed, lest another descriptor take its number."""
    try:
        os.fstat(descriptor)
    except OSError:
        return subprocess.DEVNULL
    return None


def _variables(spec: SandboxSpec) -> dict[str, str]:
    account = spec.account
    own = {"HOME": str(account.home), "USER": account.name, "LOGNAME": account.name, "SHELL": account.shell}
    return {**spec.environment, **own, "PWD": str(spec.working_directory)}


def _require_visible(spec: SandboxSpec, seen: View) -> None:
    """A command that exists outside and not inside is a mistake that can be explained; one that exists nowhere is left to exec."""
    command = spec.command[0]
    if "/" in command:
        found: str | None = str(spec.working_directory / command)
    else:
        folders = spec.environment.get("PATH", os.defpath).split(os.pathsep)
        visible = [folder for folder in folders if seen.shows(Path(folder).resolve())]
        found = shutil.which(command, path=os.pathsep.join(visible)) or shutil.which(command, path=os.pathsep.join(folders))
    if found is not None and Path(found).exists() and not seen.shows(Path(found).resolve()):
        raise CommandError(
            f"`{found}` is not visible inside the sandbox, which has a /run and a /tmp of its own and hides the gate's folders",
            remedy=f"put it elsewhere, or open its folder with `--bind {Path(found).resolve().parent}`",
        )


def _command_error(command: str, seen: View, error: OSError) -> CommandError:
    interpreter = " (or the interpreter that it names)" if isinstance(error, FileNotFoundError) and "/" in command else ""
    covered = ", ".join(str(place) for place in seen.covered)
    return CommandError(
        f"`{command}`{interpreter} can't be executed inside the sandbox: {error.strerror}",
        remedy=f"see that the program's user may execute it; what is in {covered} is opened with `--bind PATH`",
    )


def _first_process(told: int, keeper: subprocess.Popen[bytes]) -> int:
    """The process id that bubblewrap tells, as JSON, before it makes the view."""
    deadline = time.monotonic() + _SETUP_SECONDS
    text = b""
    while _readable(told, deadline) and (chunk := os.read(told, 4096)):
        text += chunk
        with contextlib.suppress(json.JSONDecodeError):
            return int(json.loads(text)["child-pid"])
    raise _not_made(keeper)


def _await_keeper(keeper: subprocess.Popen[bytes]) -> None:
    """Wait until the view is made: the keeper starts after it, and says back what it is told."""
    deadline = time.monotonic() + _SETUP_SECONDS
    if keeper.stdin is None or keeper.stdout is None:
        raise SandboxError("the sandbox's keeper has no pipes", remedy="spawn the sandbox again")
    with contextlib.suppress(BrokenPipeError):
        os.write(keeper.stdin.fileno(), b"\n")
    if not _readable(keeper.stdout.fileno(), deadline) or not os.read(keeper.stdout.fileno(), 1):
        raise _not_made(keeper)


def _not_made(keeper: subprocess.Popen[bytes]) -> SandboxError:
    keeper.kill()
    said = keeper.stderr.read(4096).decode(errors="replace").strip() if keeper.stderr is not None else ""
    return SandboxError(f"bubblewrap could not make the sandbox: {said or 'it did not answer'}", remedy="mend what it names")


def _end(keeper: subprocess.Popen[bytes]) -> None:
    """Wait for bubblewrap, which ends with the sandbox's first process; kill it when it does not."""
    try:
        keeper.wait(_SETUP_SECONDS)
    except subprocess.TimeoutExpired:
        keeper.kill()
        keeper.wait()
    for stream in (keeper.stdin, keeper.stdout, keeper.stderr):
        if stream is not None:
            stream.close()


def _readable(descriptor: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


def _read(descriptor: int) -> str:
    try:
        return os.read(descriptor, 4096).decode(errors="replace")
    except BlockingIOError:
        return "enter the sandbox"


@contextlib.contextmanager
def _children_in(pid: int) -> Iterator[None]:
    """Children made meanwhile are in the process id namespace of `pid`; this process stays where it is."""
    with contextlib.ExitStack() as opened:
        own, other = (_opened(opened, f"/proc/{which}/ns/pid") for which in ("self", pid))
        kernel.setns(other, kernel.CLONE_NEWPID)
        try:
            yield
        finally:
            kernel.setns(own, kernel.CLONE_NEWPID)


def _opened(opened: contextlib.ExitStack, path: str, mode: int = os.O_RDONLY) -> int:
    descriptor = os.open(path, mode | os.O_CLOEXEC)
    opened.callback(os.close, descriptor)
    return descriptor


def _foreground_terminal() -> int | None:
    """The standard stream that is a terminal whose foreground this process has."""
    for descriptor in range(3):
        with contextlib.suppress(OSError):
            if os.tcgetpgrp(descriptor) == os.getpgrp():
                return descriptor
    return None


def _take_terminal(descriptor: int) -> None:
    """Give the terminal back to this process's group: a shell that ran inside made itself the foreground and can't undo it from there."""
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.tcsetpgrp(descriptor, os.getpgrp())
    signal.signal(signal.SIGTTOU, before)
