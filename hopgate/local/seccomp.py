"""The system calls that would lead a program past its network namespace, as a classic BPF program for seccomp(2).

A network namespace holds IP, abstract Unix sockets and netlink. It does not hold sockets between virtual machines, the terminal's
input queue, or what another user's keyring lends; and io_uring makes sockets and ioctls without the calls that are judged
here. What is not named in the table is allowed: the filter closes ways out, it is no allow-list of the kernel.

Pure: `program` maps a machine's name to bytes. The answers are errors, never a kill, so that a program that only probes goes on.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hopgate import system_call_filter as filters
from hopgate.local.errors import LocalError

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
# Every other family is either no business of a program without rights, or a way out (AF_VSOCK above all).
SOCKET_FAMILIES: Final = (_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK)
# asm-generic/ioctls.h: typing into the terminal, and the console's clipboard, which does the same
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C


class SeccompError(LocalError):
    """No filter can be made for this machine."""

    code = "MachineUnknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    """The numbers of the calls that are judged, on one architecture."""

    socket: int
    socketpair: int
    ioctl: int
    add_key: int
    request_key: int
    keyctl: int
    bpf: int
    # The same on every architecture, as all calls since Linux 5.1.
    io_uring: tuple[int, ...] = (425, 426, 427)


_MACHINES: Final[Mapping[str, _Machine]] = {
    "x86_64": _Machine(socket=41, socketpair=53, ioctl=16, add_key=248, request_key=249, keyctl=250, bpf=321),
    "aarch64": _Machine(socket=198, socketpair=199, ioctl=29, add_key=217, request_key=218, keyctl=219, bpf=280),
}


def program(machine: str) -> bytes:
    """The filter for `machine` (as `uname -m` says it): 8 bytes an instruction. Raises SeccompError for an unknown one."""
    found = _MACHINES.get(machine)
    if found is None:
        known = ", ".join(sorted(_MACHINES))
        raise SeccompError(f"expected a machine of {known}, got `{machine[:40]}`", remedy="run hopgate on one of these")
    instructions = filters.begin(filters.ARCHITECTURES[machine])
    for number in found.io_uring:
        instructions += filters.when(filters.EQUAL, number, [filters.answer(errno.ENOSYS)])
    for number in (found.add_key, found.request_key, found.keyctl, found.bpf):
        instructions += filters.when(filters.EQUAL, number, [filters.answer(errno.EPERM)])
    for number in (found.socket, found.socketpair):
        instructions += filters.when(filters.EQUAL, number, _families())
    instructions += filters.when(filters.EQUAL, found.ioctl, _ioctls())
    instructions.append(filters.give(filters.ALLOW))
    return b"".join(instructions)


def _families() -> list[bytes]:
    """Judge the first argument. Its type is int: the kernel looks at the lower 32 bits, and so does this."""
    body = [filters.load(filters.ARGUMENTS_AT)]
    for family in SOCKET_FAMILIES:
        body += filters.when(filters.EQUAL, family, [filters.give(filters.ALLOW)])
    return [*body, filters.answer(errno.EAFNOSUPPORT)]


def _ioctls() -> list[bytes]:
    """Judge the second argument, of which the kernel uses the lower 32 bits."""
    body = [filters.load(filters.ARGUMENTS_AT + 8)]
    for request in (_TIOCSTI, _TIOCLINUX):
        body += filters.when(filters.EQUAL, request, [filters.answer(errno.EPERM)])
    return [*body, filters.give(filters.ALLOW)]
