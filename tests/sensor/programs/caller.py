"""Does what its arguments say, one way out of a network namespace each, as an agent's program would. Standard library only.

Called as `caller.py WAY ADDRESS PORT COUNT`. Prints a line when it is done; what holds something open prints one before, and goes on
until its standard input ends.
"""

import array
import contextlib
import ctypes
import mmap
import os
import selectors
import socket
import struct
import sys

MSG_FASTOPEN = 0x20000000
WAIT_SECONDS = 10


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def connect(address, port, count):
    """`count` connections, one after the other, each to its end at both sides."""
    for _ in range(count):
        with socket.socket(family_of(address)) as made:
            made.settimeout(WAIT_SECONDS)
            made.connect((address, port))
            made.sendall(b"x")
            made.recv(1)


def refused(address, port, count):
    for _ in range(count):
        with socket.socket(family_of(address)) as made, contextlib.suppress(OSError):
            made.settimeout(WAIT_SECONDS)
            made.connect((address, port))
            print("connected", file=sys.stderr)


def again(address, port, count):
    """One socket that tries until it is let in: port 1 refuses, `port` does not."""
    with socket.socket(family_of(address)) as made:
        for _ in range(count - 1):
            with contextlib.suppress(ConnectionRefusedError):
                made.connect((address, 1))
        made.connect((address, port))


def hold(address, port, count):
    held = []
    for _ in range(count):
        made = socket.socket(family_of(address))
        made.settimeout(WAIT_SECONDS)
        made.connect((address, port))
        made.sendall(b"x")
        made.recv(1)
        held.append(made)
    print("held", flush=True)
    sys.stdin.read()


def mapped(address, port, count):
    """IPv4 over an IPv6 socket."""
    for _ in range(count):
        with socket.socket(socket.AF_INET6) as made:
            made.settimeout(WAIT_SECONDS)
            made.connect((f"::ffff:{address}", port))


def fast_open(address, port, count):
    for _ in range(count):
        with socket.socket(family_of(address)) as made:
            made.sendto(b"x", MSG_FASTOPEN, (address, port))
            made.settimeout(WAIT_SECONDS)
            made.recv(1)


def fork(address, port, count):
    """Each connection by a process that is gone when anybody looks."""
    for _ in range(count):
        child = os.fork()
        if child == 0:
            made = socket.socket(family_of(address))
            made.setblocking(False)
            made.connect_ex((address, port))
            os._exit(0)
        os.waitpid(child, 0)


def datagram(address, port, count):
    for _ in range(count):
        with socket.socket(family_of(address), socket.SOCK_DGRAM) as made, contextlib.suppress(OSError):
            made.sendto(b"x", (address, port))


def connected_datagram(address, port, count):
    for _ in range(count):
        with socket.socket(family_of(address), socket.SOCK_DGRAM) as made, contextlib.suppress(OSError):
            made.connect((address, port))
            made.send(b"x")


def look_up_own_address(address, port, count):
    for _ in range(count):
        with socket.socket(family_of(address), socket.SOCK_DGRAM) as made:
            made.connect((address, port))


def raw(address, port, count):
    family = family_of(address)
    segment = struct.pack(">HHIIBBHHH", 40_000, port, 1, 0, 5 << 4, 2, 1024, 0, 0)
    for _ in range(count):
        with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP) as made, contextlib.suppress(OSError):
            made.sendto(segment, (address, 0))


def packet(address, port, count):
    for _ in range(count):
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)).close()


def own_server(address, port, count):
    """Connections of a program to itself."""
    with socket.create_server((address, 0), family=family_of(address)) as listening:
        for _ in range(count):
            with socket.create_connection(listening.getsockname()[:2]) as made, listening.accept()[0]:
                made.sendall(b"x")


def received(address, port, count):
    """Connect sockets that another program made and hands over, at the path in argument 5."""
    with socket.socket(socket.AF_UNIX) as source:
        source.connect(sys.argv[5])
        for _ in range(count):
            _, control, _, _ = source.recvmsg(1, socket.CMSG_SPACE(4))
            with socket.socket(fileno=array.array("i", control[0][2][:4])[0]) as made:
                made.settimeout(WAIT_SECONDS)
                made.connect((address, port))


def hand_over(address, port, count):
    """Make `count` sockets and hand them to whoever connects to the path in argument 5."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(sys.argv[5])
        listening.listen()
        print("ready", flush=True)
        taker, _ = listening.accept()
        with taker:
            for _ in range(count):
                with socket.socket(family_of(address)) as made:
                    taker.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made.fileno()]))])
            taker.recv(1)


def ring(address, port, count):
    """IORING_OP_CONNECT, without a library: linux/io_uring.h."""
    libc = ctypes.CDLL(None, use_errno=True)
    parameters = ctypes.create_string_buffer(120)
    descriptor = libc.syscall(425, 4, parameters)
    if descriptor < 0:
        sys.exit(f"io_uring: {os.strerror(ctypes.get_errno())}")
    sq_off = struct.unpack_from("=10I", parameters, 40)
    rings = mmap.mmap(descriptor, 4096, flags=mmap.MAP_SHARED, offset=0)
    entries = mmap.mmap(descriptor, 4096, flags=mmap.MAP_SHARED, offset=0x10000000)
    for number in range(count):
        with socket.socket(family_of(address)) as made:
            if ":" in address:
                name = struct.pack("=HHI", socket.AF_INET6, socket.htons(port), 0) + socket.inet_pton(socket.AF_INET6, address) + bytes(4)
            else:
                name = struct.pack("=HH", socket.AF_INET, socket.htons(port)) + socket.inet_aton(address) + bytes(8)
            held = ctypes.create_string_buffer(name, len(name))
            mask = struct.unpack_from("=I", rings, sq_off[2])[0]
            tail = struct.unpack_from("=I", rings, sq_off[1])[0]
            index = tail & mask
            entry = struct.pack("=BBHiQQIIQ", 16, 0, 0, made.fileno(), len(name), ctypes.addressof(held), 0, 0, number) + bytes(24)
            entries[index * 64 : index * 64 + 64] = entry
            struct.pack_into("=I", rings, sq_off[6] + 4 * index, index)
            struct.pack_into("=I", rings, sq_off[1], tail + 1)
            if libc.syscall(426, descriptor, 1, 1, 1, None, 0) < 0:
                sys.exit(f"io_uring_enter: {os.strerror(ctypes.get_errno())}")
            made.settimeout(WAIT_SECONDS)
            made.sendall(b"x")
            made.recv(1)


def serve(address, port, count):
    """Answer every connection and every datagram on all given `ADDRESS+ADDRESS` until standard input ends."""
    waiting = selectors.DefaultSelector()
    for each in address.split("+"):
        listening = socket.create_server((each, port), family=family_of(each), backlog=128)
        listening.setsockopt(socket.IPPROTO_TCP, 23, 16)  # TCP_FASTOPEN
        answering = socket.socket(family_of(each), socket.SOCK_DGRAM)
        answering.bind((each, port))
        waiting.register(listening, selectors.EVENT_READ, "accept")
        waiting.register(answering, selectors.EVENT_READ, "datagram")
    waiting.register(sys.stdin, selectors.EVENT_READ, "end")
    print("ready", flush=True)
    while True:
        for key, _ in waiting.select():
            if key.data == "end":
                return
            if key.data == "accept":
                accepted, _ = key.fileobj.accept()
                waiting.register(accepted, selectors.EVENT_READ, "answer")
            elif key.data == "answer":
                with contextlib.suppress(OSError):
                    if data := key.fileobj.recv(100):
                        key.fileobj.sendall(data)
                        continue
                waiting.unregister(key.fileobj)
                key.fileobj.close()
            else:
                key.fileobj.recvfrom(100)


def main():
    way, address, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    ways = {name.replace("_", "-"): value for name, value in globals().items() if callable(value)}
    ways[way](address, port, count)
    print("done", flush=True)


main()
