"""Errors of reading a folder of manifests.

ManifestError
├── FolderError     the folder itself can't be read as one of manifests
└── FileError       one of its files can't be read
"""

from __future__ import annotations

from typing import ClassVar


class ManifestError(Exception):
    """Root of what reading manifests can raise. `code` is stable."""

    code: ClassVar[str] = "ManifestError"


class FolderError(ManifestError):
    """The folder is missing, is none, can't be listed, or holds too much."""

    code: ClassVar[str] = "FolderUnreadable"


class FileError(ManifestError):
    """A file is not a regular one, can't be read or is too large."""

    code: ClassVar[str] = "FileUnreadable"
