"""Where the records are by default."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_folder() -> Path:
    """`$XDG_STATE_HOME/hopgate`, else `~/.local/state/hopgate` (XDG Base Directory Specification)."""
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "hopgate"
