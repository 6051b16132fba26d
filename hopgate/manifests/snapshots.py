"""A folder of manifests to a snapshot: the resources, the registry and the compiled policies, or every mistake."""

from __future__ import annotations

from pathlib import Path

from hopgate.manifests import folder as folders
from hopgate.manifests.folder import Loaded, Mistake, Refused
from hopgate.policy import bundle
from hopgate.policy.bundle import PolicyMistake
from hopgate.resources import fields
from hopgate.snapshot import Snapshot


class SnapshotError(Exception):
    """The folder has mistakes; `mistakes` are all of them, sorted by file and line, as `FILE:LINE: field: message (Code)`."""

    code = "FolderHasMistakes"

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__(f"{len(mistakes)} mistakes in the manifests")
        self.found = mistakes
        self.mistakes = tuple(str(mistake) for mistake in mistakes)


def load(folder: Path, *, previous: Snapshot | None, now: int) -> Snapshot:
    """The folder's snapshot, with the virtual addresses of `previous` kept. `now` in Unix seconds. Raises SnapshotError."""
    result = folders.load(folder, previous.registry if previous is not None else None)
    if isinstance(result, Refused):
        raise SnapshotError(result.mistakes)
    compiled = bundle.compile(result.policies, result.registry)
    if compiled.bundle is None:
        raise SnapshotError(tuple(sorted(_located(result, mistake) for mistake in compiled.mistakes)))
    return Snapshot(
        digest=result.digest,
        loaded_at=now,
        registry=result.registry,
        policies=compiled.bundle,
        secrets=result.secrets,
        identity_providers=result.identity_providers,
    )


def _located(loaded: Loaded, mistake: PolicyMistake) -> Mistake:
    kind = "ClusterPolicy" if mistake.namespace is None else "Policy"
    file, line = loaded.locate(kind, mistake.namespace, mistake.name, mistake.path, line_offset=mistake.line - 1)
    return Mistake(file=file, line=line, column=mistake.column, field=fields.show(mistake.path), code=mistake.code, message=mistake.message)
