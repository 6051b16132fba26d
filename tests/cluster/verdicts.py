"""What the API server and the reader of a folder say of one manifest, side by side."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from kubernetes.client import ApiException, CoreV1Api, CustomObjectsApi, V1Namespace, V1ObjectMeta

from hopgate.identity import names
from hopgate.kubernetes import crds
from hopgate.kubernetes.crds import Definition
from hopgate.resources import parse
from hopgate.resources.fields import Path
from hopgate.resources.kinds import GROUP, VERSION
from hopgate.resources.parse import ParseResult
from tests.cluster import api_server
from tests.cluster.api_server import ApiServer

Manifest = dict[str, Any]
DEFINITIONS: Mapping[str, Definition] = {definition.kind: definition for definition in crds.DEFINITIONS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`answer` is the object as the server would keep it; None: `refusal` says why not."""

    read: ParseResult
    answer: Manifest | None
    refusal: str

    @property
    def agree(self) -> bool:
        """Whether both accept it, or both refuse it."""
        return bool(self.read.mistakes) == (self.answer is None)


class Verdicts:
    """Asks the server with strict validation and without keeping anything."""

    def __init__(self, server: ApiServer) -> None:
        self._core = CoreV1Api(server.client())
        self._custom = CustomObjectsApi(server.client())
        self._namespaces = {"default"}

    def of(self, kind: str, manifest: Manifest) -> Verdict:
        """Both verdicts; `kind` is what the request says, whatever the manifest does."""
        definition = DEFINITIONS[kind]
        answer: Manifest | None = None
        refusal = ""
        try:
            answer = self._create(definition, manifest)
        except ApiException as error:
            if error.status not in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}:
                raise
            refusal = api_server.message_of(error)
        return Verdict(read=parse.parse(manifest), answer=answer, refusal=refusal)

    def _create(self, definition: Definition, manifest: Manifest) -> Manifest:
        options: dict[str, Any] = {"dry_run": "All", "field_validation": "Strict"}
        if not definition.namespaced:
            made: Any = self._custom.create_cluster_custom_object(GROUP, VERSION, definition.plural, manifest, **options)
            return dict(made)
        metadata = manifest.get("metadata")
        namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
        if not isinstance(namespace, str) or not names.is_label(namespace):
            namespace = "default"
        self._require(namespace)
        made = self._custom.create_namespaced_custom_object(GROUP, VERSION, namespace, definition.plural, manifest, **options)
        return dict(made)

    def _require(self, namespace: str) -> None:
        if namespace in self._namespaces:
            return
        try:
            self._core.create_namespace(V1Namespace(metadata=V1ObjectMeta(name=namespace)))
        except ApiException as error:
            if error.status != HTTPStatus.CONFLICT:
                raise
        self._namespaces.add(namespace)


def changed(manifest: Manifest, path: Path, value: object) -> Manifest:
    """The manifest with one field set; the value `...` takes the field away. Mappings on the way are made."""
    result = copy.deepcopy(manifest)
    found: Any = result
    for step in path[:-1]:
        found = found.setdefault(step, {}) if isinstance(found, dict) else found[step]
    if value is ...:
        del found[path[-1]]
    else:
        found[path[-1]] = copy.deepcopy(value)
    return result


def paths(value: object, path: Path = ()) -> Iterator[Path]:
    """Every place in a manifest's part, itself first."""
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in entries:
        yield from paths(inner, (*path, step))
