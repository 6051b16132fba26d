"""The same objects on Debian's own kernel, in a guest: they load, they tell the same, and a program of the BPF LSM holds."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hopgate import cache
from sensor import objects, programs
from sensor.kernel import Loader
from tests.sensor.kernel.conftest import require

pytestmark = [pytest.mark.root, pytest.mark.bpf, pytest.mark.slow, pytest.mark.timeout(400)]

HERE = Path(__file__).parent
KERNEL = cache.folder() / "guest-kernel"
# An emulated processor takes seconds for each: one of a kind is enough, and nftables is not in the guest.
TESTS = (
    "test_connections.py",
    "test_programs.py",
    "test_payloads.py::test_a_whole_hello_is_told_alone",
    "test_payloads.py::test_a_dns_answer",
)
CHOSEN = "CO-RE and not mapped and not redirected"
QEMU = "qemu-system-x86_64"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the guest printed: the object of in_guest.py, and the end of the tests that it ran."""
    require(Loader.CO_RE)
    if platform.machine() != "x86_64" or shutil.which(QEMU) is None or not KERNEL.is_dir():
        pytest.skip("no guest; `make guest` brings it")
    folder = tmp_path_factory.mktemp("guest")
    objects.compile_source(HERE / "lsm.bpf.c", folder / "lsm.bpf.o")
    python, repository = shlex.quote(sys.executable), HERE.parents[2]
    tests = " ".join(str(HERE / name) for name in TESTS)
    script = folder / "run.sh"
    script.write_text(
        f"export PATH={os.environ['PATH']} HOME={Path.home()} PYTHONPATH={repository} PYTHONDONTWRITEBYTECODE=1\n"
        f"export HOPGATE_BPF_OBJECT={objects.find()}\n"
        f"cd {repository}\n"
        f"{python} {HERE / 'in_guest.py'} {folder / 'lsm.bpf.o'} 2>&1\n"
        f"{python} -m pytest -q -p no:cacheprovider -k '{CHOSEN}' -o timeout=300 {tests} 2>&1\n"
    )
    machine = ("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048", "-nographic", "-no-reboot", "-nic", "none")
    boot = ("-kernel", str(KERNEL / "vmlinuz"), "-initrd", str(KERNEL / "initramfs"))
    line = ("-append", f"console=ttyS0 quiet panic=-1 hopgate.run={script}")
    shared = ("-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap")
    device = ("-device", "virtio-9p-pci,fsdev=host,mount_tag=host")
    command = (QEMU, *machine, *boot, *line, *shared, *device)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=380, check=True)
    return done.stdout.splitlines()


def test_the_same_objects_load_and_a_program_of_the_lsm_holds(said: list[str]) -> None:
    found = [json.loads(line[line.index("{") :]) for line in said if '{"release"' in line]
    assert len(found) == 1, said
    assert found[0]["release"] != os.uname().release
    assert found[0]["hooks"] == dict.fromkeys((*programs.CGROUP_PROGRAMS, *programs.TRACEPOINT_PROGRAMS), "")
    assert found[0]["lsm"] == [True, False, True, True]


def test_they_tell_the_same(said: list[str]) -> None:
    ends = [line for line in said if " passed" in line]
    assert len(ends) == 1, said
    assert not any(word in ends[0] for word in ("failed", "error", "skipped")), said
