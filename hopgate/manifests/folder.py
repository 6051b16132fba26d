"""A folder of manifests, read whole: all its resources with their registry, or every mistake with file, line and field.

Nothing of a folder with a mistake is used: a missing rule can't be told from a misspelt one. No mistake shows a Secret's value.
The Cedar of its policies is not read here; `Loaded.locate` finds the line for what is wrong in it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from hopgate.manifests import document as documents
from hopgate.manifests import files
from hopgate.manifests.document import Document, Layout, Position, SyntaxMistake
from hopgate.manifests.errors import ManifestError
from hopgate.resources import conflicts, fields, parse, reference, registry
from hopgate.resources.conflicts import Conflict, ConflictCode
from hopgate.resources.fields import Path as FieldPath
from hopgate.resources.kinds import IdentityProvider, Policy, Resource, SecretKey, SecretValue
from hopgate.resources.reference import ObjectReference
from hopgate.resources.registry import Registry


class FolderCode(StrEnum):
    """What is wrong with the folder as such: stable codes."""

    EMPTY = "FolderEmpty"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Mistake:
    """One mistake. `line` and `column` count from 1; 0 stands for the file or folder as such. `field` is empty for a whole document."""

    file: str
    line: int
    column: int
    field: str
    code: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.field}: {self.message} ({self.code})" if self.field else f"{place}: {self.message} ({self.code})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a resource was read from."""

    file: str
    layout: Layout

    def mistake(self, path: FieldPath, code: str, message: str) -> Mistake:
        """A mistake of a field of this document."""
        return _mistake(self.file, self.layout.locate(path), path, code, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A folder without a mistake. `digest` is the hex SHA-256 of its files' names and bytes; `identity_providers` go by issuer."""

    digest: str
    resources: tuple[Resource, ...]
    registry: Registry
    secrets: Mapping[SecretKey, SecretValue]
    identity_providers: Mapping[str, IdentityProvider]
    policies: tuple[Policy, ...]
    origins: Mapping[ObjectReference, Origin] = field(repr=False)

    def locate(self, kind: str, namespace: str | None, name: str, path: FieldPath, line_offset: int | None = None) -> tuple[str, int]:
        """File and line of a field of one of the resources; `line_offset` counts lines from 0 within a text such as `spec.cedar`.

        Raises KeyError for an object that is not in the folder.
        """
        origin = self.origins[ObjectReference(kind=kind, namespace=namespace, name=name)]
        return origin.file, origin.layout.locate(path, line_offset).line


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A folder with mistakes: all of them, sorted by file and line."""

    mistakes: tuple[Mistake, ...]


LoadResult = Loaded | Refused


@dataclass(slots=True)
class _Collected:
    """What the files gave so far. `unread` says that some document's kind or name is not known, so that it may be anything."""

    parts: list[bytes] = field(default_factory=list)
    resources: list[Resource] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    refused: set[ObjectReference] = field(default_factory=set)
    unread: bool = False


def load(folder: Path, previous: Registry | None = None) -> LoadResult:
    """Read every manifest below `folder`. `previous` keeps the virtual addresses of names that are still there. Never raises."""
    collected = _Collected()
    try:
        for path in files.find(folder):
            _collect_file(folder, path, collected)
    except ManifestError as error:
        collected.mistakes.append(_folder_mistake(folder, error.code, str(error)))
    if not collected.resources and not collected.mistakes:
        message = "expected at least one manifest (`*.yaml`, `*.yml` or `*.json`), got none: add one, or name another folder"
        collected.mistakes.append(_folder_mistake(folder, FolderCode.EMPTY, message))
    built = registry.build(collected.resources, previous)
    collected.mistakes.extend(_conflict_mistakes(built.conflicts, collected))
    if collected.mistakes or built.registry is None:
        return Refused(mistakes=tuple(sorted(set(collected.mistakes))))
    resources = tuple(collected.resources)
    return Loaded(
        digest=_digest(collected.parts),
        resources=resources,
        registry=built.registry,
        secrets=conflicts.secret_values(resources),
        identity_providers={resource.issuer: resource for resource in resources if isinstance(resource, IdentityProvider)},
        policies=tuple(resource for resource in resources if isinstance(resource, Policy)),
        origins={reference.of(resource): origin for resource, origin in zip(resources, collected.origins, strict=True)},
    )


def _collect_file(folder: Path, path: Path, collected: _Collected) -> None:
    file = files.shown(path)
    try:
        data = files.read(path)
    except ManifestError as error:
        collected.unread = True
        collected.mistakes.append(Mistake(file=file, line=0, column=0, field="", code=error.code, message=str(error)))
        return
    collected.parts.extend((os.fsencode(path.relative_to(folder)), data))
    reading = documents.read(data)
    collected.unread = collected.unread or bool(reading.mistakes)
    collected.mistakes.extend(_syntax_mistake(file, mistake) for mistake in reading.mistakes)
    for found in reading.documents:
        _collect_document(file, found, collected)


def _digest(parts: Iterable[bytes]) -> str:
    """Hex SHA-256, with each part's length before it, so that no other names and bytes run together to the same digest."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def _collect_document(file: str, document: Document, collected: _Collected) -> None:
    origin = Origin(file=file, layout=document.layout)
    result = parse.parse(document.value)
    collected.mistakes.extend(origin.mistake(mistake.path, mistake.code, mistake.message) for mistake in result.mistakes)
    if result.resource is not None:
        collected.resources.append(result.resource)
        collected.origins.append(origin)
    elif result.reference is not None:
        collected.refused.add(result.reference)
    else:
        collected.unread = True


def _conflict_mistakes(found: Iterable[Conflict], collected: _Collected) -> Iterable[Mistake]:
    for conflict in found:
        if _may_be_refused(conflict, collected):
            continue
        message = conflict.message
        if conflict.other is not None:
            other = collected.origins[conflict.other]
            message += f" ({other.file}:{other.layout.locate(conflict.other_path).line})"
        yield collected.origins[conflict.position].mistake(conflict.path, conflict.code, message)


def _may_be_refused(conflict: Conflict, collected: _Collected) -> bool:
    """Whether the Secret that is missing may be there, in a document with a mistake of its own, which is reported."""
    return conflict.code is ConflictCode.MISSING_SECRET and (collected.unread or conflict.missing in collected.refused)


def _folder_mistake(folder: Path, code: str, message: str) -> Mistake:
    return Mistake(file=files.shown(folder), line=0, column=0, field="", code=code, message=message)


def _syntax_mistake(file: str, mistake: SyntaxMistake) -> Mistake:
    return _mistake(file, mistake.position, mistake.path, mistake.code, mistake.message)


def _mistake(file: str, position: Position, path: FieldPath, code: str, message: str) -> Mistake:
    return Mistake(file=file, line=position.line, column=position.column, field=fields.show(path), code=str(code), message=message)
