"""What `hopgate coverage` tries: each way in which a program can talk, done once by a child of its own. `python -m sensor.probe_traffic`.

All of it stays on loopback, in a network namespace that ends with this process; what is done in the network that was there before goes to
its loopback. Prints one JSON object for each way: whether it went through, and by what its events are known.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import signal
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hopgate import kernel
from sensor import open_connections
from sensor.handshakes import quic_keys

# Names that can't be registered (RFC 6761 6.4).
TLS_NAME: Final = "tls.coverage.invalid"
ECH_NAME: Final = "outer.coverage.invalid"
QUIC_NAME: Final = "quic.coverage.invalid"
DNS_NAME: Final = "dns.coverage.invalid"
_LOOPBACK: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
# Longer than any of them takes; a probe that hangs is a probe that failed.
_SECONDS: Final = 1
# linux/in.h, linux/tcp.h, linux/socket.h, asm-generic/socket.h, linux/sockios.h
_MPTCP, _SCTP, _TCP_FASTOPEN, _MSG_FASTOPEN, _SO_COOKIE = 262, 132, 23, 0x20000000, 57
_SET_FLAGS, _IFF_UP = 0x8914, 1
_ETHERNET_ALL: Final = 3
_SETUP, _ENTER, _OP_CONNECT, _GET_EVENTS = 425, 426, 16, 1
_ECH_EXTENSION: Final = 0xFE0D
_QUIC_ID: Final = bytes(range(8))
# What the kernel says when it has not got the protocol, the family, the call or the device at all.
_ABSENT: Final = frozenset(
    {errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.ENOSYS, errno.ENODEV, errno.ESOCKTNOSUPPORT, errno.ENOPROTOOPT}
)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a way may have to go: the network and the cgroups that were there before. -1: not to be had here."""

    network: int
    root_cgroup: int
    own_cgroup: int


def _listen(family: int, protocol: int = 0) -> socket.socket:
    server = socket.socket(family, socket.SOCK_STREAM, protocol)
    server.bind((_LOOPBACK[socket.AddressFamily(family)], 0))
    server.listen(4)
    return server


def _known(client: socket.socket, server: socket.socket | None = None) -> dict[str, Any]:
    cookie = struct.unpack("=Q", client.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))[0]
    return {"cookie": cookie, "port": server.getsockname()[1] if server else 0}


def _stream(family: int, sent: bytes = b"x", protocol: int = 0) -> dict[str, Any]:
    server, client = _listen(family, protocol), socket.socket(family, socket.SOCK_STREAM, protocol)
    client.connect(server.getsockname()[:2])
    accepted, _ = server.accept()
    client.sendall(sent)
    accepted.recv(1)
    return _known(client, server)


def _datagram(family: int, sent: bytes = b"x") -> dict[str, Any]:
    server, client = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_DGRAM)
    server.bind((_LOOPBACK[socket.AddressFamily(family)], 0))
    client.sendto(sent, server.getsockname()[:2])
    server.recv(1)
    return _known(client, server)


def _hello(name: str) -> bytes:
    """What a client of this machine's TLS library begins with."""
    context, written = ssl.create_default_context(), ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), written, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return written.read()


def _with_ech(hello: bytes) -> bytes:
    """The same with an extension more (RFC 9849): an outer hello, whose inner one nobody here can open."""
    body = bytes((0, 0, 1, 0, 1, 7)) + struct.pack("!H", 32) + bytes(32) + struct.pack("!H", 64) + bytes(64)
    extension = struct.pack("!HH", _ECH_EXTENSION, len(body)) + body
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 1 + hello[at]
    extensions = int.from_bytes(hello[at : at + 2], "big") + len(extension)
    shake = hello[9:at] + extensions.to_bytes(2, "big") + hello[at + 2 :] + extension
    return hello[:3] + (len(shake) + 4).to_bytes(2, "big") + b"\x01" + len(shake).to_bytes(3, "big") + shake


def _quic_initial(hello: bytes) -> bytes:
    """A client's first datagram (RFC 9000 17.2.2, RFC 9001 5). QUIC's own parameters are left out: nobody answers."""
    keys = quic_keys.InitialKeys(quic_keys.VERSION_1, _QUIC_ID)
    shake = hello[5:]
    frames = (b"\x06\x00" + (0x4000 | len(shake)).to_bytes(2, "big") + shake).ljust(1300, b"\0")
    head = b"\xc3" + quic_keys.VERSION_1.to_bytes(4, "big") + bytes((len(_QUIC_ID),)) + _QUIC_ID + b"\0\0"
    head += (0x4000 | (4 + len(frames) + 16)).to_bytes(2, "big") + bytes(4)
    sealed = keys.seal(0, head, frames)
    mask = keys.mask(sealed[:16])
    number = bytes(one ^ other for one, other in zip(head[-4:], mask[1:5], strict=True))
    return bytes((head[0] ^ (mask[0] & 0x0F),)) + head[1:-4] + number + sealed


def _dns_messages() -> tuple[bytes, bytes]:
    """A question and its answer (RFC 1035 4)."""
    name = b"".join(bytes((len(label),)) + label.encode() for label in DNS_NAME.split(".")) + b"\0"
    asked = name + struct.pack("!HH", 1, 1)
    answer = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton("127.0.0.1")
    return (
        struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + asked,
        struct.pack("!6H", 1, 0x8180, 1, 1, 0, 0) + asked + answer,
    )


def _dns_udp(_: Places) -> dict[str, Any]:
    server, client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    question, answer = _dns_messages()
    client.connect(server.getsockname())
    client.send(question)
    server.sendto(answer, server.recvfrom(512)[1])
    client.recv(512)
    return _known(client, server)


def _dns_tcp(_: Places) -> dict[str, Any]:
    server, client = socket.socket(), socket.socket()
    server.bind(("127.0.0.1", 53))
    server.listen(1)
    question, answer = _dns_messages()
    client.connect(server.getsockname())
    accepted, _address = server.accept()
    for one, other, message in ((client, accepted, question), (accepted, client, answer)):
        one.sendall(len(message).to_bytes(2, "big") + message)
        other.recv(512)
    return _known(client, server)


def _fast_open(_: Places) -> dict[str, Any]:
    with contextlib.suppress(OSError):
        Path("/proc/sys/net/ipv4/tcp_fastopen").write_text("3", encoding="ascii")
    server = _listen(socket.AF_INET)
    server.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN, 4)
    said: dict[str, Any] = {}
    for _turn in range(2):  # the first one gets the cookie that lets the second send with its SYN
        client = socket.socket()
        client.sendto(b"x", _MSG_FASTOPEN, server.getsockname())
        server.accept()[0].recv(1)
        said = _known(client, server)
    return said


def _ring(_: Places) -> dict[str, Any]:
    """connect(2) as one entry of an io_uring (io_uring_setup(2))."""
    server, client = _listen(socket.AF_INET), socket.socket()
    parameters = ctypes.create_string_buffer(120)
    ring = _libc.syscall(_SETUP, 4, parameters)
    if ring < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    tail, array = struct.unpack_from("=4xI16xI", parameters, 40)
    place = struct.pack("=H", socket.AF_INET) + struct.pack("!H", server.getsockname()[1]) + socket.inet_aton("127.0.0.1") + bytes(8)
    address = ctypes.create_string_buffer(place)
    entries, places = mmap.mmap(ring, 4 * 64, offset=0x10000000), mmap.mmap(ring, array + 16)
    struct.pack_into("=BBHiQQ", entries, 0, _OP_CONNECT, 0, 0, client.fileno(), 16, ctypes.addressof(address))
    struct.pack_into("=I", places, array, 0)
    struct.pack_into("=I", places, tail, 1)
    _libc.syscall(_ENTER, ring, 1, 1, _GET_EVENTS, None, 0)
    try:
        client.getpeername()
    except OSError as error:
        raise PermissionError(errno.EPERM, "the ring did not connect") from error
    return _known(client, server)


def _ping(_: Places) -> dict[str, Any]:
    with contextlib.suppress(OSError):
        Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 2147483647", encoding="ascii")
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    client.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, 1), ("127.0.0.1", 0))
    return _known(client)


def _raw(family: int) -> dict[str, Any]:
    return {**_known(socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_UDP)), "family": int(family)}


def _packet(_: Places) -> dict[str, Any]:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETHERNET_ALL)).close()
    return {"family": int(socket.AF_PACKET)}


def _unix(_: Places) -> dict[str, Any]:
    server, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    server.bind(f"\0hopgate-coverage-{os.getpid()}")
    server.listen(1)
    client.connect(server.getsockname())
    return _known(client)


def _vsock(_: Places) -> dict[str, Any]:
    """Asked for, and connected to nowhere: a connect would wait for a host that may not answer."""
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    return {}


def _handed_over(places: Places) -> dict[str, Any]:
    """A socket keeps the cgroup of its maker, wherever it goes."""
    server = _listen(socket.AF_INET)
    os.write(places.root_cgroup, b"0")
    client = socket.socket()
    os.write(places.own_cgroup, b"0")
    client.connect(server.getsockname())
    return _known(client, server)


def _root_cgroup(places: Places) -> dict[str, Any]:
    os.write(places.root_cgroup, b"0")
    return _stream(socket.AF_INET)


def _own_network(places: Places) -> dict[str, Any]:
    kernel.setns(places.network, kernel.CLONE_NEWNET)
    return _stream(socket.AF_INET)


def _gone_at_once(_: Places) -> dict[str, Any]:
    server = _listen(socket.AF_INET)
    child = os.fork()
    if child == 0:
        try:
            socket.socket().connect(server.getsockname())
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, os.strerror(code))
    return {"port": server.getsockname()[1], "process": child}


def _standing(_: Places) -> dict[str, Any]:
    """A connection that is listed and then ended, by what reads and ends those that stood before the sensor."""
    server, client = _listen(socket.AF_INET), socket.socket()
    client.connect(server.getsockname())
    known = _known(client, server)
    found = next((each for each in open_connections.list_sockets() if each.cookie == known["cookie"]), None)
    if found is not None:
        try:
            known["ended"] = open_connections.destroy(found, socket.IPPROTO_TCP)
        except OSError as error:
            known["not_ended"] = error.strerror
    return {**known, "listed": found is not None}


WAYS: Final[dict[str, Callable[[Places], dict[str, Any]]]] = {
    "tcp4": lambda _: _stream(socket.AF_INET),
    "tcp6": lambda _: _stream(socket.AF_INET6),
    "udp4": lambda _: _datagram(socket.AF_INET),
    "udp6": lambda _: _datagram(socket.AF_INET6),
    "tls": lambda _: _stream(socket.AF_INET, _hello(TLS_NAME)),
    "ech": lambda _: _stream(socket.AF_INET, _with_ech(_hello(ECH_NAME))),
    "quic": lambda _: _datagram(socket.AF_INET, _quic_initial(_hello(QUIC_NAME))),
    "dns_udp": _dns_udp,
    "dns_tcp": _dns_tcp,
    "fast_open": _fast_open,
    "mptcp": lambda _: _stream(socket.AF_INET, protocol=_MPTCP),
    "sctp": lambda _: _stream(socket.AF_INET, protocol=_SCTP),
    "io_uring": _ring,
    "raw4": lambda _: _raw(socket.AF_INET),
    "raw6": lambda _: _raw(socket.AF_INET6),
    "packet": _packet,
    "ping": _ping,
    "vsock": _vsock,
    "unix": _unix,
    "handed_over": _handed_over,
    "gone_at_once": _gone_at_once,
    "standing": _standing,
    "own_network": _own_network,
    "root_cgroup": _root_cgroup,
}


def _try(way: Callable[[Places], dict[str, Any]], places: Places) -> dict[str, Any]:
    """Do it in a child. `outcome`: done, refused, absent or failed; with `why`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # At the deadline the child ends by the signal, whatever it waits for.
        signal.alarm(_SECONDS)
        try:
            said = {"outcome": "done", "process": os.getpid(), **way(places)}
        except OSError as error:
            refused = error.errno in {errno.EPERM, errno.EACCES}
            outcome = "refused" if refused else "absent" if error.errno in _ABSENT else "failed"
            said = {"outcome": outcome, "why": error.strerror or str(error)}
        except Exception as error:  # noqa: BLE001 - a child of a fork must not go on as its parent; what failed is told
            said = {"outcome": "failed", "why": f"{type(error).__name__}: {error}"}
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        text = answer.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if text:
        found: dict[str, Any] = json.loads(text)
        return found
    if code == -signal.SIGKILL:
        return {"outcome": "refused", "why": "killed"}
    return {"outcome": "failed", "why": "no answer in time" if code == -signal.SIGALRM else f"ended with {code}"}


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, _SET_FLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _open(place: str) -> int:
    return os.open(place, os.O_WRONLY | os.O_CLOEXEC) if place else -1


def main() -> int:
    """Try every way."""
    parser = argparse.ArgumentParser(prog="python -m sensor.probe_traffic", description=__doc__)
    parser.add_argument("--cgroup", default="", help="cgroup.procs of the cgroup to be in")
    parser.add_argument("--root-cgroup", default="", help="cgroup.procs of the root")
    parser.add_argument("--filter", default="", help="a system call filter (hexadecimal): be without rights, as a governed program is")
    arguments = parser.parse_args()
    network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    places = Places(network=network, root_cgroup=_open(arguments.root_cgroup), own_cgroup=_open(arguments.cgroup))
    if places.own_cgroup >= 0:
        os.write(places.own_cgroup, b"0")
    kernel.leave_network()
    _raise_loopback()
    # Port 53 is served by whoever is in the namespace, also without rights.
    Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0", encoding="ascii")
    if arguments.filter:
        kernel.drop_bounding_set()
        kernel.drop_capabilities()
        kernel.forbid_new_privileges()
        kernel.install_filter(bytes.fromhex(arguments.filter))
    sys.stdout.write(json.dumps({"network": kernel.netns_cookie()}) + "\n")
    for name, way in WAYS.items():
        sys.stdout.write(json.dumps({"way": name, **_try(way, places)}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
