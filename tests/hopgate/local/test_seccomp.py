"""The filter's verdicts, read by an interpreter of classic BPF of our own; test_sandbox.py asks the kernel the same."""

from __future__ import annotations

import errno
import struct

import pytest

from hopgate.local import seccomp
from hopgate.local.seccomp import SeccompError

X86, ARM, I386 = 0xC000003E, 0xC00000B7, 0x40000003
ALLOW = 0x7FFF0000
HIGH = 0xFFFFFFFF00000000
ARCHITECTURES = {"x86_64": X86, "aarch64": ARM}
SOCKET, SOCKETPAIR, IOCTL, KEYCTL, ADD_KEY, REQUEST_KEY, BPF, READ = (
    {"x86_64": 41, "aarch64": 198},
    {"x86_64": 53, "aarch64": 199},
    {"x86_64": 16, "aarch64": 29},
    {"x86_64": 250, "aarch64": 219},
    {"x86_64": 248, "aarch64": 217},
    {"x86_64": 249, "aarch64": 218},
    {"x86_64": 321, "aarch64": 280},
    {"x86_64": 0, "aarch64": 63},
)
IO_URING = {"x86_64": 425, "aarch64": 425}


def verdict(program: bytes, number: int, architecture: int, *arguments: int) -> int:
    """What the kernel's interpreter returns (Documentation/networking/filter.rst), for the instructions used."""
    given = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *given)
    instructions = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    at = accumulator = 0
    while True:
        code, jump_true, jump_false, value = instructions[at]
        at += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("<I", data, value)[0]
            case 0x15:
                at += jump_true if accumulator == value else jump_false
            case 0x45:
                at += jump_true if accumulator & value else jump_false
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(f"instruction {code:#x} is not known")


def refused(error: int) -> int:
    return 0x00050000 | error


CASES = {
    "read": (READ, (), ALLOW),
    "a Unix socket": (SOCKET, (1, 1), ALLOW),
    "an IPv4 socket": (SOCKET, (2, 1), ALLOW),
    "an IPv6 socket": (SOCKET, (10, 1), ALLOW),
    "a netlink socket": (SOCKET, (16, 3), ALLOW),
    "a Unix socket pair": (SOCKETPAIR, (1, 1), ALLOW),
    "a vsock socket": (SOCKET, (40, 1), refused(errno.EAFNOSUPPORT)),
    "a vsock socket with high bits set": (SOCKET, (HIGH | 40, 1), refused(errno.EAFNOSUPPORT)),
    "an IPv4 socket with high bits set": (SOCKET, (HIGH | 2, 1), ALLOW),
    "a packet socket": (SOCKET, (17, 3), refused(errno.EAFNOSUPPORT)),
    "an AF_ALG socket": (SOCKET, (38, 5), refused(errno.EAFNOSUPPORT)),
    "a Bluetooth socket": (SOCKET, (31, 1), refused(errno.EAFNOSUPPORT)),
    "a TIPC socket": (SOCKET, (30, 1), refused(errno.EAFNOSUPPORT)),
    "a TIPC socket pair": (SOCKETPAIR, (30, 1), refused(errno.EAFNOSUPPORT)),
    "an SMC socket": (SOCKET, (43, 1), refused(errno.EAFNOSUPPORT)),
    "an XDP socket": (SOCKET, (44, 3), refused(errno.EAFNOSUPPORT)),
    "family 0": (SOCKET, (0, 1), refused(errno.EAFNOSUPPORT)),
    "TIOCSTI": (IOCTL, (0, 0x5412), refused(errno.EPERM)),
    "TIOCSTI with high bits set": (IOCTL, (0, HIGH | 0x5412), refused(errno.EPERM)),
    "TIOCLINUX": (IOCTL, (0, 0x541C), refused(errno.EPERM)),
    "TIOCGWINSZ": (IOCTL, (0, 0x5413), ALLOW),
    "TIOCSTI as a descriptor's number": (IOCTL, (0x5412, 0x5413), ALLOW),
    "io_uring_setup": (IO_URING, (), refused(errno.ENOSYS)),
    "io_uring_enter": (dict.fromkeys(ARCHITECTURES, 426), (), refused(errno.ENOSYS)),
    "io_uring_register": (dict.fromkeys(ARCHITECTURES, 427), (), refused(errno.ENOSYS)),
    "pidfd_send_signal, the call before": (dict.fromkeys(ARCHITECTURES, 424), (), ALLOW),
    "open_tree, the call after": (dict.fromkeys(ARCHITECTURES, 428), (), ALLOW),
    "keyctl": (KEYCTL, (), refused(errno.EPERM)),
    "add_key": (ADD_KEY, (), refused(errno.EPERM)),
    "request_key": (REQUEST_KEY, (), refused(errno.EPERM)),
    "bpf": (BPF, (), refused(errno.EPERM)),
}


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize("case", CASES)
def test_each_call_has_its_verdict(machine: str, case: str) -> None:
    numbers, arguments, expected = CASES[case]
    assert verdict(seccomp.program(machine), numbers[machine], ARCHITECTURES[machine], *arguments) == expected


@pytest.mark.parametrize(
    ("machine", "number", "architecture"),
    [
        ("x86_64", 359, I386),
        ("x86_64", 102, I386),
        ("x86_64", 0x40000000 | 41, X86),
        ("x86_64", 0x40000000, X86),
        ("aarch64", 281, 0x40000028),
    ],
    ids=["i386 socket", "i386 socketcall", "x32 socket", "x32 read", "32-bit ARM socket"],
)
def test_a_call_through_another_abi_does_not_exist(machine: str, number: int, architecture: int) -> None:
    assert verdict(seccomp.program(machine), number, architecture, 2, 1) == refused(errno.ENOSYS)


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_every_number_has_a_verdict_and_only_named_ones_are_refused(machine: str) -> None:
    program = seccomp.program(machine)
    named = (SOCKET, SOCKETPAIR, KEYCTL, ADD_KEY, REQUEST_KEY, BPF)
    expected = {numbers[machine] for numbers in named} | {425, 426, 427}
    found = {number for number in range(1024) if verdict(program, number, ARCHITECTURES[machine]) != ALLOW}
    assert found == expected  # sockets because of their family 0


def test_a_machine_that_is_not_known_is_an_error_that_names_it() -> None:
    with pytest.raises(SeccompError, match="`riscv64`") as raised:
        seccomp.program("riscv64")
    assert raised.value.code == "MachineUnknown"
