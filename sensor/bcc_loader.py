"""bcc: the same sources, compiled on the node. The only module that knows it.

Debian's package puts `bcc` among all of the system's Python packages, which an environment must not see. So this one package is found by
its path, and nothing else there can be imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import mmap
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, Final

from sensor import objects
from sensor.kernel import KernelError

# Where Debian and its kin keep Python packages of the system, whichever version of Python runs.
_SYSTEM_PACKAGES: Final = ("/usr/lib/python3/dist-packages",)
_INCLUDED: Final = re.compile(r'^#include "([a-z_.]+)"$', re.MULTILINE)
_NOT_HERE: Final = frozenset({"kernel_types.h"})

_REMEDY: Final = "build the objects (`make bpf` in a checkout), or install the headers of the running kernel"

# linux/bpf.h: enum bpf_prog_type and the enum bpf_attach_type that a program is checked for, by the names of the programs.
_TYPES: Final = {
    "connect4": (18, 10),
    "connect6": (18, 11),
    "sendmsg4": (18, 14),
    "sendmsg6": (18, 15),
    "packet_out": (8, 1),
    "packet_in": (8, 0),
    "socket_stands": (13, 3),
    "socket_made": (9, 2),
    "executed": (5, -1),
    "forked": (5, -1),
    "exited": (5, -1),
    "packet_socket": (5, -1),
    "ring_made": (5, -1),
}
_MAPS: Final = ("events", "payloads", "counts", "destinations", "hellos")


class BccError(KernelError):
    """bcc is not installed, or can't compile the programs here."""

    code = "BccUnusable"


class Compiled:
    """What bcc has brought into the kernel. It ends with this object: bcc's own wish to do more at exit is not heard."""

    def __init__(self, compiler: Any, programs: dict[str, int], refused: dict[str, str]) -> None:
        self.programs = programs
        self.refused = refused
        self.maps: dict[str, int] = {name: compiler.get_table(name.encode()).map_fd for name in _MAPS}
        self._compiler = compiler

    def close(self) -> None:
        """Give programs and maps back."""
        self._compiler.cleanup()


def is_here() -> bool:
    """Whether bcc is installed."""
    return _find() is not None


def load(map_bytes: Mapping[str, int]) -> Compiled:
    """Compile and load the programs. One that the kernel refuses is left out and says why. Raises BccError."""
    bcc = _module()
    if not any(place.exists() for place in _headers()):
        raise BccError(
            f"expected this kernel's headers for bcc at {' or '.join(f'`{place}`' for place in _headers())}, found none", remedy=_REMEDY
        )
    sizes = [f"-D{name.upper()}_PAGES={size // mmap.PAGESIZE}" for name, size in map_bytes.items()]
    try:
        with _prints_on_standard_error():
            compiler = bcc.BPF(text=_text(objects.MAIN).encode(), cflags=["-DBCC", *sizes])
    except Exception as error:  # bcc raises plain Exception
        raise BccError(f"bcc could not compile the sensor's programs: {error}", remedy=_REMEDY) from error
    programs: dict[str, int] = {}
    refused: dict[str, str] = {}
    for name, (kind, attach_type) in _TYPES.items():
        try:
            programs[name] = compiler.load_func(name.encode(), kind, attach_type=attach_type).fd
        except Exception as error:  # noqa: BLE001 - bcc raises plain Exception
            refused[name] = str(error)
    return Compiled(compiler, programs, refused)


def _headers() -> tuple[Path, ...]:
    """Where bcc looks for the kernel's headers; the last is the kernel's own archive of them (CONFIG_IKHEADERS)."""
    given = os.environ.get("BCC_KERNEL_SOURCE")
    return (Path(given),) if given else (Path("/lib/modules", platform.release(), "build"), Path("/sys/kernel/kheaders.tar.xz"))


@contextlib.contextmanager
def _prints_on_standard_error() -> Iterator[None]:
    """What bcc's library prints while it compiles is no result: it goes where messages go."""
    library = ctypes.CDLL(None)
    before = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        library.fflush(None)
        os.dup2(before, 1)
        os.close(before)


def _text(name: str) -> str:
    """A source with what it includes put in its place: bcc takes one text, and rewrites only what stands in it."""
    source = (objects.SOURCES / name).read_text(encoding="utf-8")
    return _INCLUDED.sub(lambda found: "" if found[1] in _NOT_HERE else _text(found[1]), source)


def _find() -> ModuleSpec | None:
    return importlib.util.find_spec("bcc") or PathFinder.find_spec("bcc", list(_SYSTEM_PACKAGES))


@functools.cache
def _module() -> Any:
    spec = _find()
    if spec is None or spec.loader is None:
        raise BccError("expected bcc on this machine, found none", remedy="install the package python3-bpfcc")
    module = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = module
    try:
        spec.loader.exec_module(module)
    except (ImportError, OSError) as error:
        del sys.modules["bcc"]
        raise BccError(f"bcc can't be used: {error}", remedy="install the package python3-bpfcc") from error
    return module
