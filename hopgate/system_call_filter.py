"""Parts of a classic BPF program for seccomp(2): what a filter of system calls is put together of. Pure; 8 bytes an instruction."""

from __future__ import annotations

import struct
from typing import Final

# linux/seccomp.h
ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
# linux/bpf_common.h: load a word, jump if equal, jump if any bit is set, return
_LOAD, EQUAL, SET, _RETURN = 0x20, 0x15, 0x45, 0x06
# struct seccomp_data: number, architecture, instruction pointer, then six arguments of 64 bits
NUMBER_AT: Final = 0
ARCHITECTURE_AT: Final = 4
ARGUMENTS_AT: Final = 16
# Calls made through the x32 ABI carry this bit beside the number of a 64-bit call.
X32_BIT: Final = 0x40000000


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
