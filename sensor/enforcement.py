"""Quarantines in the kernel: maps and links pinned in a bpffs, in force until they are taken away, whoever of ours lives or dies.

A folder below the pins' folder is one set of programs and maps. It is made under another name and appears when it is whole; a set of other
programs takes over what stands before the older one goes, so that nothing is open in between.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from hopgate import kernel
from sensor import cgroups, cutting, libbpf, objects, programs, quarantine
from sensor.clock import now_ns
from sensor.cutting import Cut
from sensor.kernel import KernelError
from sensor.quarantine import Destination, Origin, Quarantine, QuarantineError, Wanted
from sensor.tracepoints import Tracepoints

PINS: Final = Path("/sys/fs/bpf/hopgate")
# names another folder of pins, for all of hopgate's processes
PINS_VARIABLE: Final = "HOPGATE_PINS"
# Who holds the pins does so for a moment; a process that is stopped with them held must not hold up others without an end.
_LOCK_SECONDS: Final = 10.0
_LOCK_AGAIN_SECONDS: Final = 0.005
# linux/bpf.h enum bpf_attach_type, by the programs' names
HOOKS: Final = {
    "cut_connect4": 10,
    "cut_connect6": 11,
    "cut_sendmsg4": 14,
    "cut_sendmsg6": 15,
    "cut_socket": 2,
    "cut_packet": 1,
}
FAMILY: Final = "cut_family"
_TRACEPOINT: Final = "syscalls/sys_enter_socket"
_BPF_PERF_EVENT: Final = 41
_MAPS: Final = ("quarantined", "allowed")
# bpffs allows no dot in a name
_MAKING: Final = "new"
_NO_RIGHT: Final = frozenset({errno.EPERM, errno.EACCES})


class PinsUnusableError(KernelError):
    """There is no bpffs for the pins, or none can be mounted."""

    code = "BpffsUnusable"


class PinsHeldError(KernelError):
    """Another process holds the pins, and does not let go of them."""

    code = "QuarantinePinsHeld"


class Enforcement:
    """What is in force, held by its maps. One at a time for a folder of pins: a second one waits, ten seconds at most."""

    def __init__(self, pins: Path = PINS, *, protected: Collection[int] = (), may_mount: bool = True) -> None:
        """Adopt what is pinned, or load it. `protected` are processes whose cgroups can't be cut off, beside this one.

        `may_mount`: a bpffs is mounted where there is none; in a container it would end with that. Raises KernelError.
        """
        self._root = programs.root()
        self._own = frozenset(number for process in (os.getpid(), *protected) for number in _lineage(self._root, process))
        self._open = contextlib.ExitStack()
        try:
            with _explained():
                _prepare(pins, may_mount=may_mount)
                self._open.enter_context(_locked(pins))
                self._folder = _adopt_or_load(pins, self._root)
                self._maps = {name: libbpf.open_pin(self._folder / name) for name in _MAPS}
        except BaseException:
            self._open.close()
            raise
        for descriptor in self._maps.values():
            self._open.callback(os.close, descriptor)

    @property
    def gaps(self) -> tuple[str, ...]:
        """What a quarantine does not stop on this machine, a sentence each."""
        if (self._folder / FAMILY).exists():
            return ()
        return ("packet sockets: this kernel has no tracepoint of socket(2) to stop them at",)

    def quarantines(self) -> list[Quarantine]:
        """All that are in force. Raises QuarantineError."""
        return _read(self._maps)

    def begin(self, wanted: Wanted, origin: Origin) -> Cut:
        """Cut a cgroup off, and end its open connections. One that is cut off already is from now on allowed what `wanted` says.

        Raises QuarantineError.
        """
        quarantine.refuse_unsafe(wanted.cgroup_id, root=self._root.stat().st_ino, own=self._own)
        folder = self._place(wanted.cgroup_id)
        if folder is None:
            raise QuarantineError(
                f"expected a cgroup that is there, got id {wanted.cgroup_id}, which is gone", remedy="see `hopgate quarantine --list`"
            )
        standing = next((each for each in self.quarantines() if each.cgroup_id == wanted.cgroup_id), None)
        since_ns = standing.since_ns if standing else now_ns()
        try:
            for destination in wanted.allowed:
                libbpf.store(self._maps["allowed"], quarantine.pack_allowed(wanted.cgroup_id, destination), b"\1")
            value = quarantine.pack_value(wanted.subject, origin, since_ns)
            libbpf.store(self._maps["quarantined"], quarantine.KEY.pack(wanted.cgroup_id), value)
        except OSError as error:
            raise QuarantineError(
                f"the kernel took no further quarantine: {error.strerror}", remedy="release those that are no longer needed"
            ) from error
        for destination in (standing.allowed if standing else frozenset()) - wanted.allowed:
            libbpf.remove(self._maps["allowed"], quarantine.pack_allowed(wanted.cgroup_id, destination))
        return cutting.cut(folder, wanted.allowed)

    def end(self, cgroup_id: int) -> bool:
        """Give a cgroup its network back; False when it was not cut off."""
        ended = libbpf.remove(self._maps["quarantined"], quarantine.KEY.pack(cgroup_id))
        for key in libbpf.keys(self._maps["allowed"], quarantine.ALLOWED.size):
            if quarantine.read_allowed(key)[0] == cgroup_id:
                libbpf.remove(self._maps["allowed"], key)
        return ended

    def apply(
        self,
        wanted: Collection[Wanted],
        origin: Origin = Origin.RESOURCE,
        *,
        decides: Callable[[Quarantine], bool] = lambda _: True,
    ) -> tuple[str, ...]:
        """Make what `origin` wants be in force, and nothing else of his. What could not be done, a sentence each.

        `decides` says of which quarantines of `origin` the caller has the say, where there are several like him; the others stay, but for
        those whose cgroup is gone.
        """
        failed = []
        actual = self.quarantines()
        foreign = {
            each.cgroup_id for each in actual if each.origin is origin and not decides(each) and self._place(each.cgroup_id) is not None
        }
        plan = quarantine.plan(wanted, actual, origin)
        for each in plan.begin:
            try:
                self.begin(each, origin)
            except QuarantineError as error:
                failed.append(f"`{each.subject}` is not quarantined: {error}")
        for cgroup_id in set(plan.end) - foreign:
            self.end(cgroup_id)
        return tuple(failed)

    def _place(self, cgroup_id: int) -> Path | None:
        with cgroups.Cgroups(self._root) as known:
            path = known.path(cgroup_id)
        return self._root / path.lstrip("/") if path else None

    def close(self) -> None:
        """Let go; what is in force stays."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pins_folder() -> Path:
    """Where quarantines are pinned, if nobody says otherwise."""
    return Path(os.environ.get(PINS_VARIABLE) or PINS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What could not be done, and what a quarantine does not stop here while there is one; a sentence each."""

    failed: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()


def keep(
    pins: Path,
    wanted: Collection[Wanted],
    *,
    decides: Callable[[Quarantine], bool] = lambda _: True,
    protected: Collection[int] = (),
    may_mount: bool = True,
) -> Kept:
    """Make what resources want be in force, and nothing else of theirs.

    `decides` is as in `Enforcement.apply`, `protected` and `may_mount` are as it is made with.
    """
    try:
        if not wanted and not any(each.origin is Origin.RESOURCE and decides(each) for each in read(pins)):
            # Nothing is loaded for those who quarantine nobody.
            return Kept()
        with Enforcement(pins, protected=protected, may_mount=may_mount) as kernel:
            failed = kernel.apply(wanted, Origin.RESOURCE, decides=decides)
            return Kept(failed=failed, gaps=kernel.gaps if wanted else ())
    except (KernelError, QuarantineError, OSError) as error:
        return Kept(failed=tuple(f"`{subject}` is not cut off: {error}" for subject in sorted({each.subject for each in wanted})))


def read(pins: Path = PINS) -> list[Quarantine]:
    """What is in force, without loading anything. Raises KernelError and QuarantineError."""
    if not pins.is_dir():
        return []
    with _explained(), _locked(pins):
        return [each for folder in _sets(pins) for each in _read_set(folder)]


def uninstall(pins: Path = PINS) -> int:
    """Take everything away, with all quarantines; how many there were. Raises KernelError."""
    if not pins.is_dir():
        return 0
    with _explained(), _locked(pins):
        ended = sum(len(_read_set(folder)) for folder in _sets(pins))
        for folder in _sets(pins):
            shutil.rmtree(folder)
        shutil.rmtree(pins / _MAKING, ignore_errors=True)
        pins.rmdir()
    return ended


def _prepare(pins: Path, *, may_mount: bool) -> None:
    """See that the pins' folder is there, in a bpffs; one is mounted above it where there is none and that is allowed."""
    above = pins.parent
    if not above.is_dir():
        raise PinsUnusableError(f"expected a folder for a bpffs at `{above}`, found none", remedy="use a kernel with CONFIG_BPF_SYSCALL")
    if not _is_bpffs(above):
        if not may_mount:
            raise PinsUnusableError(
                f"expected a bpffs at `{above}`, found none",
                remedy=f"mount one on the node (`mount -t bpf bpf {above}`), as systemd does, and start the sensor's pod again",
            )
        try:
            kernel.mount("bpf", above)
        except OSError as error:
            raise PinsUnusableError(
                f"expected a bpffs at `{above}`, found none, and none can be mounted: {error.strerror}",
                remedy=f"as root: `mount -t bpf bpf {above}`",
            ) from error
    pins.mkdir(mode=0o700, exist_ok=True)


def _is_bpffs(folder: Path) -> bool:
    device = folder.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        place, _, source = line.partition(" - ")
        if place.split(" ")[2] == name:
            return source.split(" ", 1)[0] == "bpf"
    return False


@contextlib.contextmanager
def _locked(pins: Path) -> Iterator[None]:
    descriptor = os.open(pins, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor, pins)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, pins: Path) -> None:
    end = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= end:
                raise PinsHeldError(
                    f"expected to get hold of `{pins}` in {_LOCK_SECONDS:g} s, another process holds it",
                    remedy="see whether a process of hopgate is stopped (`fuser` names who holds the folder), and try again",
                ) from error
            time.sleep(_LOCK_AGAIN_SECONDS)
        else:
            return


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_RIGHT:
            raise programs.RightMissingError(
                f"expected the right to load BPF programs and to pin them, got: {error.strerror}",
                remedy="run it as root, with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN",
            ) from error
        raise KernelError(f"the quarantine could not be put in force: {error}", remedy="see that this kernel is 5.15 or later") from error


def _adopt_or_load(pins: Path, root: Path) -> Path:
    shutil.rmtree(pins / _MAKING, ignore_errors=True)
    built = objects.find(objects.QUARANTINE)
    prefix = f"v{quarantine.LAYOUT}_{hashlib.sha256(built.read_bytes()).hexdigest()[:12]}_"
    sets = _sets(pins)
    current = next((folder for folder in sets if folder.name.startswith(prefix) and _is_whole(folder)), None)
    others = [folder for folder in sets if folder != current]
    if current is None:
        current = _load(built, pins, prefix, root, [each for folder in others for each in _read_set(folder)])
    for folder in others:
        shutil.rmtree(folder)
    return current


def _sets(pins: Path) -> list[Path]:
    return sorted(folder for folder in pins.iterdir() if folder.name.startswith("v"))


def _is_whole(folder: Path) -> bool:
    """Whether every map is there and every program is still attached."""
    if not all((folder / name).exists() for name in _MAPS):
        return False
    for name in HOOKS:
        try:
            link = libbpf.open_pin(folder / name)
        except OSError:
            return False
        # Of a link whose cgroup is gone, or that was detached by force, the kernel tells cgroup 0.
        attached = _told(link, "cgroup_id")
        os.close(link)
        if not attached:
            return False
    return True


def _told(descriptor: int, name: str) -> int:
    """A number that the kernel tells of a descriptor (proc_pid_fdinfo(5)); 0 when it does not."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines()
    return next((int(line.partition(":")[2]) for line in lines if line.partition(":")[0] == name), 0)


def _load(built: Path, pins: Path, prefix: str, root: Path, standing: Collection[Quarantine]) -> Path:
    loaded = libbpf.load(built, map_bytes={})
    links: dict[str, int] = {}
    try:
        lacking = next((name for name in HOOKS if name not in loaded.programs), None)
        if lacking is not None:
            raise KernelError(
                f"the kernel refuses `{lacking}`: {loaded.refused.get(lacking, 'not in the object')}",
                remedy="see that this kernel is 5.15 or later",
            )
        for each in standing:
            for destination in each.allowed:
                libbpf.store(loaded.maps["allowed"], quarantine.pack_allowed(each.cgroup_id, destination), b"\1")
            value = quarantine.pack_value(each.subject, each.origin, each.since_ns)
            libbpf.store(loaded.maps["quarantined"], quarantine.KEY.pack(each.cgroup_id), value)
        cgroup = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name, attach_type in HOOKS.items():
                links[name] = libbpf.link(loaded.programs[name], cgroup, attach_type)
        finally:
            os.close(cgroup)
        with contextlib.suppress(OSError, KeyError):
            links[FAMILY] = link_family(loaded.programs[FAMILY])
        making = pins / _MAKING
        making.mkdir(mode=0o700)
        for name in _MAPS:
            libbpf.pin(loaded.maps[name], making / name)
        for name, link in links.items():
            libbpf.pin(link, making / name)
        return making.rename(pins / f"{prefix}{now_ns()}")
    finally:
        for link in links.values():
            os.close(link)
        loaded.close()


def link_family(program: int) -> int:
    """Attach the program that ends who asks for a family no cgroup hook sees. Raises OSError."""
    with contextlib.closing(Tracepoints()) as tracepoints:
        event = tracepoints.open(_TRACEPOINT)
    try:
        link = libbpf.link(program, event, _BPF_PERF_EVENT)
        tracepoints.enable(event)
    finally:
        os.close(event)
    return link


def _read_set(folder: Path) -> list[Quarantine]:
    maps: dict[str, int] = {}
    try:
        for name in _MAPS:
            with contextlib.suppress(FileNotFoundError):
                maps[name] = libbpf.open_pin(folder / name)
        return _read(maps)
    finally:
        for descriptor in maps.values():
            os.close(descriptor)


def _read(maps: dict[str, int]) -> list[Quarantine]:
    if "quarantined" not in maps:
        return []
    size = _told(maps["quarantined"], "value_size")
    found = {}
    for key in libbpf.keys(maps["quarantined"], quarantine.KEY.size):
        value = libbpf.look_up(maps["quarantined"], key, size)
        if value is not None:
            number = int(quarantine.KEY.unpack(key)[0])
            found[number] = quarantine.read_value(number, value, frozenset())
    allowed: dict[int, set[Destination]] = {}
    if "allowed" in maps and _told(maps["allowed"], "key_size") == quarantine.ALLOWED.size:
        for key in libbpf.keys(maps["allowed"], quarantine.ALLOWED.size):
            number, destination = quarantine.read_allowed(key)
            if destination is not None:
                allowed.setdefault(number, set()).add(destination)
    return [replace(each, allowed=frozenset(allowed.get(number, ()))) for number, each in sorted(found.items())]


def _lineage(root: Path, process: int) -> list[int]:
    """The ids of a process's cgroup and of all above it, without the root; none when it is gone."""
    place = _cgroup_of(root, process)
    found = []
    while place is not None and place not in (root, place.parent):
        with contextlib.suppress(OSError):
            found.append(place.stat().st_ino)
        place = place.parent
    return found


def _cgroup_of(root: Path, process: int) -> Path | None:
    """The folder of a process's cgroup; None when it is gone."""
    try:
        inner = cgroups.of_process(process) or cgroups.ROOT
    except OSError:
        return None
    place = Path(os.path.normpath(root / inner.lstrip("/")))
    if place.is_relative_to(root) and process in cutting.processes_in(place):
        return place
    # In a cgroup namespace of its own, as containers have, paths are told from there on: the process is looked for in the tree.
    return next((folder for folder in cutting.tree(root) if process in cutting.processes_in(folder)), None)
