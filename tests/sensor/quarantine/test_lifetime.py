"""A quarantine lives longer than who began it, and ends only when it is told to."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sensor import enforcement, libbpf, objects, quarantine
from sensor.enforcement import Enforcement, PinsHeldError, PinsUnusableError
from sensor.quarantine import Origin, QuarantineError
from tests.sensor.quarantine.conftest import SECONDS, World

pytestmark = [pytest.mark.root, pytest.mark.bpf]

REFUSED = {"refused": errno.EPERM}
HELLO = {"reached": "hello"}
BEGIN = """
import sys, time
from pathlib import Path
from sensor.enforcement import Enforcement, PinsHeldError
from sensor.quarantine import Origin, Wanted
enforcement = Enforcement(Path(sys.argv[1]))
for number in sys.argv[2:]:
    enforcement.begin(Wanted(cgroup_id=int(number), subject=f"of {number}"), Origin.COMMAND)
print("begun", flush=True)
sys.stdin.read()
"""


def begin(world: World, *cgroups: Path) -> subprocess.Popen[str]:
    """A process of its own that begins quarantines, and stays until its standard input ends."""
    command = (sys.executable, "-c", BEGIN, str(world.pins), *(str(each.stat().st_ino) for each in cgroups))
    return world.launch(command)


def links(pins: Path) -> set[tuple[int, int]]:
    """Program and hook of every link that is pinned, as the kernel tells them."""
    found = set()
    for path in pins.glob("*/cut_*"):
        descriptor = libbpf.open_pin(path)
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines()
        told = dict(line.split(":", 1) for line in lines if ":" in line)
        found.add((int(told["link_id"]), int(told["prog_id"])))
        os.close(descriptor)
    return found


def test_it_holds_when_who_began_it_is_killed_and_the_next_one_adopts_it(world: World) -> None:
    began = begin(world, world.cgroup)
    assert World.line(began) == "begun\n"
    began.send_signal(signal.SIGKILL)
    began.communicate(timeout=SECONDS)
    assert world.attempt("tcp", f"ip4:{world.server.port}") == REFUSED
    standing = links(world.pins)
    (read,) = enforcement.read(world.pins)
    with Enforcement(world.pins) as adopted:
        assert links(world.pins) == standing
        assert adopted.quarantines() == [read]
        assert world.attempt("tcp", f"ip4:{world.server.port}") == REFUSED
        assert adopted.end(read.cgroup_id)
        assert not adopted.end(read.cgroup_id)
    assert world.attempt("tcp", f"ip4:{world.server.port}") == HELLO


def test_two_at_once_make_one_set(world: World) -> None:
    both = [begin(world, world.cgroup), begin(world, world.sibling)]
    for each in both:
        assert each.stdin is not None
        each.stdin.close()
        each.stdin = None
    for each in both:
        each.communicate(timeout=30)
        assert each.returncode == 0
    assert [each.subject for each in enforcement.read(world.pins)] == sorted(
        f"of {each.stat().st_ino}" for each in (world.cgroup, world.sibling)
    )
    assert len(list(world.pins.iterdir())) == 1
    for cgroup in (world.cgroup, world.sibling):
        assert world.attempt("tcp", f"ip4:{world.server.port}", cgroup=cgroup) == REFUSED


def test_another_version_takes_over_without_a_moment_of_openness(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Enforcement(world.pins) as first:
        first.begin(world.wanted("ip4"), Origin.RESOURCE)
        (before,) = first.quarantines()
    standing = links(world.pins)
    other = tmp_path / "other.o"
    shutil.copy(objects.build(objects.QUARANTINE), other)
    with other.open("ab") as file:
        file.write(b"\0")  # behind an ELF file's sections nothing is read
    monkeypatch.setenv("HOPGATE_QUARANTINE_OBJECT", str(other))
    removed: list[dict[str, object]] = []

    def remove(path: Path, *, ignore_errors: bool = False) -> None:
        if path.name.startswith("v"):
            removed.append({"links": links(world.pins), "attempt": world.attempt("tcp", f"ip4:{world.server.port}")})
        rmtree(path, ignore_errors=ignore_errors)

    rmtree = shutil.rmtree
    monkeypatch.setattr(shutil, "rmtree", remove)
    with Enforcement(world.pins) as second:
        assert second.quarantines() == [before]
    after = links(world.pins)
    assert not after & standing
    assert removed == [{"links": standing | after, "attempt": REFUSED}]
    assert world.attempt("tcp", f"ip4:{world.server.port}") == REFUSED
    assert world.attempt("tcp", f"ip4:{world.gate.port}") == HELLO


def test_a_set_that_is_not_whole_is_made_anew(world: World) -> None:
    with Enforcement(world.pins) as first:
        first.begin(world.wanted(), Origin.COMMAND)
    (folder,) = world.pins.iterdir()
    (folder / "cut_connect4").unlink()
    assert world.attempt("tcp", f"ip6:{world.server.port}") == REFUSED
    with Enforcement(world.pins) as second:
        assert [each.subject for each in second.quarantines()] == ["demo/planner"]
    assert world.attempt("tcp", f"ip4:{world.server.port}") == REFUSED
    assert {path.name for path in world.pins.glob("*/cut_*")} >= {"cut_connect4", "cut_packet"}


def test_an_uninstall_leaves_nothing(world: World) -> None:
    with Enforcement(world.pins) as made:
        made.begin(world.wanted(), Origin.COMMAND)
    programs = {program for _, program in links(world.pins)}
    assert len(programs) == 7
    assert enforcement.uninstall(world.pins) == 1
    assert not world.pins.exists()
    assert world.attempt("tcp", f"ip4:{world.server.port}") == HELLO
    assert enforcement.uninstall(world.pins) == 0
    assert enforcement.read(world.pins) == []


def test_what_must_stay_reachable_is_never_cut_off(world: World) -> None:
    keeper = world.start("hold", f"tcp:ip4:{world.server.port}", cgroup=world.cgroup)
    assert World.line(keeper) == "stands\n"
    root = world.wanted(cgroup=world.cgroup.parent.parent)
    with Enforcement(world.pins, protected=[keeper.pid]) as made:
        for refused in (root, world.wanted(), world.wanted(cgroup=world.cgroup.parent)):
            with pytest.raises(QuarantineError):
                made.begin(refused, Origin.COMMAND)
        assert made.quarantines() == []
        made.begin(world.wanted(cgroup=world.sibling), Origin.COMMAND)
        assert len(made.quarantines()) == 1


def test_in_a_cgroup_namespace_of_its_own_it_knows_its_own_cgroup(world: World) -> None:
    """As in a container: what /proc/self/cgroup says begins at its own cgroup, and would be taken for the root's."""
    program = (
        "import os, sys; from pathlib import Path; from sensor.enforcement import Enforcement\n"
        "from sensor.quarantine import Origin, QuarantineError, Wanted\n"
        "with Enforcement(Path(sys.argv[1])) as made:\n"
        "    for number in sys.argv[2:]:\n"
        "        try:\n"
        "            made.begin(Wanted(cgroup_id=int(number), subject='x'), Origin.COMMAND); print('cut off')\n"
        "        except QuarantineError: print('refused')\n"
    )
    numbers = [str(folder.stat().st_ino) for folder in (world.cgroup, world.cgroup.parent, world.sibling)]
    inside = ("sh", "-c", 'echo 0 >"$1/cgroup.procs"; shift; exec unshare --cgroup -- "$@"', "sh", str(world.cgroup))
    started = world.launch((*inside, sys.executable, "-c", program, str(world.pins), *numbers))
    out, err = started.communicate(timeout=30)
    assert out.split("\n") == ["refused", "refused", "cut off", ""], err


def test_without_a_bpffs_nothing_is_begun_where_none_may_be_mounted(world: World, tmp_path: Path) -> None:
    """In a container it would end with that."""
    pins = tmp_path / "not-a-bpffs" / "hopgate"
    pins.parent.mkdir()
    with pytest.raises(PinsUnusableError, match="expected a bpffs"):
        Enforcement(pins, may_mount=False)
    assert not pins.exists()
    Enforcement(world.pins, may_mount=False).close()


def test_a_cgroup_that_is_gone_can_be_released_and_not_cut_off(world: World) -> None:
    gone = world.cgroup / "beneath"
    gone.mkdir()
    wanted = world.wanted(cgroup=gone)
    with Enforcement(world.pins) as made:
        made.begin(wanted, Origin.COMMAND)
        gone.rmdir()
        assert made.end(wanted.cgroup_id)
        with pytest.raises(QuarantineError, match="gone"):
            made.begin(wanted, Origin.COMMAND)


def test_resources_end_what_they_began_and_nothing_else(world: World) -> None:
    with Enforcement(world.pins) as made:
        made.begin(world.wanted(cgroup=world.sibling), Origin.COMMAND)
        assert made.apply([world.wanted("ip4")]) == ()
        assert world.attempt("tcp", f"ip4:{world.server.port}") == REFUSED
        assert made.apply([world.wanted("ip4"), world.wanted(cgroup=world.cgroup.parent.parent, subject="all")])[0].startswith(
            "`all` is not"
        )
        assert made.apply([]) == ()
        assert world.attempt("tcp", f"ip4:{world.server.port}") == HELLO
        assert world.attempt("tcp", f"ip4:{world.server.port}", cgroup=world.sibling) == REFUSED


def test_both_sides_have_one_layout() -> None:
    source = f"""
    #include <linux/types.h>
    #include "{objects.SOURCES / "quarantine.h"}"
    _Static_assert(__builtin_offsetof(struct quarantine, origin) == 8, "origin");
    _Static_assert(__builtin_offsetof(struct quarantine, subject) == 16, "subject");
    _Static_assert(__builtin_offsetof(struct quarantine, refused_connections) == {quarantine.HEAD.size}, "counters");
    _Static_assert(sizeof(struct quarantine) == {quarantine.VALUE_BYTES}, "quarantine");
    _Static_assert(__builtin_offsetof(struct allowed, address) == 8, "address");
    _Static_assert(__builtin_offsetof(struct allowed, port) == 24, "port");
    _Static_assert(__builtin_offsetof(struct allowed, protocol) == 26, "protocol");
    _Static_assert(sizeof(struct allowed) == {quarantine.ALLOWED.size}, "allowed");
    """
    command = ("clang", "-x", "c", "-fsyntax-only", "-Werror", "-")
    done = [
        subprocess.run(command, input=text, text=True, capture_output=True, check=False, timeout=SECONDS)
        for text in (source, source.replace("26", "27"))
    ]
    assert [each.returncode == 0 for each in done] == [True, False]


def test_who_never_lets_go_of_the_pins_holds_nobody_up_without_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enforcement, "_LOCK_SECONDS", 0.2)
    with Enforcement(world.pins):
        for attempt in (lambda: Enforcement(world.pins), lambda: enforcement.read(world.pins), lambda: enforcement.uninstall(world.pins)):
            with pytest.raises(PinsHeldError, match="another process holds it"):
                attempt()
    assert enforcement.read(world.pins) == []
