"""Which way the programs come in, what is said when none is open, and that nothing is left when the sensor ends."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sensor import objects, programs
from sensor.kernel import Loader
from tests.cluster.api_server import eventually
from tests.sensor.kernel.conftest import require

pytestmark = [pytest.mark.root, pytest.mark.bpf]

# Opens, says how that went, and waits for its end.
OPENER = """
import json, os, sys
from pathlib import Path
from sensor import programs
from sensor.kernel import KernelError, Loader

forced = Loader(sys.argv[1]) if sys.argv[1] else None
try:
    kernel = programs.open(loader=forced, btf=Path(sys.argv[2]))
except KernelError as error:
    print(json.dumps({"code": error.code, "message": str(error), "remedy": error.remedy}), flush=True)
    sys.exit(3)
found = set()
for each in Path("/proc/self/fdinfo").iterdir():
    if each.exists():
        found |= {int(line.split()[1]) for line in each.read_text().splitlines() if line.startswith("prog_id")}
hooks = {hook.name: [hook.attached, hook.reason] for hook in kernel.hooks}
print(json.dumps({"loader": kernel.loader, "why": kernel.why, "programs": sorted(found), "hooks": hooks}), flush=True)
sys.stdin.readline()
kernel.close()
print(json.dumps({}), flush=True)
sys.stdin.readline()
"""
BTF = "/sys/kernel/btf/vmlinux"
# As root, without what programs that read the kernel's memory need. CAP_SYS_ADMIN stands in for both.
LIMITED = ("setpriv", "--bounding-set", "-sys_admin,-perfmon", "--inh-caps", "-sys_admin,-perfmon")


class Opener:
    """A process that has the programs open."""

    def __init__(self, loader: str = "", btf: str = BTF, *, before: Sequence[str] = ()) -> None:
        surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = (*before, sys.executable, "-c", OPENER, loader, btf)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=surroundings)
        self.said = self._answer()

    def close_kernel(self) -> None:
        self._say()
        self._answer()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Opener:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process as process:
            process.kill()

    def _say(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def _answer(self) -> dict[str, object]:
        assert self.process.stdout is not None
        said: dict[str, object] = json.loads(self.process.stdout.readline())
        return said


def living(ids: object) -> list[int]:
    """Which of these programs the kernel still has."""
    assert isinstance(ids, list)
    return [each for each in ids if _has_program(each)]


def _has_program(number: int) -> bool:

    opened: int = ctypes.CDLL("libbpf.so.1").bpf_prog_get_fd_by_id(number)
    if opened < 0:
        return False
    os.close(opened)
    return True


@pytest.mark.parametrize("end", ["close", "kill"])
def test_nothing_stays_when_the_sensor_ends(loader: Loader, end: str) -> None:
    with Opener(loader) as opener:
        ids = opener.said["programs"]
        assert len(living(ids)) >= 13
        if end == "close":
            opener.close_kernel()
        else:
            opener.kill()
        eventually(lambda: living(ids) == [], "no program is left", 10)


def test_objects_are_the_first_choice() -> None:
    require(Loader.CO_RE)
    with Opener() as opener:
        assert opener.said["loader"] == "CO-RE"
        assert opener.said["why"] == "the kernel describes its types (BTF), and the objects built for it are here"


def test_without_types_bcc_is_taken(tmp_path: Path) -> None:
    require(Loader.BCC)
    with Opener(btf=str(tmp_path / "none")) as opener:
        assert opener.said["loader"] == "bcc"
        assert opener.said["why"] == f"this kernel does not describe its types (no `{tmp_path}/none`); so they are compiled here"


def test_without_types_and_without_bcc_there_is_no_way(tmp_path: Path) -> None:
    hidden = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /usr/lib/python3/dist-packages; exec "$@"', "sh")
    with Opener(btf=str(tmp_path / "none"), before=hidden) as opener:
        assert opener.said["code"] == "BpfLoaderMissing"
        assert opener.process.wait() == 3


def test_bcc_without_headers_is_not_tried_and_prints_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What bcc says by itself would stand among the answers that a gate reads."""
    require(Loader.BCC)
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(tmp_path / "none"))
    with Opener("bcc") as opener:
        assert opener.said["code"] == "BccUnusable"
        assert opener.said["message"] == f"expected this kernel's headers for bcc at `{tmp_path}/none`, found none"
        assert str(opener.said["remedy"]).startswith("build the objects (`make bpf`")


def test_without_cgroup2(loader: Loader) -> None:
    unmounted = ("unshare", "-m", "sh", "-c", "awk '/ - cgroup2 / {print $5}' /proc/self/mountinfo | xargs umount -l; exec \"$@\"", "sh")
    with Opener(loader, before=unmounted) as opener:
        assert opener.said["code"] == "CgroupsMissing"


def test_without_the_right(loader: Loader) -> None:
    require(loader)
    nobody = ("setpriv", "--bounding-set", "-all", "--inh-caps", "-all")
    with Opener(loader, before=nobody) as opener:
        assert opener.said["code"] == "BpfNotPermitted"
        assert opener.said["remedy"] == "start the sensor as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"


def test_an_object_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOPGATE_BPF_OBJECT", str(tmp_path / "none.o"))
    with pytest.raises(objects.ObjectMissingError, match=r"none\.o`, found none"):
        programs.open(loader=Loader.CO_RE)


def test_a_program_that_is_refused_takes_no_other_down() -> None:
    require(Loader.CO_RE)
    with Opener("CO-RE", before=LIMITED) as opener:
        hooks = opener.said["hooks"]
        assert isinstance(hooks, dict)
        assert hooks["packet_in"] == [True, ""]
        assert hooks["connect4"][0] is False
        assert hooks["connect4"][1] != ""


def test_two_are_open_at_once(loader: Loader) -> None:
    with Opener(loader) as one, Opener(loader) as other:
        for opener in (one, other):
            assert opener.said["loader"] == loader
