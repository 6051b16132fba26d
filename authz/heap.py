"""The collector kept off what stays.

A snapshot of a large cluster is some hundred thousand objects that live until they are replaced. A full collection looks at each of
them while every check waits: 68 ms for 1,000 agents and 500 tool servers, 1 ms with them set aside. What is set aside is still freed
once nothing refers to it, but for cycles, and a snapshot has none.
"""

from __future__ import annotations

import gc


def set_aside() -> None:
    """Let later collections pass over all that is alive now. Call it once the first snapshot stands, before checks are answered."""
    gc.collect()
    gc.freeze()
