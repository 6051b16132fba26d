"""This user's cache folder of hopgate: what was built or fetched once, by version, and can be again."""

from __future__ import annotations

import os
from pathlib import Path


def folder() -> Path:
    """`hopgate` in `XDG_CACHE_HOME`, else in `~/.cache` (XDG Base Directory Specification). It need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hopgate"
