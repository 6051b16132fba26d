"""What a gate and a process that it keeps say to each other: JSON messages, one a line, the same words for each such process.

The gate writes its state on the process's standard input, whole each time; losing a message loses nothing that the next does not bring.
The process answers on standard output, and ends when its standard input does, or when the gate's own life ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
# A state lists every agent and every outside name of a gate.
_LINE_LIMIT: Final = 1 << 24


class GateState(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate tells: all of it, each time. `sequence` rises by one with each, and is acknowledged by `Applied`."""

    sequence: int


class ReportRequest(msgspec.Struct, frozen=True, kw_only=True, tag="report", forbid_unknown_fields=True):
    """Asks for one report."""


class Applied(msgspec.Struct, frozen=True, kw_only=True, tag="applied"):
    """The state of this sequence number is in force."""

    sequence: int


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The process can take the gate's state; it does its work once the first one is in force."""


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The process can't start: what is wrong, in lines for a person."""

    messages: tuple[str, ...]


class MessageError(ValueError):
    """A line between a gate and its process that is no message of theirs."""


def encode(message: msgspec.Struct) -> bytes:
    """One message as one line."""
    return msgspec.json.encode(message) + b"\n"


def decode(decoder: msgspec.json.Decoder[Any], line: bytes, whose: str) -> Any:
    """A line as one of the messages that `decoder` knows; `whose` they are is for the error. Raises MessageError."""
    try:
        return decoder.decode(line)
    except msgspec.MsgspecError as error:
        raise MessageError(f"expected a message of {whose}, got something else: {error}") from error


def tell(message: msgspec.Struct) -> None:
    """Write one message to the gate."""
    sys.stdout.buffer.write(encode(message))
    sys.stdout.buffer.flush()


async def lines_of_gate() -> AsyncIterator[bytes]:
    """The lines that the gate writes, until it ends this process's standard input."""
    reader = asyncio.StreamReader(limit=_LINE_LIMIT)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        yield line


def end_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends: a gate killed with -9 leaves nothing behind."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
