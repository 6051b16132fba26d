"""libbpf through ctypes: objects into the kernel, programs to their hooks. The only module that knows libbpf.so.1 (1.0 or later).

Programs are attached by links, whichever way they were loaded: a link is a descriptor of this process and ends with it, also by kill -9.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sensor.kernel import KernelError

_LIBRARY: Final = "libbpf.so.1"
# The verifier's own words about one program; the reason is at their end.
_LOG_BYTES: Final = 1 << 16

# linux/bpf.h BPF_MAP_TYPE_RINGBUF
_RINGBUF: Final = 27


class LibbpfMissingError(KernelError):
    """There is no libbpf on this machine."""

    code = "LibbpfMissing"


class ObjectUnusableError(KernelError):
    """The file is no BPF object, or none that this kernel takes."""

    code = "ObjectUnusable"


@dataclass(slots=True)
class Loaded:
    """What of an object is in the kernel: descriptors of programs and maps by name, and why a program is not there.

    `close` ends maps and programs, unless something else holds them.
    """

    programs: dict[str, int]
    maps: dict[str, int]
    refused: dict[str, str]
    _object: int = field(repr=False, default=0)

    def close(self) -> None:
        """Give the descriptors back."""
        if self._object:
            _library().bpf_object__close(self._object)
            self._object = 0


def load(path: Path, *, map_bytes: Mapping[str, int], without: Collection[str] = ()) -> Loaded:
    """Load the object at `path` with maps of the given sizes. A program that the kernel refuses is left out and says why.

    Raises LibbpfMissingError and ObjectUnusableError, and OSError when the kernel refuses everything.
    """
    refused: dict[str, str] = {}
    opened = _open(path, map_bytes, leave_out=without)
    error = _library().bpf_object__load(opened)
    if error:
        names = [name for name, _ in _programs(opened) if name not in without]
        _library().bpf_object__close(opened)
        refused = {name: reason for name in names if (reason := _refusal(path, map_bytes, name, names))}
        if len(refused) == len(names):
            raise OSError(-error, os.strerror(-error), str(path))
        opened = _open(path, map_bytes, leave_out={*refused, *without})
        error = _library().bpf_object__load(opened)
        if error:
            _library().bpf_object__close(opened)
            raise OSError(-error, os.strerror(-error), str(path))
    programs = {name: _library().bpf_program__fd(program) for name, program in _programs(opened)}
    maps = {_text(_library().bpf_map__name(each)): _library().bpf_map__fd(each) for each in _maps(opened)}
    return Loaded({name: number for name, number in programs.items() if number >= 0}, maps, refused, opened)


def try_ring(size: int) -> None:
    """See whether this process may make a ring. Raises OSError, PermissionError when it may not, and LibbpfMissingError."""
    os.close(_descriptor(_library().bpf_map_create(_RINGBUF, b"try", 0, 0, size, None)))


def link(program: int, target: int, attach_type: int) -> int:
    """A link that keeps a program attached until it is closed, beside the programs of others. Raises OSError.

    `target` is the descriptor of a cgroup, for it and all beneath it; 0 for a program of the BPF LSM, which has its place in it.
    """
    return _descriptor(_library().bpf_link_create(program, target, attach_type, None))


def look_up(map_descriptor: int, key: bytes, value_bytes: int) -> bytes | None:
    """The value of a key; None when there is none. For a per-processor map: all processors' values, one after the other."""
    value = ctypes.create_string_buffer(value_bytes)
    error = _library().bpf_map_lookup_elem(map_descriptor, key, value)
    return None if error else value.raw


def store(map_descriptor: int, key: bytes, value: bytes) -> None:
    """Put a value at a key, in place of the one that is there. Raises OSError."""
    _descriptor(_library().bpf_map_update_elem(map_descriptor, key, value, 0))


def remove(map_descriptor: int, key: bytes) -> bool:
    """Take a key out; False when it was not there. Raises OSError."""
    error = _library().bpf_map_delete_elem(map_descriptor, key)
    if error != -errno.ENOENT:
        _descriptor(error)
    return not error


def keys(map_descriptor: int, key_bytes: int) -> list[bytes]:
    """All keys of a map that nobody else changes meanwhile."""
    found: list[bytes] = []
    following = ctypes.create_string_buffer(key_bytes)
    while not _library().bpf_map_get_next_key(map_descriptor, found[-1] if found else None, following):
        found.append(following.raw)
    return found


def pin(descriptor: int, path: Path) -> None:
    """Keep a map, a program or a link for as long as `path`, in a bpffs, is there. Raises OSError."""
    _descriptor(_library().bpf_obj_pin(descriptor, os.fsencode(path)))


def open_pin(path: Path) -> int:
    """A descriptor of what is pinned at `path`. Raises OSError."""
    return _descriptor(_library().bpf_obj_get(os.fsencode(path)))


def processors() -> int:
    """How many values an entry of a per-processor map has. Raises OSError."""
    return _descriptor(_library().libbpf_num_possible_cpus())


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY, use_errno=True)
    except OSError as error:
        raise LibbpfMissingError(f"expected `{_LIBRARY}` on this machine, got: {error}", remedy="install the package libbpf1") from error
    pointers = ("bpf_object__open_file", "bpf_object__next_program", "bpf_object__next_map", "bpf_object__find_map_by_name")
    for name in pointers:
        getattr(library, name).restype = ctypes.c_void_p
    for name in ("bpf_program__name", "bpf_map__name"):
        getattr(library, name).restype = ctypes.c_char_p
    # Objects and programs are addresses; without types, ctypes would cut them to 32 bits.
    one, two = [ctypes.c_void_p], [ctypes.c_void_p, ctypes.c_void_p]
    types: dict[str, list[Any]] = {
        "bpf_object__open_file": [ctypes.c_char_p, ctypes.c_void_p],
        "bpf_object__next_program": two,
        "bpf_object__next_map": two,
        "bpf_object__find_map_by_name": [ctypes.c_void_p, ctypes.c_char_p],
        "bpf_object__load": one,
        "bpf_object__close": one,
        "bpf_program__name": one,
        "bpf_program__fd": one,
        "bpf_map__name": one,
        "bpf_map__fd": one,
        "bpf_program__set_autoload": [ctypes.c_void_p, ctypes.c_bool],
        "bpf_program__set_log_buf": [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t],
        "bpf_map__set_max_entries": [ctypes.c_void_p, ctypes.c_uint32],
        "bpf_link_create": [ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p],
        "bpf_map_lookup_elem": [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p],
        "bpf_map_create": [ctypes.c_int, ctypes.c_char_p, *[ctypes.c_uint32] * 3, ctypes.c_void_p],
        "bpf_map_update_elem": [ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint64],
        "bpf_map_delete_elem": [ctypes.c_int, ctypes.c_char_p],
        "bpf_map_get_next_key": [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p],
        "bpf_obj_pin": [ctypes.c_int, ctypes.c_char_p],
        "bpf_obj_get": [ctypes.c_char_p],
        "libbpf_set_print": one,
    }
    for name, arguments in types.items():
        getattr(library, name).argtypes = arguments
    # What it would write to standard error comes back as a reason instead.
    library.libbpf_set_print(None)
    return library


def _open(path: Path, map_bytes: Mapping[str, int], *, leave_out: Collection[str]) -> int:
    library = _library()
    opened: int | None = library.bpf_object__open_file(os.fsencode(path), None)
    if opened is None:
        number = ctypes.get_errno()
        raise ObjectUnusableError(
            f"expected a BPF object at `{path}`, got: {os.strerror(number)}", remedy="remove the file and build it anew"
        )
    for name, size in map_bytes.items():
        library.bpf_map__set_max_entries(library.bpf_object__find_map_by_name(opened, name.encode()), size)
    for name, program in _programs(opened):
        if name in leave_out:
            library.bpf_program__set_autoload(program, 0)
    return opened


def _refusal(path: Path, map_bytes: Mapping[str, int], name: str, names: list[str]) -> str:
    """Why the kernel does not take one program, loaded by itself; empty when it does."""
    opened = _open(path, map_bytes, leave_out=[other for other in names if other != name])
    log = ctypes.create_string_buffer(_LOG_BYTES)
    try:
        for each, program in _programs(opened):
            if each == name:
                _library().bpf_program__set_log_buf(program, log, _LOG_BYTES)
        error = _library().bpf_object__load(opened)
    finally:
        _library().bpf_object__close(opened)
    if not error:
        return ""
    lines = [line for line in _text(log.value).splitlines() if line and not line.startswith("processed ")]
    return f"{os.strerror(-error)}: {lines[-1]}" if lines else os.strerror(-error)


def _programs(opened: int) -> Iterator[tuple[str, int]]:
    program = None
    while program := _library().bpf_object__next_program(opened, program):
        yield _text(_library().bpf_program__name(program)), program


def _maps(opened: int) -> Iterator[int]:
    found = None
    while found := _library().bpf_object__next_map(opened, found):
        yield found


def _text(found: bytes) -> str:
    return found.decode("utf-8", "replace")


def _descriptor(result: int) -> int:
    """From 1.0 on, libbpf gives errors as negative numbers."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result
