"""Which files of a folder hold manifests, what they hold, and by what a change of theirs is noticed.

Files named `*.yaml`, `*.yml` and `*.json`, in all folders below, in sorted order. Names that begin with a dot are left out: hidden files,
editors' own, and the `..data` folders by which Kubernetes swaps a mounted ConfigMap; the links beside them are followed, so such a
mount reads as a plain folder. Only regular files are opened, and never waited for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hopgate.manifests import document
from hopgate.manifests.errors import FileError, FolderError

SUFFIXES: Final = (".yaml", ".yml", ".json")
# A mistake in the folder's name (`/`) is to end in an error, not in reading a whole disk.
MAX_FILES: Final = 10_000
MAX_ENTRIES: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Signature:
    """What tells a changed file from an unchanged one, without reading it. A rename gives another inode."""

    path: str
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


def find(folder: Path) -> tuple[Path, ...]:
    """Every manifest file below `folder`, sorted by name. Raises FolderError."""
    try:
        mode = folder.stat().st_mode
    except OSError as error:
        remedy = "create it, or name another with --resources"
        raise FolderError(f"expected a folder with manifests, got an error: {error.strerror}; {remedy}") from error
    if not stat.S_ISDIR(mode):
        raise FolderError("expected a folder with manifests, got a file: name the folder that it is in")
    found = sorted(_walk(folder))
    if len(found) > MAX_FILES:
        raise FolderError(f"expected at most {MAX_FILES} manifests, got {len(found)}: name the folder that holds the manifests alone")
    return tuple(found)


def _walk(folder: Path) -> Iterator[Path]:
    pending = [folder]
    # By device and inode, so that a link to a folder above does not lead round in circles.
    seen: set[tuple[int, int]] = set()
    entries = 0
    while pending:
        current = pending.pop()
        try:
            status = current.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            children = sorted(current.iterdir())
        except FileNotFoundError:  # removed while we looked
            continue
        except OSError as error:
            raise FolderError(f"expected to be able to list `{shown(current)}`, got an error: {error.strerror}") from error
        entries += len(children)
        if entries > MAX_ENTRIES:
            raise FolderError(f"expected at most {MAX_ENTRIES} entries, got more: name the folder that holds the manifests alone")
        for child in children:
            if child.name.startswith("."):
                continue
            if _is_folder(child):
                pending.append(child)
            elif child.name.endswith(SUFFIXES):
                yield child


def _is_folder(path: Path) -> bool:
    """Whether this is a folder, or a link to one; what can't be told is no folder, and reading it says why."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def read(path: Path) -> bytes:
    """A manifest file's bytes. Raises FileError for what is not a regular file, can't be read or is too large."""
    try:
        # Non-blocking, so that a named pipe is refused and not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FileError(f"expected a file that can be read, got an error: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileError("expected a regular file, got something else: remove it, or give it another ending")
        try:
            # One byte more, by which the document reader sees that there is too much.
            return file.read(document.MAX_BYTES + 1)
        except OSError as error:
            raise FileError(f"expected a file that can be read, got an error: {error.strerror}") from error


def sign(folder: Path) -> tuple[Signature, ...]:
    """The signatures of all manifest files; none when the folder can't be read. Never raises."""
    try:
        return tuple(signature for path in find(folder) if (signature := _sign(path)) is not None)
    except FolderError:
        return ()


def _sign(path: Path) -> Signature | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return Signature(
        path=str(path),
        device=status.st_dev,
        inode=status.st_ino,
        size=status.st_size,
        modified_ns=status.st_mtime_ns,
        changed_ns=status.st_ctime_ns,
    )


def shown(path: Path) -> str:
    """A path for a message: names may hold line breaks and bytes that are no text."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
