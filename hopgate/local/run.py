"""`hopgate run`: one program as a governed agent.

The order matters: the sandbox exists but waits; the gate plugs its network namespace and says that it is ready; only then the program's
first instruction runs. When anything before that fails, the sandbox is ended and the program never ran. The program's
terminal, signals and exit code are its own: this process only waits, passes signals on, and ends the way the program did.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hopgate.identity.names import ObjectName
from hopgate.local import environment, folders, rights, sandbox
from hopgate.local.cgroups import Cgroup
from hopgate.local.control import Answer, Attach, Attached, Client, ControlError, Hello, Refused, Welcome
from hopgate.local.errors import LocalError
from hopgate.local.folders import SHARED_GATE
from hopgate.local.rights import Account
from hopgate.local.sandbox import SandboxProcess, SandboxSpec
from hopgate.resources.kinds import Provider

# A gate starts in well under a second; a loaded machine may need many.
GATE_SECONDS = 30.0
# What the program sees of its gate: a folder with the trust bundle and the files that name its resolver.
INSIDE = Path("/run/hopgate")
# The exit code of `hopgate run` itself, as `env` and container engines use it: the program was never started.
NOT_STARTED = 125
_FROM_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)


_Answered = TypeVar("_Answered", Welcome, Attached)


class RunError(LocalError):
    """The program could not be started as a governed agent."""

    code = "RunRefused"
    exit_code = NOT_STARTED


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What to run, as whom, behind which gate, and what is opened beyond it. `sensor`: whether a gate of its own brings one."""

    agent: ObjectName
    resources: Path
    data: Path
    command: tuple[str, ...]
    listen: int | None
    uid: int | None
    keep_environment: frozenset[str]
    allow_sockets: tuple[Path, ...]
    binds: tuple[Path, ...]
    sensor: bool = True


def run(spec: RunSpec) -> int:
    """Run the program to its end. Returns its exit code, or minus the signal that ended it. Raises LocalError before it started."""
    rights.require_root("hopgate run")
    rights.require_tools()
    account = rights.calling_user(os.environ, spec.uid)
    data = folders.open_data(spec.data)
    with _gate(spec, data) as client, _inside_folder(data) as (inside, cgroup):
        welcome = _expect(client.ask(Hello(agent=str(spec.agent))), Welcome)
        if Path(welcome.resources) != spec.resources:
            raise RunError(
                f"expected the running gate to serve `{spec.resources}`, it serves `{welcome.resources}`",
                remedy="name that folder, or another --data",
            )
        process = sandbox.spawn(_sandbox_spec(spec, account, welcome, inside, cgroup))
        try:
            _plug(client, spec, account, process, cgroup)
            _pass_signals_on(process)
            process.release()
            ended = threading.Event()
            threading.Thread(target=_tell_when_gone, args=(client, ended), daemon=True).start()
            try:
                return process.wait()
            finally:
                ended.set()
        finally:
            process.kill()


@contextlib.contextmanager
def _gate(spec: RunSpec, data: Path) -> Iterator[Client]:
    """A connection to the gate that runs for this data folder, else to one brought along."""
    shared = folders.run_base(data) / SHARED_GATE / "control.sock"
    try:
        client = Client(shared, GATE_SECONDS)
    except ControlError:
        with _own_gate(spec, data) as own, contextlib.closing(own):
            yield own
        return
    with contextlib.closing(client):
        yield client


@contextlib.contextmanager
def _own_gate(spec: RunSpec, data: Path) -> Iterator[Client]:
    """A gate of this run's own. It holds one end of a pipe: when this process ends, however it ends, the gate ends too."""
    name = f"run-{os.getpid()}-{secrets.token_hex(4)}"
    lifeline, held = os.pipe()
    ready, told = os.pipe()
    arguments = ("--resources", str(spec.resources), "--data", str(data), "--name", name, "--ready", str(told), "--lifeline", str(lifeline))
    gate = subprocess.Popen(
        (sys.executable, "-m", "hopgate.local", *arguments, *(() if spec.sensor else ("--no-sensor",))),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(told, lifeline),
        start_new_session=True,  # a Ctrl-C on the terminal is for the program, not for its gate
    )
    os.close(told)
    os.close(lifeline)
    try:
        if not os.read(ready, 1):
            raise RunError("the gate could not start", remedy="see what it wrote above")
        yield Client(folders.run_base(data) / name / "control.sock", GATE_SECONDS)
    finally:
        os.close(ready)
        os.close(held)
        try:
            gate.wait(GATE_SECONDS)
        except subprocess.TimeoutExpired:
            gate.kill()
            gate.wait()


@contextlib.contextmanager
def _inside_folder(data: Path) -> Iterator[tuple[Path, Cgroup | None]]:
    """The folder that the program sees as `INSIDE`, readable for its user, and the program's cgroup, which goes with it."""
    run_folder = folders.open_run(data, f"inside-{os.getpid()}-{secrets.token_hex(4)}")
    inside = run_folder.path / "inside"
    inside.mkdir(mode=0o755)
    inside.chmod(0o755)
    try:
        yield inside, run_folder.make_cgroup()
    finally:
        run_folder.remove()


def _sandbox_spec(spec: RunSpec, account: Account, welcome: Welcome, inside: Path, cgroup: Cgroup | None) -> SandboxSpec:
    bundle = inside / "trust-bundle.pem"
    bundle.write_bytes(environment.trust_bundle(welcome.authority_pem.encode()))
    bundle.chmod(0o644)
    variables = environment.governed_environment(
        os.environ,
        keep=spec.keep_environment,
        providers=frozenset(Provider(name) for name in welcome.providers),
        trust_bundle=str(INSIDE / bundle.name),
        allow_sockets=frozenset(str(path) for path in spec.allow_sockets),
    )
    return SandboxSpec(
        command=spec.command,
        working_directory=Path.cwd(),
        account=account,
        environment=variables.variables,
        hidden=tuple(Path(folder) for folder in welcome.hidden),
        binds=spec.binds,
        allow_sockets=spec.allow_sockets,
        inside=(inside, INSIDE),
        cgroup=cgroup,
    )


def _plug(client: Client, spec: RunSpec, account: Account, process: SandboxProcess, cgroup: Cgroup | None) -> None:
    """Have the gate plug the waiting sandbox's network namespace."""
    descriptor = os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        request = Attach(
            agent=str(spec.agent),
            pid=process.pid,
            listen=spec.listen,
            command=spec.command,
            user=account.uid,
            allow_sockets=tuple(str(path) for path in spec.allow_sockets),
            binds=tuple(str(path) for path in process.binds),
            kept_variables=tuple(sorted(spec.keep_environment)),
            cgroup_id=0 if cgroup is None else cgroup.id,
        )
        _expect(client.ask(request, (descriptor,)), Attached)
    finally:
        os.close(descriptor)


def _pass_signals_on(process: SandboxProcess) -> None:
    """What is sent to this process is meant for the program. What this process was told to ignore the program ignores, too.

    The terminal's own signals are sent to the program as well. They are handled here by doing nothing, since the program would
    inherit that they are ignored, and a handler it does not.
    """
    for signum in (*_FROM_THE_TERMINAL, *_PASSED_ON):
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, lambda received, _: None if received in _FROM_THE_TERMINAL else process.signal(received))


def _tell_when_gone(client: Client, ended: threading.Event) -> None:
    """A gate says nothing unasked: when its connection becomes readable while the program runs, it has ended."""
    watched = select.poll()
    watched.register(client.fileno(), select.POLLIN)
    watched.poll()
    if not ended.is_set():
        sys.stderr.write("hopgate: the gate has ended; every hop of the program is refused from now on\n")


def _expect(answer: Answer, wanted: type[_Answered]) -> _Answered:
    if isinstance(answer, Refused):
        raise _refused(answer)
    if not isinstance(answer, wanted):
        raise RunError("the gate answered something else than it was asked", remedy="use one version of hopgate for both")
    return answer


def _refused(answer: Refused) -> RunError:
    error = RunError(answer.message, remedy=answer.remedy)
    error.code = answer.code
    return error
