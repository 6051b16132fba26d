"""Parts of a classic BPF program for seccomp(2): what a filter of system calls is put together of. Pure; 8 bytes an instruction."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# linux/seccomp.h
ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
# linux/bpf_common.h: load a word, jump if equal, jump if any bit is set, return
_LOAD, EQUAL, _SET, _RETURN = 0x20, 0x15, 0x45, 0x06
# struct seccomp_data: number, architecture, instruction pointer, then six arguments of 64 bits
_NUMBER_AT: Final = 0
_ARCHITECTURE_AT: Final = 4
ARGUMENTS_AT: Final = 16
# Calls made through the x32 ABI carry this bit beside the number of a 64-bit call.
_X32_BIT: Final = 0x40000000


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """AUDIT_ARCH_… of linux/audit.h, and whether it has the x32 ABI."""

    number: int
    x32: bool


# By the machine's name, as `uname -m` says it.
ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    "x86_64": Architecture(number=0xC000003E, x32=True),
    "aarch64": Architecture(number=0xC00000B7, x32=False),
}


def begin(architecture: Architecture) -> list[bytes]:
    """Look at the number of a call of this architecture's own ABI. Calls through another one (i386, x32, 32-bit ARM) get ENOSYS: their
    numbers mean something else.
    """
    refuse = answer(errno.ENOSYS)
    instructions = [load(_ARCHITECTURE_AT), *unless(EQUAL, architecture.number, refuse), load(_NUMBER_AT)]
    return instructions + when(_SET, _X32_BIT, [refuse]) if architecture.x32 else instructions


def load(offset: int) -> bytes:
    """Look at a word of what is known of the call. Machines are little-endian, so the lower half of an argument is at its offset."""
    return _instruction(_LOAD, 0, 0, offset)


def give(value: int) -> bytes:
    """The end: `ALLOW`, or what `answer` makes."""
    return _instruction(_RETURN, 0, 0, value)


def answer(error: int) -> bytes:
    """The end: the call fails with this error and is not made."""
    return give(_ERRNO | error)


def when(test: int, value: int, body: list[bytes]) -> list[bytes]:
    """Do `body` where the word passes the test."""
    return [_instruction(test, 0, len(body), value), *body]


def unless(test: int, value: int, instruction: bytes) -> list[bytes]:
    """Do one instruction where the word does not pass the test."""
    return [_instruction(test, 1, 0, value), instruction]


def _instruction(code: int, jump_true: int, jump_false: int, value: int) -> bytes:
    return struct.pack("<HBBI", code, jump_true, jump_false, value)
