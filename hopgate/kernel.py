"""The few system calls that Python 3.11 has no name for: namespaces, privileges, filters, mounts, cgroups by their id.

Each raises OSError as the `os` module's functions do. They act on the calling thread and allocate no state of their own, so they may be
called between fork and exec; `within` alone starts a thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, TypeVar

# linux/sched.h
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

# linux/prctl.h, linux/seccomp.h
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_SECCOMP_MODE_FILTER: Final = 2
# linux/capability.h: version 3 of the structures, two words of capabilities
_CAPABILITY_VERSION: Final = 0x20080522
# Capabilities are bits of a 64-bit word; the kernel says EINVAL beyond the last that it knows.
_CAPABILITY_BITS: Final = 64
_WORD: Final = 0xFFFF_FFFF

# linux/exportfs.h: a folder of kernfs, which cgroups are, by its number of 8 bytes
_FILEID_KERNFS: Final = 0xFE
_FILE_HANDLE: Final = struct.Struct("=IiQ")

# asm-generic/socket.h
_SO_NETNS_COOKIE: Final = 71

_Made = TypeVar("_Made")
_libc = ctypes.CDLL(None, use_errno=True)


class _FilterProgram(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def setns(descriptor: int, kind: int) -> None:
    """Put the calling thread into the namespace behind `descriptor`; `kind` is one CLONE_NEW… flag."""
    _checked(_libc.setns(descriptor, kind))


def leave_network() -> None:
    """Put the calling thread into a network namespace of its own, in which even loopback is down."""
    _checked(_libc.unshare(CLONE_NEWNET))


def within(namespace: int | str | Path, make: Callable[[], _Made]) -> _Made:
    """What `make()` returns when called inside a network namespace (a descriptor or a path, as /proc/PID/ns/net).

    It is called by a thread that enters it and ends there: the calling thread never leaves its own. Only an OSError of `make` is raised
    again.
    """
    descriptor = namespace if isinstance(namespace, int) else os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    made: list[_Made] = []
    failed: list[OSError] = []

    def enter() -> None:
        try:
            setns(descriptor, CLONE_NEWNET)
            made.append(make())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=enter, name="namespace")
    thread.start()
    thread.join()
    if not isinstance(namespace, int):
        os.close(descriptor)
    for error in failed:
        raise error
    return made[0]


def netns_cookie() -> int:
    """The number by which the kernel's own programs know this thread's network namespace; none is given twice. From Linux 5.14 on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asked:
        return int.from_bytes(asked.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), sys.byteorder)


def drop_bounding_set(kept: Collection[int] = ()) -> None:
    """Give up every other capability of the bounding set: no later exec can bring one back. Needs CAP_SETPCAP, so it comes first."""
    for capability in range(_CAPABILITY_BITS):
        if _libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) < 0:
            break
        if capability not in kept:
            _checked(_libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0))


def drop_capabilities(kept: Collection[int] = ()) -> None:
    """Give up every other capability that this process holds, and all that it could hand on. A change of user needs one, so it comes last.

    Those of `kept` (numbers of linux/capability.h) must be held.
    """
    _checked(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    mask = sum(1 << capability for capability in kept)
    words = struct.pack("=6I", mask & _WORD, mask & _WORD, 0, mask >> 32, mask >> 32, 0)
    _checked(_libc.capset(struct.pack("=Ii", _CAPABILITY_VERSION, 0), words))


def keep_capabilities(kept: Collection[int]) -> frozenset[int]:
    """Give up every capability but these (numbers of linux/capability.h), also for what is executed later; which of them are held.

    For the calling thread and those that it starts.
    """
    # Who may not change the bounding set has one that others made for him.
    with contextlib.suppress(PermissionError):
        drop_bounding_set(kept)
    held = held_capabilities() & frozenset(kept)
    drop_capabilities(held)
    return held


def held_capabilities() -> frozenset[int]:
    """The capabilities that the calling thread may use (numbers of linux/capability.h)."""
    held = ctypes.create_string_buffer(24)
    _checked(_libc.capget(struct.pack("=Ii", _CAPABILITY_VERSION, 0), held))
    _, low, _, _, high, _ = struct.unpack("=6I", held.raw)
    return frozenset(capability for capability in range(_CAPABILITY_BITS) if (high << 32 | low) >> capability & 1)


def forbid_new_privileges() -> None:
    """No exec gives this process or its children more rights than it has: setuid files and file capabilities are inert."""
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def install_filter(program: bytes) -> None:
    """Judge every later system call of this process and its children by a classic BPF program. Needs no_new_privs."""
    given = _FilterProgram(len(program) // 8, program)
    _checked(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(given), 0, 0))


def mount(kind: str, place: str | Path) -> None:
    """Mount a file system that has no device (`kind`: bpf, tmpfs) at a folder."""
    _checked(_libc.mount(kind.encode(), os.fsencode(place), kind.encode(), 0, None))


def unmount(place: str | Path) -> None:
    """Undo the last mount at a folder."""
    _checked(_libc.umount2(os.fsencode(place), 0))


def open_cgroup(mount: int, cgroup_id: int) -> int:
    """A descriptor of the cgroup with this id, below the cgroup2 hierarchy that the descriptor `mount` is of. Needs CAP_DAC_READ_SEARCH."""
    opened = _libc.open_by_handle_at(mount, _FILE_HANDLE.pack(8, _FILEID_KERNFS, cgroup_id), os.O_RDONLY | os.O_CLOEXEC)
    if opened < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(opened)


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
