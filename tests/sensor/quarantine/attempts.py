"""What a program tries while it is cut off: `python attempts.py NAME [ARGUMENT]`; it prints one JSON object.

`REFUSED` is what the kernel said no to, with its reason; an attempt that got through says what it reached.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import socket
import struct
import sys
import time
from collections.abc import Callable

LOOPBACK = {"ip4": "127.0.0.1", "ip6": "::1", "mapped": "::ffff:127.0.0.1"}
MSG_FASTOPEN = 0x20000000


def family_of(kind: str) -> socket.AddressFamily:
    return socket.AF_INET if kind == "ip4" else socket.AF_INET6


def split(argument: str) -> tuple[str, int]:
    kind, _, port = argument.partition(":")
    return kind, int(port)


def tcp(argument: str) -> object:
    kind, port = split(argument)
    with socket.socket(family_of(kind)) as one:
        one.settimeout(5)
        one.connect((LOOPBACK[kind], port))
        return one.recv(16).decode()


def fast_open(argument: str) -> object:
    kind, port = split(argument)
    with socket.socket(family_of(kind)) as one:
        one.sendto(b"x", MSG_FASTOPEN, (LOOPBACK[kind], port))
        one.settimeout(5)
        return one.recv(16).decode()


def mptcp(argument: str) -> object:
    kind, port = split(argument)
    with socket.socket(family_of(kind), socket.SOCK_STREAM, 262) as one:
        one.settimeout(5)
        one.connect((LOOPBACK[kind], port))
        return one.recv(16).decode()


def udp(argument: str) -> object:
    kind, port = split(argument)
    with socket.socket(family_of(kind), socket.SOCK_DGRAM) as one:
        one.settimeout(5)
        one.sendto(b"x", (LOOPBACK[kind], port))
        return one.recv(16).decode()


def udp_connected(argument: str) -> object:
    kind, port = split(argument)
    with socket.socket(family_of(kind), socket.SOCK_DGRAM) as one:
        one.settimeout(5)
        one.connect((LOOPBACK[kind], port))
        one.send(b"x")
        return one.recv(16).decode()


def raw(argument: str) -> object:
    kind, port = split(argument)
    with socket.socket(family_of(kind), socket.SOCK_RAW, socket.IPPROTO_UDP) as one:
        one.sendto(struct.pack("!HHHH", 4000, port, 8, 0), (LOOPBACK[kind], 0))
        return "sent"


def icmp(argument: str) -> object:
    kind, _ = split(argument)
    protocol = socket.IPPROTO_ICMP if kind == "ip4" else socket.IPPROTO_ICMPV6
    with open("/proc/sys/net/ipv4/ping_group_range", "w", encoding="ascii") as file:
        file.write("0 0")
    with socket.socket(family_of(kind), socket.SOCK_DGRAM, protocol) as one:
        one.settimeout(5)
        one.sendto(struct.pack("!BBHHH", 8 if kind == "ip4" else 128, 0, 0, 0, 1) + bytes(8), (LOOPBACK[kind], 0))
        return len(one.recv(64)) > 0


def packet(_: str) -> object:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)):
        return "made"


def ring(argument: str) -> object:
    """connect(2) by io_uring (io_uring(7)): what the kernel answered."""
    _, port = split(argument)
    client = socket.socket()
    client.settimeout(5)
    libc = ctypes.CDLL(None, use_errno=True)
    parameters = ctypes.create_string_buffer(120)
    descriptor = libc.syscall(425, 4, parameters)
    if descriptor < 0:
        raise RuntimeError(f"io_uring_setup: {os.strerror(ctypes.get_errno())}")
    # struct io_uring_params: ten words, then the offsets of the submission ring (head, tail, mask, entries, flags, dropped, array, …), then
    # those of the completion ring (head, tail, mask, entries, overflow, cqes)
    tail, array = struct.unpack_from("=4xI16xI", parameters, 40)
    (completions,) = struct.unpack_from("=20xI", parameters, 80)
    address = ctypes.create_string_buffer(
        struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton("127.0.0.1") + bytes(8)
    )
    entries = mmap.mmap(descriptor, 4 * 64, mmap.MAP_SHARED, offset=0x10000000)
    struct.pack_into("=BBHiQQ", entries, 0, 16, 0, 0, client.fileno(), 16, ctypes.addressof(address))  # IORING_OP_CONNECT, length as offset
    places = mmap.mmap(descriptor, max(array + 16, completions + 128), mmap.MAP_SHARED)
    struct.pack_into("=I", places, array, 0)
    struct.pack_into("=I", places, tail, 1)
    libc.syscall(426, descriptor, 1, 1, 1, None, 0)
    (result,) = struct.unpack_from("=i", places, completions + 8)
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return client.recv(16).decode()


def hold(argument: str) -> object:
    """An open connection, and when it was told that it is over. Says on standard output that it stands."""
    name, _, rest = argument.partition(":")
    kind, port = split(rest)
    one = socket.socket(family_of(kind), socket.SOCK_STREAM if name == "tcp" else socket.SOCK_DGRAM)
    one.settimeout(10)
    one.connect((LOOPBACK[kind], port))
    if name == "udp":
        one.send(b"x")
    one.recv(16)
    print("stands", flush=True)
    one.settimeout(20)
    try:
        said: object = one.recv(16).decode()
    except OSError as error:
        said = {"refused": error.errno}
    return {"said": said, "at": time.clock_gettime_ns(time.CLOCK_BOOTTIME)}


def in_child_cgroup(argument: str) -> object:
    own = os.environ["CGROUP"] + "/beneath"
    with contextlib.suppress(FileExistsError):
        os.mkdir(own)
    with open(own + "/cgroup.procs", "w", encoding="ascii") as file:
        file.write("0")
    return tcp(argument)


def given_away(argument: str) -> object:
    """A connection that stands is handed to a process of another cgroup, which speaks over it when it is told to."""
    kind, port = split(argument)
    one = socket.create_connection((LOOPBACK[kind], port), 10)
    one.recv(16)
    if os.fork():
        one.close()
        os.wait()
        return "handed"
    with open(os.environ["OTHER_CGROUP"] + "/cgroup.procs", "w", encoding="ascii") as file:
        file.write("0")
    print("stands", flush=True)
    sys.stdin.read(1)
    one.settimeout(5)
    try:
        one.sendall(b"more")
        answer = one.recv(16).decode()
    except OSError as error:
        answer = f"refused {error.errno}"
    print(json.dumps({"child": answer}), flush=True)
    os._exit(0)


ATTEMPTS: dict[str, Callable[[str], object]] = {
    each.__name__: each for each in (tcp, fast_open, mptcp, udp, udp_connected, raw, icmp, packet, ring, hold, in_child_cgroup, given_away)
}

if __name__ == "__main__":
    try:
        said = {"reached": ATTEMPTS[sys.argv[1]](sys.argv[2])}
    except PermissionError as error:
        said = {"refused": error.errno}
    print(json.dumps(said))
