"""The sensor's programs in the kernel: which way they come in, where each belongs, and what they tell."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from sensor import bcc_loader, cgroups, libbpf, objects
from sensor.events import EVENT, Event, Payload, Wanted, read_events, read_payload
from sensor.kernel import Counter, Hook, Kernel, KernelError, Loader
from sensor.ring import HEAD_BYTES, Ring
from sensor.tracepoints import Tracepoints

# What 100,000 events a second leave in a quarter of a second, and some 500 hellos.
EVENTS_BYTES: Final = 4 << 20
PAYLOADS_BYTES: Final = 1 << 20
_BTF: Final = Path("/sys/kernel/btf/vmlinux")
_RINGS: Final = ("events", "payloads")
_NO_RIGHT: Final = frozenset({errno.EPERM, errno.EACCES})

# linux/bpf.h: enum bpf_attach_type, by the names of the programs.
CGROUP_PROGRAMS: Final = {
    "connect4": 10,
    "connect6": 11,
    "sendmsg4": 14,
    "sendmsg6": 15,
    "packet_out": 1,
    "packet_in": 0,
    "socket_stands": 3,
    "socket_made": 2,
}
TRACEPOINT_PROGRAMS: Final = {
    "executed": "sched/sched_process_exec",
    "forked": "task/task_newtask",
    "exited": "sched/sched_process_exit",
    "packet_socket": "syscalls/sys_enter_socket",
    "ring_made": "syscalls/sys_enter_io_uring_setup",
}


class RightMissingError(KernelError):
    """This process may not load programs."""

    code = "BpfNotPermitted"


class NoWayInError(KernelError):
    """Neither objects nor bcc can be used here."""

    code = "BpfLoaderMissing"


class NoCgroupsError(KernelError):
    """There is no cgroup2 to attach to."""

    code = "CgroupsMissing"


class LoadedPrograms(Protocol):
    """What a loader has brought into the kernel."""

    programs: dict[str, int]
    maps: dict[str, int]
    refused: dict[str, str]

    def close(self) -> None:
        """Give it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Bytes of the rings: powers of two, and whole pages."""

    events: int = EVENTS_BYTES
    payloads: int = PAYLOADS_BYTES


def open(  # noqa: A001 - `programs.open(...)` reads as it should; nothing here opens files by that name
    *, loader: Loader | None = None, sizes: Sizes | None = None, cgroup: Path | None = None, btf: Path = _BTF
) -> Kernel:
    """Load and attach the programs, at the root of cgroup2 unless a `cgroup` is named. `loader` forces one way in.

    A program that can't be loaded or attached is in `hooks` with the kernel's reason. Raises KernelError when none can.
    """
    place = cgroup or root()
    way, why = _choose(loader, btf)
    chosen = sizes or Sizes()
    sized = {"events": chosen.events, "payloads": chosen.payloads}
    try:
        libbpf.try_ring(chosen.events)
        loaded: LoadedPrograms = libbpf.load(objects.find(), map_bytes=sized) if way is Loader.CO_RE else bcc_loader.load(sized)
    except OSError as error:
        if error.errno in _NO_RIGHT:
            raise RightMissingError(
                f"expected the right to load BPF programs, got: {error.strerror}",
                remedy="start the sensor as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
            ) from error
        raise KernelError(f"the BPF programs could not be loaded: {error}", remedy="see that this kernel is 5.8 or later") from error
    with contextlib.ExitStack() as undo:
        undo.callback(loaded.close)
        rings = {}
        for name in _RINGS:
            rings[name] = Ring(loaded.maps[name], sized[name])
            undo.callback(rings[name].close)
        hooks, links = _attach(loaded, place)
        undo.pop_all()
    return _Programs(way, why, loaded, hooks=hooks, links=links, rings=rings)


def root() -> Path:
    """Where cgroup2 is mounted, for programs that see all of the machine. Raises NoCgroupsError."""
    found = cgroups.find()
    if found is None:
        raise NoCgroupsError(
            "expected a cgroup2 file system in /proc/self/mountinfo, found none", remedy="mount it: `mount -t cgroup2 none /sys/fs/cgroup`"
        )
    return found.mount


def _choose(forced: Loader | None, btf: Path) -> tuple[Loader, str]:
    if forced is not None:
        return forced, f"{forced} was asked for"
    if not btf.is_file():
        lacking = f"this kernel does not describe its types (no `{btf}`)"
    else:
        try:
            objects.find()
        except objects.ObjectMissingError as error:
            lacking = str(error)
        else:
            return Loader.CO_RE, "the kernel describes its types (BTF), and the objects built for it are here"
    if not bcc_loader.is_here():
        raise NoWayInError(
            f"{lacking}, and bcc is not installed",
            remedy="build the objects (`make bpf` in a checkout), or install python3-bpfcc and this kernel's headers",
        )
    return Loader.BCC, f"{lacking}; so they are compiled here"


def _attach(loaded: LoadedPrograms, place: Path) -> tuple[tuple[Hook, ...], list[int]]:
    links: list[int] = []
    hooks: list[Hook] = []

    def attach(name: str, link: Callable[[int], int]) -> None:
        program = loaded.programs.get(name)
        if program is None:
            hooks.append(Hook(name=name, attached=False, reason=loaded.refused.get(name, "not in the object")))
            return
        try:
            links.append(link(program))
        except OSError as error:
            hooks.append(Hook(name=name, attached=False, reason=error.strerror or str(error)))
        else:
            hooks.append(Hook(name=name, attached=True))

    try:
        cgroup = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NoCgroupsError(f"expected a cgroup at `{place}`, got: {error.strerror}", remedy="name a folder of cgroup2") from error
    try:
        for name, attach_type in CGROUP_PROGRAMS.items():
            attach(name, partial(libbpf.link, target=cgroup, attach_type=attach_type))
    finally:
        os.close(cgroup)
    try:
        tracepoints = Tracepoints()
    except OSError as error:
        reason = f"tracefs: {error.strerror}"
        hooks += [Hook(name=name, attached=False, reason=reason) for name in TRACEPOINT_PROGRAMS]
    else:
        with contextlib.closing(tracepoints):
            for name, tracepoint in TRACEPOINT_PROGRAMS.items():
                attach(name, partial(tracepoints.attach, tracepoint=tracepoint))
    return tuple(hooks), links


class _Programs:
    """Kernel, by whichever loader."""

    def __init__(
        self, loader: Loader, why: str, loaded: LoadedPrograms, *, hooks: tuple[Hook, ...], links: list[int], rings: dict[str, Ring]
    ) -> None:
        self.loader: Final = loader
        self.why: Final = why
        self.hooks: Final = hooks
        self._loaded = loaded
        self._links = links
        self._rings = rings
        self._processors = libbpf.processors()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The rings'."""
        return tuple(ring.descriptor for ring in self._rings.values())

    def events(self, wanted: Wanted | None = None) -> list[Event]:
        """What the events ring holds."""
        return list(read_events(self._rings["events"].read_alike(EVENT.size), wanted, head_bytes=HEAD_BYTES))

    def payloads(self) -> list[Payload]:
        """What the payloads ring holds."""
        return [read_payload(record) for record in self._rings["payloads"].read()]

    def counters(self) -> Mapping[str, Counter]:
        """The sums over all processors."""
        sums = [self._count(index) for index in range(4)]
        return {name: Counter(attempts=sums[2 * place], lost=sums[2 * place + 1]) for place, name in enumerate(_RINGS)}

    def _count(self, index: int) -> int:
        values = libbpf.look_up(self._loaded.maps["counts"], struct.pack("=I", index), 8 * self._processors)
        return sum(struct.unpack(f"={self._processors}Q", values)) if values else 0

    def close(self) -> None:
        """Detach everything."""
        for link in self._links:
            os.close(link)
        self._links.clear()
        for ring in self._rings.values():
            ring.close()
        self._rings.clear()
        self._loaded.close()
