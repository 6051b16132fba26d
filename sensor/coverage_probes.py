"""The probes of `hopgate coverage`: programs loaded, real traffic in a cgroup and a network namespace of its own, and what came of it.

Beside a running sensor it changes nothing: programs are attached beside others, the quarantine that is tried names the probe's own
cgroup alone, and what is sent goes to loopback under names that nobody has. Everything goes when the probe ends, by whatever end.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hopgate import kernel
from sensor import bcc_loader, cgroups, libbpf, objects, privileges, probe_traffic, programs, quarantine_trial
from sensor.coverage import Outcome, Probed, Tried
from sensor.events import Event, Operation, Payload, Wanted
from sensor.handshakes.client_hello import Ech
from sensor.handshakes.first_bytes import FirstBytes
from sensor.handshakes.seen import Answer, Hello, Seen
from sensor.kernel import Kernel, KernelError
from sensor.tracepoints import Tracepoints

_TRAFFIC_SECONDS: Final = 20
# What the kernel told is there when the call returns; this is for the ends of connections, which come later.
_SETTLE_SECONDS: Final = 0.02
_CONNECTS: Final = frozenset({Operation.CONNECT, Operation.SENT})
_LSM: Final = Path("/sys/kernel/security/lsm")
_BTF: Final = Path("/sys/kernel/btf/vmlinux")
_ALL: Final = Wanted(operations=frozenset(Operation))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that this node has or lacks, and what follows."""

    name: str
    there: bool
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All that the probes found. `kernel_error` is why no program could be loaded."""

    probed: Probed
    facts: tuple[Fact, ...]
    kernel_error: KernelError | None = None
    hooks_missing: tuple[str, ...] = ()


@dataclass(slots=True)
class _Told:
    events: list[Event] = field(default_factory=list)
    payloads: list[Payload] = field(default_factory=list)


def probe(filter_program: bytes = b"") -> Found:
    """Try everything. `filter_program`: the system call filter of governed programs; without it they are not tried. Never raises for what a
    node lacks."""
    facts = list(_surroundings())
    if os.geteuid() != 0:
        error = KernelError(f"expected root, got user {os.geteuid()}", remedy="run it as `sudo hopgate coverage`")
        return Found(probed=_nothing(str(error)), facts=tuple(facts), kernel_error=error)
    try:
        kernel = programs.open()
    except KernelError as error:
        return Found(probed=_nothing(str(error)), facts=tuple(facts), kernel_error=error)
    with contextlib.closing(kernel), _cgroup() as folder:
        facts.append(Fact(name="loader", there=True, says=f"{kernel.loader}: {kernel.why}"))
        missing = tuple(f"{hook.name}: {hook.reason or 'not attached'}" for hook in kernel.hooks if not hook.attached)
        free, not_free = _free(kernel, folder)
        quarantined, not_quarantined = _quarantined(folder)
        governed, not_governed = _governed(filter_program)
    probed = Probed(
        free=free,
        quarantined=quarantined,
        governed=governed,
        not_free=not_free,
        not_quarantined=not_quarantined,
        not_governed=not_governed,
    )
    return Found(probed=probed, facts=tuple(facts), hooks_missing=missing)


def _nothing(why: str) -> Probed:
    return Probed(free=None, quarantined=None, governed=None, not_free=why, not_quarantined=why, not_governed=why)


def _free(kernel: Kernel, folder: Path | None) -> tuple[dict[str, Tried] | None, str]:
    kernel.events(Wanted())
    kernel.payloads()
    network, said, why = _traffic(folder)
    if not said:
        return None, why
    time.sleep(_SETTLE_SECONDS)
    told = _Told(payloads=kernel.payloads(), events=kernel.events(_ALL))
    cgroup_id = folder.stat().st_ino if folder is not None else 0
    reader = FirstBytes()
    seen = [each for payload in told.payloads for each in reader.take(payload)]
    return {way: _tried(each, _what_was_seen(each, told.events, seen, network, cgroup_id)) for way, each in said.items()}, ""


def _what_was_seen(said: Mapping[str, Any], events: list[Event], seen: list[Seen], network: int, cgroup_id: int) -> frozenset[str]:
    """By the socket's cookie where it is known, else by port, network and kind: nothing that others do at this moment is taken for it."""
    found = set()
    if said.get("listed"):
        found.add("listed")
    if said.get("ended"):
        found.add("ended")
    cookie, port, family = said.get("cookie", 0), said.get("port", 0), said.get("family", 0)
    cookies = {cookie} - {0}
    for event in events:
        if family:
            mine = event.operation is Operation.SPECIAL_SOCKET and event.family == family and cgroup_id in (0, event.cgroup_id)
        elif event.operation in _CONNECTS:
            at_port = event.netns_cookie == network and event.remote is not None and bool(port) and event.remote.port == port
            mine = event.cookie in cookies or at_port
        else:
            mine = False
        if mine:
            found.add("event")
            cookies |= {event.cookie} - {0}
    for each in seen:
        if each.origin.cookie not in cookies:
            continue
        match each:
            case Hello(server_name=name, ech=ech):
                found |= {"name"} if name in {probe_traffic.TLS_NAME, probe_traffic.QUIC_NAME} else set()
                found |= {"ech"} if ech is not Ech.ABSENT else set()
            case Answer(answer=answer):
                found |= {"name"} if answer.name == probe_traffic.DNS_NAME else set()
            case _:
                pass
    return frozenset(found)


def _tried(said: Mapping[str, Any], seen: frozenset[str] = frozenset()) -> Tried:
    return Tried(outcome=Outcome(said["outcome"]), why=said.get("why", ""), seen=seen)


def _quarantined(folder: Path | None) -> tuple[dict[str, Tried] | None, str]:
    if folder is None:
        return None, "no cgroup could be made to try it in"
    try:
        with quarantine_trial.cut_off(folder):
            _, said, why = _traffic(folder)
    except (KernelError, OSError) as error:
        return None, str(error)
    return ({way: _tried(each) for way, each in said.items()}, "") if said else (None, why)


def _governed(filter_program: bytes) -> tuple[dict[str, Tried] | None, str]:
    if not filter_program:
        return None, "no system call filter is known for this machine"
    _, said, why = _traffic(None, "--filter", filter_program.hex())
    return ({way: _tried(each) for way, each in said.items()}, "") if said else (None, why)


def _traffic(folder: Path | None, *options: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    """The network namespace's cookie, what became of each way, and why there is nothing."""
    places: tuple[str, ...] = ()
    if folder is not None:
        places = ("--cgroup", str(folder / "cgroup.procs"), "--root-cgroup", str(programs.root() / "cgroup.procs"))
    command = (sys.executable, "-m", "sensor.probe_traffic", *places, *options)
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_TRAFFIC_SECONDS, env=surroundings
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 0, {}, f"the traffic could not be made: {error}"
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode != 0 or not lines:
        last = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
        return 0, {}, f"the traffic could not be made: {last[0]}"
    return int(lines[0]["network"]), {each["way"]: each for each in lines[1:]}, ""


@contextlib.contextmanager
def _cgroup() -> Iterator[Path | None]:
    """A cgroup of the probe's own; None where none may be made."""
    folder = programs.root() / f"hopgate-coverage-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        yield None
        return
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """A cgroup can go when its last process is reaped, which init does for those whose parent has ended."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        try:
            folder.rmdir()
        except OSError:
            time.sleep(0.01)
        else:
            return


def _surroundings() -> Iterator[Fact]:
    yield Fact(
        name="BTF", there=_BTF.is_file(), says=f"`{_BTF}`" if _BTF.is_file() else "the kernel does not describe its types: bcc is needed"
    )
    yield _of("libbpf", libbpf.processors, "libbpf.so.1 can be used")
    yield _of("objects", objects.find, "the programs' object is here")
    yield Fact(
        name="bcc", there=bcc_loader.is_here(), says="installed" if bcc_loader.is_here() else "not installed; needed without BTF only"
    )
    held = kernel.held_capabilities()
    for right, lost in privileges.KEPT.items():
        yield Fact(name=f"CAP_{right.name}", there=right in held, says="held" if right in held else f"missing, and with it: {lost}")
    hierarchy = cgroups.find()
    if hierarchy is None:
        yield Fact(name="cgroup2", there=False, says="not mounted: nothing can be seen")
    else:
        hybrid = "; controllers of the old kind beside it, so containers are known by process only" if hierarchy.hybrid else ""
        yield Fact(name="cgroup2", there=True, says=f"mounted at `{hierarchy.mount}`{hybrid}")
    yield _of("tracefs", lambda: Tracepoints().close(), "opened; processes and packet sockets are told by it")
    try:
        modules = _LSM.read_text(encoding="ascii").strip()
    except OSError as error:
        yield Fact(name="LSM", there=False, says=f"`{_LSM}`: {error.strerror}; nothing of the sensor needs it")
    else:
        yield Fact(name="LSM", there="bpf" in modules.split(","), says=f"the kernel names {modules}; nothing of the sensor needs it")
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    limit = "none" if soft == resource.RLIM_INFINITY else f"{soft // 1024} KiB"
    yield _of("memory for rings", lambda: libbpf.try_ring(programs.EVENTS_BYTES), f"a ring was made; the limit of locked memory is {limit}")


def _of(name: str, attempt: Any, says: str) -> Fact:
    try:
        attempt()
    except (OSError, KernelError) as error:
        return Fact(name=name, there=False, says=str(error))
    return Fact(name=name, there=True, says=says)
