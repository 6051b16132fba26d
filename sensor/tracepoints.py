"""Programs on the kernel's tracepoints, by perf events. Tracepoints have numbers, which tracefs tells; it need not be mounted anywhere."""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import struct
from typing import Final

# linux/perf_event.h: PERF_TYPE_TRACEPOINT, PERF_FLAG_FD_CLOEXEC, _IO('$', 0), _IOW('$', 8, __u32)
_TRACEPOINT: Final = 2
_CLOSE_ON_EXEC: Final = 8
_ENABLE: Final = 0x2400
_SET_BPF: Final = 0x40042408
# struct perf_event_attr as first published: u32 type, size; u64 config, sample_period, sample_type, read_format, flags; the rest is 0.
_ATTRIBUTES: Final = struct.Struct("=IIQQQQQ16x")
# asm/unistd.h and asm-generic/unistd.h. fsopen and its kin have one number everywhere.
_PERF_EVENT_OPEN: Final = {"x86_64": 298, "aarch64": 241}.get(platform.machine(), -1)
_FSOPEN: Final = 430
_FSCONFIG: Final = 431
_FSMOUNT: Final = 432
_FSCONFIG_CMD_CREATE: Final = 6

_libc = ctypes.CDLL(None, use_errno=True)


class Tracepoints:
    """Attaches programs. Holds a tracefs of its own, mounted nowhere."""

    def __init__(self) -> None:
        """Raises OSError."""
        context = _call(_FSOPEN, b"tracefs", 1)
        try:
            _call(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
            self._folder = _call(_FSMOUNT, context, 1, 0)
        finally:
            os.close(context)

    def open(self, tracepoint: str) -> int:
        """The descriptor of an event at `category/name`, for a link to it. Raises OSError."""
        attributes = _ATTRIBUTES.pack(_TRACEPOINT, _ATTRIBUTES.size, self._number(tracepoint), 1, 0, 0, 0)
        # A program belongs to the tracepoint, not to the processor that must be named here.
        return _call(_PERF_EVENT_OPEN, attributes, -1, 0, -1, _CLOSE_ON_EXEC)

    def attach(self, program: int, tracepoint: str) -> int:
        """Run a program at `category/name`, on every processor, until the descriptor that this gives is closed. Raises OSError."""
        event = self.open(tracepoint)
        try:
            fcntl.ioctl(event, _SET_BPF, program)
            self.enable(event)
        except OSError:
            os.close(event)
            raise
        return event

    @staticmethod
    def enable(event: int) -> None:
        """Let an event reach its program. Raises OSError."""
        fcntl.ioctl(event, _ENABLE, 0)

    def close(self) -> None:
        """Give tracefs back; what is attached stays so."""
        os.close(self._folder)

    def _number(self, tracepoint: str) -> int:
        opened = os.open(f"events/{tracepoint}/id", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._folder)
        with os.fdopen(opened, encoding="ascii") as file:
            return int(file.read())


def _call(number: int, *arguments: int | bytes | None) -> int:
    # A system call's arguments are whole words, which a Python int alone would not be.
    words = (ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
