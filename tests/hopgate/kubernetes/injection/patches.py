"""Rewrites the golden patches: `python -m tests.hopgate.kubernetes.injection.patches`. Read the diff before you commit it."""

from __future__ import annotations

import json
from pathlib import Path

from hopgate.kubernetes import injection
from hopgate.kubernetes.injection import Injected
from tests.hopgate.kubernetes.injection.pods import NAMESPACE, SETTINGS, SHAPES, Fields

FOLDER = Path(__file__).parent / "golden"


def patch(pod: Fields) -> Injected:
    outcome = injection.inject(pod, namespace=NAMESPACE, settings=SETTINGS, may_opt_out=False)
    assert isinstance(outcome, Injected), outcome
    return outcome


def text(pod: Fields) -> str:
    """What a golden file holds."""
    made = patch(pod)
    return json.dumps({"warnings": list(made.warnings), "patch": list(made.patch)}, indent=1) + "\n"


def main() -> None:
    for stale in FOLDER.glob("*.json"):
        stale.unlink()
    FOLDER.mkdir(exist_ok=True)
    for name, pod in SHAPES.items():
        (FOLDER / f"{name}.json").write_text(text(pod))


if __name__ == "__main__":
    main()
