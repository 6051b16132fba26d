"""What the sensor's process may do once its programs are in the kernel: some capabilities, each with its reason, and no system call that
reads another process, runs a program or changes the kernel.

It reads what programs are called, which files they map and the names of their variables, through /proc. The right to that (SYS_PTRACE)
would let it open their memory there too: that it does not is the code's word. The calls that are made for it are refused.
"""

from __future__ import annotations

import errno
import platform
from collections.abc import Collection, Mapping
from enum import IntEnum
from typing import Final

from hopgate import kernel
from hopgate import system_call_filter as filters


class Capability(IntEnum):
    """Of linux/capability.h."""

    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    NET_ADMIN = 12
    SYS_PTRACE = 19
    SYS_ADMIN = 21


# What is lost without each. SYS_ADMIN has BPF and PERFMON in it.
KEPT: Final[Mapping[Capability, str]] = {
    Capability.SYS_ADMIN: "connections that were open before the sensor, and quarantines",
    Capability.SYS_PTRACE: "files, libraries and names of variables of other users' programs",
    Capability.DAC_READ_SEARCH: "names of cgroups, and names of variables of other users' programs",
    Capability.NET_ADMIN: "the end of open connections in a quarantine",
    Capability.DAC_OVERRIDE: "records in a data folder that is another user's",
}
# Of a node's sensor, whose records have a folder of their own: looking takes the first, cutting off all.
LOOKING: Final = (Capability.SYS_ADMIN, Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH)
ENFORCING: Final = (*LOOKING, Capability.NET_ADMIN)


_SAME: Final = {"pidfd_getfd": 438}
# The calls that are refused, by the machine's name.
_REFUSED: Final[Mapping[str, Mapping[str, int]]] = {
    "x86_64": {
        "execve": 59,
        "ptrace": 101,
        "pivot_root": 155,
        "acct": 163,
        "swapon": 167,
        "swapoff": 168,
        "reboot": 169,
        "init_module": 175,
        "delete_module": 176,
        "kexec_load": 246,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "finit_module": 313,
        "kexec_file_load": 320,
        "execveat": 322,
        **_SAME,
    },
    "aarch64": {
        "pivot_root": 41,
        "acct": 89,
        "kexec_load": 104,
        "init_module": 105,
        "delete_module": 106,
        "ptrace": 117,
        "reboot": 142,
        "execve": 221,
        "swapon": 224,
        "swapoff": 225,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "finit_module": 273,
        "execveat": 281,
        "kexec_file_load": 294,
        **_SAME,
    },
}


def program(machine: str) -> bytes:
    """The filter; empty for a machine whose calls are not known."""
    if machine not in _REFUSED:
        return b""
    parts = filters.begin(filters.ARCHITECTURES[machine])
    for number in _REFUSED[machine].values():
        parts += filters.when(filters.EQUAL, number, [filters.answer(errno.EPERM)])
    return b"".join([*parts, filters.give(filters.ALLOW)])


def drop(needed: Collection[Capability]) -> tuple[str, ...]:
    """Keep only what is needed from now on, for this process. What is missing of it, a sentence each.

    To be called before there are threads. Raises OSError.
    """
    held = kernel.keep_capabilities(needed)
    kernel.forbid_new_privileges()
    missing = [f"the right CAP_{right.name} is missing: {KEPT[right]}" for right in needed if right not in held]
    filter_ = program(platform.machine())
    if filter_:
        kernel.install_filter(filter_)
    else:
        missing.append(f"system calls are not filtered: those of `{platform.machine()}` are not known")
    return tuple(missing)
