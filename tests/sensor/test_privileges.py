"""What the sensor's process can't do any more, tried in a process that has given it up."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from sensor import privileges
from sensor.privileges import KEPT, Capability

pytestmark = pytest.mark.root

_TRY = """
import ctypes, json, os, sys
from sensor import privileges
from sensor.privileges import Capability

def attempts():
    libc = ctypes.CDLL(None, use_errno=True)
    def error(returned):
        return ctypes.get_errno() if returned < 0 else 0
    yield "ptrace", error(libc.ptrace(0x4206, os.getppid(), None, None))
    yield "process_vm_readv", error(libc.process_vm_readv(os.getppid(), None, 0, None, 0, 0))
    yield "pidfd_getfd", error(libc.syscall(438, os.pidfd_open(os.getppid()), 0, 0))
    child = os.fork()
    if child == 0:
        try:
            os.execv("/bin/true", ["true"])
        except OSError as refused:
            os._exit(refused.errno)
    yield "execve", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

missing = privileges.drop([Capability[name] for name in sys.argv[1:]]) if sys.argv[1:] != ["nothing given up"] else ()
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
sets = {name: int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")}
print(json.dumps({"missing": missing, "new": int(status["NoNewPrivs"]), "sets": sets, "attempts": dict(attempts())}))
"""


def _tried(*names: str, before: tuple[str, ...] = ()) -> dict[str, object]:
    done = subprocess.run((*before, sys.executable, "-c", _TRY, *names), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_no_other_process_is_read_and_no_program_run() -> None:
    mask = sum(1 << each for each in KEPT)
    found = _tried(*(each.name for each in KEPT))
    assert found["attempts"] == dict.fromkeys(("ptrace", "process_vm_readv", "pidfd_getfd", "execve"), errno.EPERM)
    assert found["sets"] == {"CapEff": mask, "CapPrm": mask, "CapInh": 0, "CapBnd": mask, "CapAmb": 0}
    assert (found["missing"], found["new"]) == ([], 1)


def test_a_process_that_gave_nothing_up_can() -> None:
    assert _tried("nothing given up")["attempts"] == dict.fromkeys(("ptrace", "process_vm_readv", "pidfd_getfd", "execve"), 0)


@pytest.mark.parametrize("right", KEPT)
def test_a_right_that_it_never_had_is_missing_by_name(right: Capability) -> None:
    lowered = f"-{right.name.lower()}"
    found = _tried(*(each.name for each in KEPT), before=("setpriv", f"--bounding-set={lowered}", f"--inh-caps={lowered}"))
    assert found["missing"] == [f"the right CAP_{right.name} is missing: {KEPT[right]}"]


def test_records_reach_a_folder_of_another_user_by_one_right(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    program = (
        "import sys; from sensor import privileges; from sensor.privileges import Capability\n"
        "privileges.drop([Capability[name] for name in sys.argv[2:]])\n"
        "open(sys.argv[1], 'w').close()"
    )

    def written(*names: str) -> bool:
        command = (sys.executable, "-c", program, str(folder / "record"), *names)
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0

    every = [each.name for each in KEPT]
    assert not written(*(name for name in every if name != Capability.DAC_OVERRIDE.name))
    assert written(*every)


def test_each_machine_has_a_filter_and_an_unknown_one_none() -> None:
    assert privileges.program("x86_64")
    assert privileges.program("aarch64")
    assert privileges.program(platform.machine())
    assert privileges.program("other") == b""
