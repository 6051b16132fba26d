"""The same objects on Debian's own kernel, in a guest: they load, they tell the same, and a program of the BPF LSM holds."""

from __future__ import annotations

import json
import os
import platform
import re
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
QUARANTINE_TESTS = (
    "test_cut_off.py::test_who_asks_for_a_packet_socket_is_killed",
    "test_cut_off.py::test_an_open_connection_is_cut_within_a_second[tcp-ip4]",
)
QEMU = "qemu-system-x86_64"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the guest printed: the object of in_guest.py, and the ends of the tests that it ran."""
    require(Loader.CO_RE)
    if platform.machine() != "x86_64" or shutil.which(QEMU) is None or not KERNEL.is_dir():
        pytest.skip("no guest; `make guest` brings it")
    folder = tmp_path_factory.mktemp("guest")
    objects.compile_source(HERE / "lsm.bpf.c", folder / "lsm.bpf.o")
    python, repository = shlex.quote(sys.executable), HERE.parents[2]
    pytest_command = f"{python} -m pytest -q -p no:cacheprovider --color=no -o timeout=300"
    tests = shlex.join(str(HERE / name) for name in TESTS)
    quarantine_tests = shlex.join(str(HERE.parent / "quarantine" / name) for name in QUARANTINE_TESTS)
    script = folder / "run.sh"
    script.write_text(
        f"export PATH={os.environ['PATH']} HOME={Path.home()} PYTHONPATH={repository} PYTHONDONTWRITEBYTECODE=1\n"
        f"export HOPGATE_BPF_OBJECT={objects.find()} HOPGATE_QUARANTINE_OBJECT={objects.build(objects.QUARANTINE)}\n"
        f"cd {repository}\n"
        f"{python} {HERE / 'in_guest.py'} {folder / 'lsm.bpf.o'} 2>&1\n"
        f"{pytest_command} -k '{CHOSEN}' {tests} 2>&1\n"
        f"{pytest_command} {quarantine_tests} 2>&1\n"
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
    assert len(found) == 1, "\n".join(said)
    assert found[0]["release"] != os.uname().release
    assert found[0]["hooks"] == dict.fromkeys((*programs.CGROUP_PROGRAMS, *programs.TRACEPOINT_PROGRAMS), "")
    assert found[0]["lsm"] == [True, False, True, True]
    assert found[0]["quarantine"] == ["Success", "Operation not permitted", "Success"]


def test_they_tell_the_same(said: list[str]) -> None:
    assert re.match(r"\d+ passed(?:, \d+ deselected)? in ", _ends(said)[0])


def test_a_quarantine_holds_there(said: list[str]) -> None:
    assert _ends(said)[1].startswith(f"{len(QUARANTINE_TESTS)} passed in "), "\n".join(said)


def _ends(said: list[str]) -> list[str]:
    """The last line of each run of pytest."""
    ends = [line for line in said if re.match(r"\d+ (?:passed|failed|error|skipped)", line)]
    assert len(ends) == 2, "\n".join(said)
    return ends
