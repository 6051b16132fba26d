"""Shadow agents as files of one machine: a `ShadowAgent` manifest each, that people decide in.

A file's `spec` is people's, and is kept as it is found; the sensor writes the `status`. A file that can't be read is left alone: its
mistake is told, and whatever was decided before goes on.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hopgate.manifests import document, files
from hopgate.manifests.errors import FileError
from hopgate.resources import parse
from hopgate.resources.kinds import ShadowAgent
from sensor import shadow_agents
from sensor.sightings import Sighting

FOLDER: Final = "shadow-agents"
SUFFIX: Final = ".yaml"
# A name is made of a program and its place, and places (containers, units) come and go: the folder must not grow without an end.
MOST_FILES: Final = 1_000
_Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """One file. `cgroup` is the path that the program was last seen in, empty when that is not known."""

    name: str
    quarantine: bool
    cgroup: str
    manifest: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """All files of the folder. `mistakes` has a sentence for each that can't be read, by its name."""

    shadows: Mapping[str, Shadow]
    mistakes: Mapping[str, str]


class ShadowFolder:
    """The folder, made with the first shadow agent. What did not change is not read again."""

    def __init__(self, data: Path) -> None:
        self.path = data / FOLDER
        self._read: dict[str, tuple[_Stamp, Shadow | str]] = {}

    def read(self) -> Contents:
        """All that stands there. Raises OSError when the folder can't be listed."""
        found: dict[str, tuple[_Stamp, Shadow | str]] = {}
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):  # removed while we looked
                stamp = _stamp(path)
                held = self._read.get(path.stem)
                found[path.stem] = held if held is not None and held[0] == stamp else (stamp, _load(path))
        self._read = found
        return Contents(
            shadows={name: each for name, (_, each) in found.items() if isinstance(each, Shadow)},
            mistakes={name: each for name, (_, each) in found.items() if isinstance(each, str)},
        )

    def tell(self, seen: Sighting) -> bool:
        """Write what was seen. False when there is no room for one more, or its file can't be read. Raises OSError."""
        place = shadow_agents.where(seen.program)
        path = self.path / f"{shadow_agents.name(seen.program)}{SUFFIX}"
        for _ in range(3):
            try:
                stamp = _stamp(path)
            except FileNotFoundError:
                if len(self._files()) >= MOST_FILES:
                    return False
                return self._create(path, shadow_agents.new(seen, place))
            held = _load(path)
            if isinstance(held, str):
                return False
            before = held.manifest.get("status")
            before = before if isinstance(before, Mapping) else {}
            status = shadow_agents.status(seen, place, before)
            if shadow_agents.is_old_news(status, before) or self._replace(path, {**held.manifest, "status": status}, stamp):
                return True
        return False

    def decide(self, name: str, *, quarantine: bool) -> None:
        """Write a person's decision. Raises OSError, and ValueError with what is wrong with the file."""
        path = self.path / f"{name}{SUFFIX}"
        held = _load(path)
        if isinstance(held, str):
            raise ValueError(held)
        spec = held.manifest.get("spec")
        changed = {**(spec if isinstance(spec, Mapping) else {}), "quarantine": quarantine}
        if not self._replace(path, {**held.manifest, "spec": changed}, _stamp(path)):
            raise ValueError(f"`{path}` changed while it was written; try again")

    def _files(self) -> list[Path]:
        try:
            return sorted(path for path in self.path.iterdir() if path.suffix == SUFFIX and not path.name.startswith("."))
        except FileNotFoundError:
            return []

    def _create(self, path: Path, manifest: Mapping[str, Any]) -> bool:
        self.path.mkdir(mode=0o700, exist_ok=True)
        with self._written(manifest) as made, contextlib.suppress(FileExistsError):
            os.link(made, path)  # never over one that somebody made meanwhile
        return True

    def _replace(self, path: Path, manifest: Mapping[str, Any], stamp: _Stamp) -> bool:
        """False when somebody changed the file since `stamp`."""
        with self._written(manifest) as made:
            try:
                if _stamp(path) != stamp:
                    return False
            except FileNotFoundError:
                return False
            made.replace(path)
        return True

    @contextlib.contextmanager
    def _written(self, manifest: Mapping[str, Any]) -> Iterator[Path]:
        descriptor, name = tempfile.mkstemp(dir=self.path, prefix=".")
        made = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(document.write(dict(manifest)))
            yield made
        finally:
            made.unlink(missing_ok=True)


def _load(path: Path) -> Shadow | str:
    """The file, or what is wrong with it."""
    try:
        reading = document.read(files.read(path))
    except FileError as error:
        return f"{path.name}: {error}"
    for mistake in reading.mistakes:
        return f"{path.name}:{mistake.position.line}: {mistake.message} ({mistake.code})"
    if len(reading.documents) != 1:
        return f"{path.name}: expected one ShadowAgent, got {len(reading.documents)} documents"
    manifest = reading.documents[0].value
    parsed = parse.parse(manifest)
    for wrong in parsed.mistakes:
        return f"{path.name}: {wrong}"
    if not isinstance(parsed.resource, ShadowAgent) or not isinstance(manifest, dict):
        return f"{path.name}: expected a ShadowAgent, got {type(parsed.resource).__name__}"
    if parsed.resource.name != path.stem:
        return f"{path.name}: expected `metadata.name` to be the file's name without `{SUFFIX}`, got `{parsed.resource.name}`"
    return Shadow(name=path.stem, quarantine=parsed.resource.quarantine, cgroup=_cgroup(manifest), manifest=manifest)


def _cgroup(manifest: Mapping[str, Any]) -> str:
    status = manifest.get("status")
    where = status.get("where") if isinstance(status, Mapping) else None
    found = where.get("cgroup") if isinstance(where, Mapping) else None
    return found if isinstance(found, str) else ""


def _stamp(path: Path) -> _Stamp:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
