"""Network namespaces for tests: known by descriptors of this process, so that a killed test run leaves none behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000  # linux/sched.h


class Namespace:
    """A network namespace of this process's making, known by its descriptor."""

    def __init__(self) -> None:
        self.descriptor = _in_thread(_make_namespace)

    def raise_loopback(self) -> None:
        """Make 127.0.0.1 and ::1 usable inside."""
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *command: str, stdin: str | None = None) -> str:
        """Run a command inside; what it prints."""
        entered = ("nsenter", f"--net=/proc/self/fd/{self.descriptor}", "--", *command)
        done = subprocess.run(entered, input=stdin, capture_output=True, text=True, pass_fds=(self.descriptor,), check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> socket.socket:
        """A socket that belongs to this namespace, usable from anywhere."""

        def make() -> socket.socket:
            _enter(self.descriptor)
            return socket.socket(family, kind, protocol)

        made = _in_thread(make)
        made.setblocking(False)
        return made

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and what it starts, is inside for as long as the block lasts."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _enter(self.descriptor)
        try:
            yield
        finally:
            _enter(before)
            os.close(before)

    def close(self) -> None:
        os.close(self.descriptor)


def _make_namespace() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _in_thread(work: Callable[[], T]) -> T:
    """The result of `work`, done by a thread of its own: a thread that changed its namespace is good for nothing else."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(work).result()
