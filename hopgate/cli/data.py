"""Where the records are by default."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_folder() -> Path:
    """`$XDG_STATE_HOME/hopgate`, else `~/.local/state/hopgate`. A relative path counts as none (XDG Base Directory Specification)."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (state if state.is_absolute() else Path.home() / ".local" / "state") / "hopgate"
