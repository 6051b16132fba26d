"""The sandbox with a real bubblewrap: every way out is refused at once, everything else is the program's as before."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.hopgate.local.terminal import Terminal

pytestmark = pytest.mark.root

HERE = Path(__file__).parent
# The system's: the one that runs the tests may be in a folder that an ordinary user can't enter.
PYTHON = "/usr/bin/python3"
ORDINARY = pwd.getpwnam("nobody").pw_uid
SECRET = "marker-secret-9f1c"
DEADLINE_SECONDS = 20.0
AT_ONCE_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A home folder outside /tmp, a folder of the gate's, and sockets of ungoverned programs that listen."""

    home: Path
    hidden: Path
    home_socket: Path
    run_socket: Path
    abstract: str
    uid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run of `governed.py` is given beyond its place."""

    command: Sequence[str]
    working_directory: Path | None = None
    hidden: tuple[Path, ...] | None = None
    binds: tuple[Path, ...] = ()
    allow_sockets: tuple[Path, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    pids: Path | None = None
    early_signal: int | None = None


@pytest.fixture(scope="module", params=[ORDINARY, 0], ids=["ordinary user", "uid 0"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with contextlib.ExitStack() as made:
        yield _place(made, request.param)


@pytest.fixture(scope="module")
def ordinary() -> Iterator[Place]:
    with contextlib.ExitStack() as made:
        yield _place(made, ORDINARY)


def _place(made: contextlib.ExitStack, uid: int) -> Place:
    home = Path(made.enter_context(tempfile.TemporaryDirectory(dir="/srv", prefix="hopgate-test-")))
    home.chmod(0o755)
    (home / "file").write_text("as before", encoding="utf-8")
    hidden = home / "state"
    hidden.mkdir()
    (hidden / "secret").write_text(SECRET, encoding="utf-8")
    run = Path(made.enter_context(tempfile.TemporaryDirectory(dir="/run", prefix="hopgate-test-")))
    run.chmod(0o755)
    abstract = f"hopgate-test-{os.getpid()}-{uid}"
    for address in (str(home / "engine.sock"), str(run / "engine.sock"), "\0" + abstract):
        listener = made.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(address)
        listener.listen(64)
        if address.startswith("/"):
            Path(address).chmod(0o777)
    for path in (home, *home.iterdir()):
        os.chown(path, uid, -1)
    return Place(home=home, hidden=hidden, home_socket=home / "engine.sock", run_socket=run / "engine.sock", abstract=abstract, uid=uid)


def _argument(place: Place, run: Run) -> str:
    hidden = (place.hidden,) if run.hidden is None else run.hidden
    return json.dumps(
        {
            "uid": place.uid,
            "home": str(place.home),
            "command": list(run.command),
            "working_directory": str(run.working_directory or place.home),
            "environment": {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **run.environment},
            "hidden": [str(path) for path in hidden],
            "binds": [str(path) for path in run.binds],
            "allow_sockets": [str(path) for path in run.allow_sockets],
            "pids": None if run.pids is None else str(run.pids),
            "early_signal": run.early_signal,
        }
    )


def _command(place: Place, run: Run) -> list[str]:
    return [sys.executable, str(HERE / "governed.py"), _argument(place, run)]


def _run(place: Place, run: Run) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(place, run), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
    )


def _output(place: Place, run: Run) -> str:
    done = _run(place, run)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _refusal(place: Place, run: Run) -> dict[str, str]:
    done = _run(place, run)
    assert done.returncode == 125, done
    assert done.stdout == ""
    error = json.loads(done.stderr)
    assert isinstance(error, dict)
    return error


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS} s: {what}"
        select.select([], [], [], 0.01)


def _gone(pid: int) -> bool:
    """Ended; whoever inherited it from a killed parent may still have to collect it."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture(scope="module")
def outcomes(place: Place) -> dict[str, tuple[object, float]]:
    known = {
        "home": str(place.home),
        "hidden": str(place.hidden),
        "home_socket": str(place.home_socket),
        "run_socket": str(place.run_socket),
        "abstract": place.abstract,
        "cgroup": str(next(iter(sorted(Path("/sys/fs/cgroup").glob("*/cgroup.procs"))), Path("/sys/fs/cgroup/cgroup.procs")).parent),
    }
    script = (HERE / "ways_out.py").read_text(encoding="utf-8")
    tried = json.loads(_output(place, Run(command=(PYTHON, "-c", script, json.dumps(known)))))
    return {name: (outcome, seconds) for name, (outcome, seconds) in tried.items()}


REFUSED = {
    "tcp_ipv4": {"ECONNREFUSED"},
    "tcp_ipv6": {"ECONNREFUSED"},
    "tcp_to_link_local": {"ECONNREFUSED"},
    "udp_443_ipv4": {"EPERM"},
    "udp_443_ipv6": {"EPERM"},
    "udp_multicast": {"EPERM"},
    "udp_lite": {"EPERM", "EPROTONOSUPPORT"},
    "icmp_raw": {"EPERM"},
    "icmp_raw_ipv6": {"EPERM"},
    "icmp_ping": {"EACCES", "EPERM"},
    "packet_socket": {"EAFNOSUPPORT"},
    "vsock": {"EAFNOSUPPORT"},
    "vsock_pair": {"EAFNOSUPPORT"},
    "abstract_socket": {"ECONNREFUSED"},
    "socket_in_run": {"ENOENT"},
    "socket_in_home": {"ECONNREFUSED"},
    "network_of_process_1": {"EACCES", "EPERM"},
    "type_into_the_terminal": {"EPERM"},
    "type_with_high_bits": {"EPERM"},
    "io_uring": {"ENOSYS"},
    "keyring": {"EPERM"},
    "load_bpf": {"EPERM"},
    "delete_the_rules": {"refused"},
    "tcp_after_deleting": {"ECONNREFUSED"},
    "make_a_device": {"EPERM"},
    "core_pattern": {"EACCES", "EROFS"},
    "sysrq": {"EACCES", "EROFS", "ENOENT"},
    "uevent_helper": {"EACCES", "EROFS", "ENOENT"},
    "a_cgroup": {"EACCES", "EROFS", "EPERM"},
    "cron": {"EACCES", "EROFS"},
    "hidden_folder": {"EACCES"},
    "hidden_secret": {"EACCES", "ENOENT"},
    "chmod_hidden_folder": {"EPERM", "EROFS"},
    "unmount_in_a_user_namespace": {"EINVAL", "EPERM"},
    "network_in_a_user_namespace": {"ENETUNREACH"},
}
ALLOWED = {
    "own_socket": "reached",
    "own_loopback": "reached",
    "own_file": "as before",
    "write_own_file": "written",
    # 3 is the folder that is being listed
    "inherited_descriptors": [0, 1, 2],
    # not a terminal, which only a request that the filter lets through can find out
    "window_size": "ENOTTY",
}


@pytest.mark.parametrize("way", REFUSED)
def test_a_way_out_is_refused_at_once(outcomes: dict[str, tuple[object, float]], way: str) -> None:
    outcome, seconds = outcomes[way]
    assert outcome in REFUSED[way]
    assert seconds < AT_ONCE_SECONDS


@pytest.mark.parametrize("way", ALLOWED)
def test_what_stays_inside_is_allowed(outcomes: dict[str, tuple[object, float]], way: str) -> None:
    assert outcomes[way][0] == ALLOWED[way]


def test_process_1_is_the_sandboxs_own_and_shows_no_more_than_the_program_sees(outcomes: dict[str, tuple[object, float]]) -> None:
    assert outcomes["root_of_process_1"][0] in ("EACCES", ["hopgate"])
    assert outcomes["processes_seen"][0] == 3  # bubblewrap's own, its keeper, the program


def test_an_ordinary_user_can_not_trace_process_1(outcomes: dict[str, tuple[object, float]], place: Place) -> None:
    # uid 0 may: process 1 is in the same sandbox, has no capability either, and is under the same filter
    assert outcomes["trace_process_1"][0] == ("EPERM" if place.uid else "done")


def test_no_outcome_is_left_unjudged(outcomes: dict[str, tuple[object, float]]) -> None:
    others = {"root_of_process_1", "trace_process_1", "processes_seen"}
    assert set(outcomes) == set(REFUSED) | set(ALLOWED) | others


def test_the_program_has_no_right_of_any_kind(place: Place) -> None:
    status = _output(place, Run(command=("grep", "-E", "^(Cap|NoNewPrivs|Seccomp:|Uid|Groups)", "/proc/self/status")))
    found = {line.split(":")[0]: line.split(":")[1].split() for line in status.splitlines()}
    assert {name: value for name, value in found.items() if name.startswith("Cap")} == {
        f"Cap{kind}": ["0" * 16] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")
    }
    assert found["NoNewPrivs"] == ["1"]
    assert found["Seccomp"] == ["2"]
    assert found["Uid"] == [str(place.uid)] * 4


def test_the_program_keeps_its_users_groups_and_none_of_the_callers(ordinary: Place) -> None:
    account = pwd.getpwuid(ORDINARY)
    assert _output(ordinary, Run(command=("id", "-G"))).split() == [str(g) for g in os.getgrouplist(account.pw_name, account.pw_gid)]


def test_home_and_user_are_the_programs_users_and_the_rest_is_passed_on(ordinary: Place) -> None:
    printed = _output(ordinary, Run(command=("env",), environment={"HOME": "/root", "USER": "root", "COLOUR": "blue"}))
    variables = dict(line.split("=", 1) for line in printed.splitlines())
    assert variables == {
        "HOME": str(ordinary.home),
        "USER": "nobody",
        "LOGNAME": "nobody",
        "SHELL": pwd.getpwuid(ORDINARY).pw_shell,
        "PWD": str(ordinary.home),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "COLOUR": "blue",
    }


def test_a_name_is_asked_of_an_address_that_is_captured(ordinary: Place) -> None:
    printed = _output(ordinary, Run(command=("cat", "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf")))
    assert "nameserver 192.0.2.1\n" in printed
    assert "hosts: files dns\n" in printed
    assert f"127.0.0.1 localhost {socket.gethostname()}\n" in printed


def test_nothing_of_the_machine_is_changed_by_a_run(ordinary: Place) -> None:
    before = {path: Path(path).read_bytes() for path in ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/proc/self/mountinfo")}
    listed = sorted(ordinary.home.rglob("*"))
    _output(ordinary, Run(command=("true",)))
    assert {path: Path(path).read_bytes() for path in before} == before
    assert sorted(ordinary.home.rglob("*")) == listed


def test_a_second_mount_does_not_show_a_hidden_folder(place: Place, tmp_path: Path) -> None:
    alias = place.home / "alias"
    alias.mkdir(exist_ok=True)
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    command = _command(place, Run(command=("sh", "-c", "cat alias/state/secret alias/file")))
    entered = ["unshare", "--mount", "sh", "-c", script, "sh", str(place.home), str(alias), *command]
    done = subprocess.run(entered, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    assert done.stdout == "as before"
    assert "alias/state/secret" in done.stderr


def test_an_allowed_socket_is_reached_at_its_place(place: Place) -> None:
    script = "import socket,sys\nfor path in sys.argv[1:]:\n with socket.socket(socket.AF_UNIX) as s: s.connect(path); print('reached')"
    sockets = (place.home_socket, place.run_socket)
    run = Run(command=(PYTHON, "-c", script, *map(str, sockets)), allow_sockets=sockets)
    assert _output(place, run) == "reached\n" * 2


def test_a_bound_folder_is_there_and_its_sockets_are_still_masked(place: Place) -> None:
    folder = place.run_socket.parent
    (folder / "note").write_text("shared", encoding="utf-8")
    script = f"cat {folder}/note; test -S {place.run_socket} || echo masked"
    assert _output(place, Run(command=("sh", "-c", script), binds=(folder,))) == "sharedmasked\n"


def test_a_bound_folder_that_holds_a_hidden_one_does_not_show_it(place: Place) -> None:
    done = _run(place, Run(command=("cat", str(place.hidden / "secret"), str(place.home / "file")), binds=(place.home,)))
    assert done.stdout == "as before"
    assert SECRET not in done.stderr


def test_a_working_directory_below_tmp_is_bound_back(place: Place, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "agent.sh").write_text("echo here; pwd", encoding="utf-8")
    printed = _output(place, Run(command=("sh", "agent.sh"), working_directory=tmp_path))
    assert printed == f"here\n{tmp_path}\n"


@pytest.mark.parametrize(
    ("run", "code", "named"),
    [
        (Run(command=("true",), working_directory=Path("/tmp")), "PathRefused", "--bind /tmp"),
        (Run(command=("true",), binds=(Path("/"),)), "PathRefused", "`/`"),
        (Run(command=("true",), binds=(Path("/proc"),)), "PathRefused", "`/proc`"),
        (Run(command=("true",), binds=(Path("/no/such/folder"),)), "PathRefused", "`/no/such/folder`"),
        (Run(command=("true",), allow_sockets=(Path("/etc/hosts"),)), "PathRefused", "`/etc/hosts`"),
        (Run(command=("no-such-program",)), "CommandNotStarted", "`no-such-program`"),
        (Run(command=("/etc/hosts",)), "CommandNotStarted", "`/etc/hosts`"),
    ],
    ids=["cwd is /tmp", "bind of /", "bind of /proc", "bind of nothing", "a file as socket", "unknown command", "no executable"],
)
def test_what_can_not_be_done_is_refused_before_the_program_starts(ordinary: Place, run: Run, code: str, named: str) -> None:
    error = _refusal(ordinary, run)
    assert error["code"] == code
    assert named in error["message"] + error["remedy"]


def test_a_working_directory_of_the_gates_is_refused(ordinary: Place) -> None:
    error = _refusal(ordinary, Run(command=("true",), working_directory=ordinary.hidden))
    assert (error["code"], str(ordinary.hidden) in error["message"]) == ("PathRefused", True)


def test_a_bind_into_a_hidden_folder_is_refused(ordinary: Place) -> None:
    error = _refusal(ordinary, Run(command=("true",), binds=(ordinary.hidden / "secret",)))
    assert (error["code"], str(ordinary.hidden) in error["message"]) == ("PathRefused", True)


def test_a_command_that_only_the_outside_has_is_refused_by_naming_bind(ordinary: Place, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    command = tmp_path / "agent"
    command.write_text("#!/bin/sh\necho ran\n", encoding="utf-8")
    command.chmod(0o755)
    error = _refusal(ordinary, Run(command=(str(command),)))
    assert error["code"] == "CommandNotStarted"
    assert f"--bind {tmp_path}" in error["remedy"]
    assert _output(ordinary, Run(command=(str(command),), binds=(tmp_path,))) == "ran\n"


def test_a_socket_as_standard_input_is_refused_and_a_pipe_is_not(ordinary: Place) -> None:
    near, far = socket.socketpair()
    with near, far:
        refused = subprocess.run(
            _command(ordinary, Run(command=("cat",))),
            stdin=far.fileno(),
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
    assert json.loads(refused.stderr)["code"] == "DescriptorRefused"
    command = _command(ordinary, Run(command=("cat",)))
    piped = subprocess.run(command, input="through", capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    assert piped.stdout == "through"


def test_a_descriptor_without_a_file_as_standard_input_is_refused(ordinary: Place) -> None:
    descriptor = os.eventfd(0)
    command = _command(ordinary, Run(command=("true",)))
    done = subprocess.run(command, stdin=descriptor, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    os.close(descriptor)
    assert json.loads(done.stderr)["code"] == "DescriptorRefused"


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("exit 130", 130), ("kill -9 $$", -9), ("kill -2 $$", -2)])
def test_the_end_of_the_program_is_told_exactly(ordinary: Place, script: str, code: int) -> None:
    assert _run(ordinary, Run(command=("sh", "-c", script))).returncode == code


def test_what_the_program_left_running_ends_with_it(ordinary: Place, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    done = _run(ordinary, Run(command=("sh", "-c", "setsid sleep 1000 & exit 3"), pids=pids))
    assert done.returncode == 3
    assert not any(Path(f"/proc/{pid}").exists() for pid in json.loads(pids.read_text(encoding="utf-8")))


def test_a_signal_that_comes_before_the_program_begins_reaches_it(ordinary: Place) -> None:
    assert _run(ordinary, Run(command=("sleep", "60"), early_signal=signal.SIGTERM)).returncode == -signal.SIGTERM
    assert _run(ordinary, Run(command=("sleep", "0"))).returncode == 0


def test_a_signal_reaches_the_program_itself(ordinary: Place) -> None:
    script = "trap 'echo told; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    command = _command(ordinary, Run(command=("sh", "-c", script)))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as governed:
        assert governed.stdout is not None
        assert governed.stdout.readline() == "ready\n"
        governed.terminate()
        assert governed.stdout.read() == "told\n"
        assert governed.wait(DEADLINE_SECONDS) == 5


def test_killing_the_parent_leaves_no_process_and_no_namespace(place: Place, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    command = _command(place, Run(command=("sh", "-c", "setsid sleep 1000 & sleep 1000"), pids=pids))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as governed:
        _until(pids.exists, "the program runs")
        first, program = json.loads(pids.read_text(encoding="utf-8"))
        namespace = (Path(f"/proc/{program}/ns/net")).readlink()
        governed.kill()
        governed.wait(DEADLINE_SECONDS)
    _until(lambda: _gone(first) and _gone(program), "the sandbox has ended")
    _until(lambda: namespace not in _network_namespaces(), "nobody is in its network namespace")


def _network_namespaces() -> set[Path]:
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError):
                found.add((process / "ns/net").readlink())
    return found


def test_an_interrupt_from_the_terminal_is_the_programs_to_handle(ordinary: Place, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = "trap 'echo interrupted' INT; echo ready; read line; echo got $line; read line; echo got $line; exit 4"
    terminal = Terminal(_command(ordinary, Run(command=("bash", "-c", script), pids=pids)))
    terminal.expect("ready")
    _until(pids.exists, "the parent ignores what the terminal sends")
    terminal.interrupt("interrupted")
    terminal.type("on\n")
    terminal.expect("got on")
    terminal.type("and on\n")
    terminal.expect("got and on")
    assert terminal.end() == 4


def test_an_interrupt_that_the_program_does_not_handle_ends_it_and_is_told(ordinary: Place, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    # Python would not do here: an interrupt that comes just before input() blocks is not seen until the next line.
    asking = Run(command=("/bin/sh", "-c", "echo ready; exec cat"), pids=pids)
    terminal = Terminal(_command(ordinary, asking))
    terminal.expect("ready")
    _until(pids.exists, "the parent ignores what the terminal sends")
    terminal.type("\x03")
    assert terminal.end() == -signal.SIGINT


def test_a_shell_inside_has_job_control_and_the_terminal_comes_back(ordinary: Place) -> None:
    script = "set -m; bash -c 'echo in the foreground; tty; exit 6'; exit $?"
    shell = shutil.which("bash")
    assert shell is not None
    governed = " ".join(f"'{part}'" for part in _command(ordinary, Run(command=("bash", "-c", script.replace("'", '"')))))
    terminal = Terminal([shell, "-c", f"{governed}; echo code $?; read line; echo got $line"])
    terminal.expect("in the foreground")
    terminal.expect("/dev/console")
    terminal.expect("code 6")
    terminal.type("still mine\n")
    terminal.expect("got still mine")
    assert terminal.end() == 0
