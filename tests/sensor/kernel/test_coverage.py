"""`hopgate coverage` on the real kernel: every line from traffic that was made, and what it says when something is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from sensor import programs
from sensor.kernel import Loader
from tests.sensor.kernel.conftest import require

pytestmark = [pytest.mark.root, pytest.mark.bpf]

COVERAGE = (sys.executable, "-c", "from hopgate.cli.main import main; main()", "coverage")


def coverage(*options: str, before: tuple[str, ...] = (), **variables: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Exit code, objects by way or fact, standard error."""
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    ran = subprocess.run(
        [*before, *COVERAGE, "--json", *options],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60, env=surroundings,
    )  # fmt: skip
    made = [json.loads(line) for line in ran.stdout.splitlines()]
    return ran.returncode, {each.get("way") or each["fact"]: each for each in made}, ran.stderr


def left() -> list[str]:
    return [each.name for each in programs.root().iterdir() if each.name.startswith("hopgate-coverage-")]


def test_every_way_is_tried_and_nothing_stays() -> None:
    require(Loader.CO_RE)
    code, found, errors = coverage()
    assert (code, errors) == (0, "")
    for way in ("tcp4", "tcp6", "udp4", "udp6", "tls", "quic", "dns_udp", "fast_open", "io_uring", "handed_over", "own_network"):
        assert found[way]["seen"] == "yes", found[way]
    for way in ("ech", "raw4", "raw6", "packet", "dns_tcp", "gone_at_once", "standing", "root_cgroup"):
        assert found[way]["seen"] == "part", found[way]
    assert found["unix"]["seen"] == found["static_tls"]["seen"] == "no"
    stopped = ("tcp4", "tcp6", "udp4", "udp6", "tls", "quic", "fast_open", "io_uring", "raw4", "packet", "standing", "handed_over")
    assert {found[way]["quarantine"] for way in stopped} == {"yes"}
    assert found["root_cgroup"]["quarantine"] == "no"
    assert {found[way]["gate"] for way in ("io_uring", "raw4", "packet")} == {"yes"}
    assert found["tcp4"]["gate"] == "part"
    assert found["BTF"]["there"] is True
    assert left() == []


def test_without_rights_nothing_is_tried_and_it_says_so() -> None:
    code, found, errors = coverage(before=("setpriv", "--bounding-set", "-all", "--inh-caps", "-all"))
    assert code == 3
    assert "(BpfNotPermitted)" in errors
    assert "what still works" in errors
    assert {each["seen"] for each in found.values() if "way" in each and each["how"] == ""} == {"unknown"}


def test_a_missing_right_is_named_and_ends_with_1() -> None:
    require(Loader.CO_RE)
    limited = ("setpriv", "--bounding-set", "-sys_admin,-perfmon", "--inh-caps", "-sys_admin,-perfmon")
    code, found, errors = coverage(before=limited)
    assert code in {1, 3}
    assert "connect4: " in errors
    assert not found["CAP_SYS_ADMIN"]["there"]
    assert "quarantines" in found["CAP_SYS_ADMIN"]["says"]
    assert found["CAP_SYS_PTRACE"]["there"]


def test_an_object_that_is_missing_is_named(tmp_path: Any) -> None:
    _, found, _ = coverage(HOPGATE_BPF_OBJECT=str(tmp_path / "none.o"))
    assert found["objects"]["there"] is False
