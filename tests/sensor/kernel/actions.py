"""What a program does that the sensor is to see: `python actions.py NAME [ARGUMENT]`, in a process of its own that says who it is.

Each action is what an agent's author would write, with its server in the same process. It prints one JSON object.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable

LOOPBACK = {"ip4": "127.0.0.1", "ip6": "::1", "mapped": "::ffff:127.0.0.1"}
MPTCP = 262  # IPPROTO_MPTCP
TCP_FASTOPEN = 23
MSG_FASTOPEN = 0x20000000
HELLO = b"\x16\x03\x01\x02\x05\x01\x00\x02\x01\x03\x03" + bytes(range(256)) * 2 + bytes(255)
HELLO = HELLO[: 5 + 0x205]
LONG_HELLO = b"\x16\x03\x01\x3c\x04\x01\x00\x3c\x00" + bytes(0x3C00)


def family_of(kind: str) -> socket.AddressFamily:
    return socket.AF_INET if kind == "ip4" else socket.AF_INET6


def cookie_of(one: socket.socket) -> int:
    return int(struct.unpack("=Q", one.getsockopt(socket.SOL_SOCKET, 57, 8))[0])  # SO_COOKIE


def listen(kind: str, protocol: int = 0) -> socket.socket:
    server = socket.socket(family_of(kind), socket.SOCK_STREAM, protocol)
    server.bind((LOOPBACK[kind], 0))
    server.listen(64)
    return server


def exchange(client: socket.socket, server: socket.socket, pieces: list[bytes], *, before: int = 0) -> dict[str, object]:
    """Send, answer, close in order; what is known of it from here."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    accepted, _ = server.accept()
    for piece in pieces:
        client.sendall(piece)
    answer = b"ok"
    size = before + sum(map(len, pieces))
    while size:
        size -= len(accepted.recv(size))
    accepted.sendall(answer)
    client.recv(len(answer), socket.MSG_WAITALL)
    said: dict[str, object] = {
        "cookie": cookie_of(client),
        "accepted": cookie_of(accepted),
        "port": server.getsockname()[1],
        "client_port": client.getsockname()[1],
    }
    client.shutdown(socket.SHUT_WR)
    accepted.recv(1)
    accepted.close()
    client.recv(1)
    client.close()
    return said


def connect(kind: str) -> dict[str, object]:
    server, client = listen(kind), socket.socket(family_of(kind))
    client.connect(server.getsockname()[:2])
    return exchange(client, server, [b"hello"])


def mptcp(kind: str) -> dict[str, object]:
    server, client = listen(kind, MPTCP), socket.socket(family_of(kind), socket.SOCK_STREAM, MPTCP)
    client.connect(server.getsockname()[:2])
    accepted, _ = server.accept()
    client.sendall(HELLO)
    accepted.recv(len(HELLO), socket.MSG_WAITALL)
    port, client_port = server.getsockname()[1], client.getsockname()[1]
    client.close()
    accepted.close()
    return {"port": port, "client_port": client_port}


def fast_open(kind: str) -> dict[str, object]:
    """Twice: the first connection gets the cookie that lets the second one send with its SYN."""
    server = listen(kind)
    server.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
    said = {}
    for _ in range(2):
        client = socket.socket(family_of(kind))
        client.sendto(HELLO, MSG_FASTOPEN, server.getsockname()[:2])
        said = exchange(client, server, [], before=len(HELLO))
    return said


def refused(kind: str) -> dict[str, object]:
    free = listen(kind)
    port = free.getsockname()[1]
    free.close()
    client = socket.socket(family_of(kind))
    with contextlib.suppress(ConnectionRefusedError):
        client.connect((LOOPBACK[kind], port))
    return {"port": port, "cookie": cookie_of(client)}


def many(count: str) -> dict[str, object]:
    server = listen("ip4")
    for _ in range(int(count)):
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        client.close()
        accepted.close()
    return {"port": server.getsockname()[1]}


def many_hellos(count: str) -> dict[str, object]:
    server = listen("ip4")
    for _ in range(int(count)):
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        client.sendall(HELLO)
        client.close()
        accepted.close()
    return {"port": server.getsockname()[1]}


def datagrams(kind: str) -> dict[str, object]:
    """Three to one address, one to another."""
    server, other = socket.socket(family_of(kind), socket.SOCK_DGRAM), socket.socket(family_of(kind), socket.SOCK_DGRAM)
    server.bind((LOOPBACK[kind], 0))
    other.bind((LOOPBACK[kind], 0))
    client = socket.socket(family_of(kind), socket.SOCK_DGRAM)
    for _ in range(3):
        client.sendto(b"x", server.getsockname()[:2])
    client.sendto(b"x", other.getsockname()[:2])
    return {"cookie": cookie_of(client), "port": server.getsockname()[1], "other": other.getsockname()[1]}


def connected_datagrams(kind: str) -> dict[str, object]:
    server, client = socket.socket(family_of(kind), socket.SOCK_DGRAM), socket.socket(family_of(kind), socket.SOCK_DGRAM)
    server.bind((LOOPBACK[kind], 0))
    client.connect(server.getsockname()[:2])
    for _ in range(3):
        client.send(b"x")
    return {"cookie": cookie_of(client), "port": server.getsockname()[1]}


def quic(first: str) -> dict[str, object]:
    """Datagrams that begin with these bytes (hexadecimal): 1,200 bytes long, and one byte shorter."""
    server, client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((LOOPBACK["ip4"], 0))
    head = bytes.fromhex(first)
    for size in (1199, 1200):
        client.sendto(head + bytes(size - len(head)), server.getsockname())
    return {"cookie": cookie_of(client), "port": server.getsockname()[1]}


def dns(kind: str) -> dict[str, object]:
    server, client = socket.socket(family_of(kind), socket.SOCK_DGRAM), socket.socket(family_of(kind), socket.SOCK_DGRAM)
    server.bind((LOOPBACK[kind], 53))
    client.connect(server.getsockname()[:2])
    client.send(b"question")
    _, whom = server.recvfrom(100)
    server.sendto(b"answer", whom[:2])
    client.recv(100)
    return {"cookie": cookie_of(client), "client_port": client.getsockname()[1]}


def stream(pieces: str) -> dict[str, object]:
    """Send these pieces (hexadecimal, apart by commas), each by a call of its own."""
    server = listen("ip4")
    client = socket.create_connection(server.getsockname())
    return exchange(client, server, [bytes.fromhex(piece) for piece in pieces.split(",")])


def drip(data: str) -> dict[str, object]:
    """Send these bytes (hexadecimal) one by one, each when the one before has arrived, so that the kernel joins none."""
    server = listen("ip4")
    client = socket.create_connection(server.getsockname())
    accepted, _ = server.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in bytes.fromhex(data):
        client.send(bytes((byte,)))
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        accepted.recv(1)
    return {"cookie": cookie_of(client)}


def raw(kind: str) -> dict[str, object]:
    one = socket.socket(family_of(kind), socket.SOCK_RAW, socket.IPPROTO_UDP)
    return {"cookie": cookie_of(one)}


def raw_syn(port: str) -> dict[str, object]:
    """A SYN of a connection that the kernel knows nothing of."""
    one = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    segment = struct.pack("!HHIIBBHHH", 40000, int(port), 1, 0, 0x50, 0x02, 1024, 0, 0)
    one.sendto(segment, (LOOPBACK["ip4"], 0))
    return {"cookie": cookie_of(one)}


def packet(_: str) -> dict[str, object]:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)).close()
    return {}


def handed_over(_: str) -> dict[str, object]:
    """The parent makes the socket and hands it on; the child, in the cgroup that it was given, connects it."""
    server, made = listen("ip4"), socket.socket(socket.AF_INET)
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        with open(os.environ["OTHER_CGROUP"] + "/cgroup.procs", "w", encoding="ascii") as file:
            file.write("0")
        descriptors = socket.recv_fds(theirs, 1, 1)[1]
        client = socket.socket(fileno=descriptors[0])
        client.connect(server.getsockname())
        os._exit(0)
    socket.send_fds(ours, [b"x"], [made.fileno()])
    os.waitpid(child, 0)
    return {"cookie": cookie_of(made), "child": child}


def child_dies(_: str) -> dict[str, object]:
    """A child that connects and is gone at once."""
    server = listen("ip4")
    child = os.fork()
    if child == 0:
        socket.socket().connect(server.getsockname())
        os._exit(0)
    os.waitpid(child, 0)
    return {"child": child, "port": server.getsockname()[1]}


def run(program: str) -> dict[str, object]:
    child = os.posix_spawn(program, [program], {})
    os.waitpid(child, 0)
    return {"child": child}


def ring(_: str) -> dict[str, object]:
    """connect(2) by io_uring: one entry, asked and waited for (io_uring(7), x86-64 and aarch64 share the numbers)."""
    server, client = listen("ip4"), socket.socket()
    libc = ctypes.CDLL(None, use_errno=True)
    parameters = ctypes.create_string_buffer(120)
    descriptor = libc.syscall(425, 4, parameters)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
    # struct io_uring_params: ten words, then the offsets of the submission ring: head, tail, mask, entries, flags, dropped, array
    tail, array = struct.unpack_from("=4xI16xI", parameters, 40)
    at = socket.inet_aton(LOOPBACK["ip4"])
    address = ctypes.create_string_buffer(struct.pack("=H", socket.AF_INET) + struct.pack("!H", server.getsockname()[1]) + at + bytes(8))
    entries = mmap.mmap(descriptor, 4 * 64, mmap.MAP_SHARED, offset=0x10000000)
    struct.pack_into("=BBHiQQ", entries, 0, 16, 0, 0, client.fileno(), 16, ctypes.addressof(address))  # IORING_OP_CONNECT, length as offset
    places = mmap.mmap(descriptor, array + 16, mmap.MAP_SHARED)
    struct.pack_into("=I", places, array, 0)
    struct.pack_into("=I", places, tail, 1)
    done = libc.syscall(426, descriptor, 1, 1, 1, None, 0)
    client.getpeername()
    return {"cookie": cookie_of(client), "port": server.getsockname()[1], "done": done}


def redirected(_: str) -> dict[str, object]:
    """Where the kernel redirects the connection to is not where it was asked for."""
    server, client = listen("ip4"), socket.socket()
    subprocess.run(("nft", f"add rule ip n o tcp dport 443 redirect to :{server.getsockname()[1]}"), check=True)
    client.connect(("127.0.0.1", 443))
    return exchange(client, server, [b"x"])


ACTIONS: dict[str, Callable[[str], dict[str, object]]] = {
    each.__name__: each
    for each in (
        *(connect, mptcp, fast_open, refused, many, many_hellos, datagrams, connected_datagrams, quic, dns, stream, drip),
        *(raw, raw_syn, packet, handed_over, child_dies, run, ring, redirected),
    )
}

if __name__ == "__main__":
    with open("/proc/self/stat", encoding="ascii") as stat:
        started = int(stat.read().rpartition(")")[2].split()[19])
    netns = struct.unpack("=Q", socket.socket().getsockopt(socket.SOL_SOCKET, 71, 8))[0]  # SO_NETNS_COOKIE
    done = ACTIONS[sys.argv[1]](sys.argv[2] if len(sys.argv) > 2 else "")
    print(json.dumps({"process": os.getpid(), "started": started, "netns": netns, **done}))
