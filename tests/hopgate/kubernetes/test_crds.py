"""The resource definitions say, field by field, what the reader of a folder reads; and the chart has them as they are generated."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from hopgate.kubernetes import crds
from hopgate.kubernetes.crds import Definition
from hopgate.kubernetes.schemas import Schema
from hopgate.manifests import document
from hopgate.resources.fields import Path as FieldPath
from hopgate.resources.parse import parse

Manifest = dict[str, Any]

PROBE = "zzzzzzzzzz"
DEFINITIONS = pytest.mark.parametrize("definition", crds.DEFINITIONS, ids=lambda definition: definition.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A mapping of known fields in an example's spec, and its schema."""

    manifest: Manifest
    path: FieldPath
    schema: Schema


def _spec(definition: Definition) -> Schema:
    (version,) = crds.manifest(definition)["spec"]["versions"]
    found: Schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


def _is_known(schema: Schema) -> bool:
    """Whether this is a mapping whose fields are all known, not one that is kept as it is."""
    return "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields")


def _known_mappings(schema: Schema, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of each mapping of known fields; `[]` is any item of a list."""
    if _is_known(schema):
        yield path
        for name, inner in schema["properties"].items():
            yield from _known_mappings(inner, (*path, name))
    if "items" in schema:
        yield from _known_mappings(schema["items"], (*path, "[]"))


def _examples(repository: Path, kind: str) -> list[Manifest]:
    """Those of the reference page, where every mapping of a kind is written out once."""
    page = (repository / "docs" / "reference" / "resources.md").read_text()
    texts = re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    found = [part.value for part in document.read("---\n".join(texts).encode()).documents]
    return [manifest for manifest in found if isinstance(manifest, dict) and manifest["kind"] == kind]


def _places(repository: Path, definition: Definition) -> Iterator[Place]:
    """One example for each mapping of known fields. Raises AssertionError where the page has none."""
    for path in _known_mappings(_spec(definition)):
        schema = _spec(definition)
        for step in path:
            schema = schema["items"] if step == "[]" else schema["properties"][step]
        concrete: FieldPath = ("spec", *(0 if step == "[]" else step for step in path))
        manifest = next((found for found in _examples(repository, definition.kind) if _get(found, concrete) is not None), None)
        assert manifest is not None, f"no example of {definition.kind} has {concrete}"
        yield Place(manifest=manifest, path=concrete, schema=schema)


def _get(manifest: Any, path: FieldPath) -> Any:
    for step in path:
        if isinstance(step, str):
            manifest = manifest.get(step) if isinstance(manifest, dict) else None
        else:
            manifest = manifest[step] if isinstance(manifest, list) and len(manifest) > step else None
    return manifest


def _with(place: Place, name: str, value: object) -> Manifest:
    """The place's manifest with one of its fields set; `...`: without it."""
    manifest = copy.deepcopy(place.manifest)
    found = _get(manifest, place.path)
    if value is ...:
        found.pop(name, None)
    else:
        found[name] = value
    return manifest


@DEFINITIONS
def test_a_mapping_has_the_fields_that_the_reader_knows(repository: Path, definition: Definition) -> None:
    for place in _places(repository, definition):
        (mistake,) = parse(_with(place, PROBE, 1)).mistakes
        assert mistake.code == "UnknownField"
        assert set(re.findall(r"`(\w+)`", mistake.message.partition("known here:")[2])) == set(place.schema["properties"])


@DEFINITIONS
def test_what_is_required_is_required_by_both(repository: Path, definition: Definition) -> None:
    for place in _places(repository, definition):
        required = {
            name
            for name in place.schema["properties"]
            if any("which is required" in mistake.message for mistake in parse(_with(place, name, ...)).mistakes)
        }
        assert required == set(place.schema.get("required", ()))


@DEFINITIONS
def test_a_default_is_what_the_reader_takes_for_a_field_that_is_not_there(repository: Path, definition: Definition) -> None:
    for place in _places(repository, definition):
        for name, schema in place.schema["properties"].items():
            if "default" in schema:
                written, left_out = parse(_with(place, name, schema["default"])), parse(_with(place, name, ...))
                assert written.resource is not None
                assert written.resource == left_out.resource


@DEFINITIONS
def test_a_choice_has_the_options_that_the_reader_names(repository: Path, definition: Definition) -> None:
    for place in _places(repository, definition):
        for name, schema in place.schema["properties"].items():
            item = schema.get("items", schema)
            value: object = [PROBE] if "items" in schema else PROBE
            messages = [found.message for found in parse(_with(place, name, value)).mistakes if "expected one of" in found.message]
            options = [re.findall(r"`(\w+)`", message.partition(", got")[0]) for message in messages]
            assert options == ([item["enum"]] if "enum" in item else [])


@DEFINITIONS
def test_an_object_may_lack_its_spec_where_the_reader_lets_it(repository: Path, definition: Definition) -> None:
    manifest = copy.deepcopy(_examples(repository, definition.kind)[0])
    del manifest["spec"]

    assert bool(parse(manifest).mistakes) == definition.spec_required
    assert ("default" in _spec(definition)) != definition.spec_required


@DEFINITIONS
def test_a_kind_has_a_namespace_where_the_reader_says_so(repository: Path, definition: Definition) -> None:
    reference = parse(_examples(repository, definition.kind)[0]).reference

    assert reference is not None
    assert (reference.namespace is not None) == definition.namespaced


def test_every_kind_that_the_reader_knows_is_defined() -> None:
    (mistake,) = parse({"apiVersion": "hopgate.dev/v1alpha1", "kind": PROBE}).mistakes
    known = set(re.findall(r"`(\w+)`", mistake.message.partition(", got")[0]))

    assert {definition.kind for definition in crds.DEFINITIONS} == known - {"Secret"}


@DEFINITIONS
def test_every_field_is_described(definition: Definition) -> None:
    (version,) = crds.manifest(definition)["spec"]["versions"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]

    assert [path for name in ("spec", "status") for path in _undescribed(properties[name], (name,))] == []


def _undescribed(schema: Schema, path: tuple[str, ...]) -> Iterator[str]:
    if not schema.get("description", "").endswith("."):
        yield ".".join(path)
    for name, inner in schema.get("properties", {}).items():
        yield from _undescribed(inner, (*path, name))
    if "items" in schema:
        yield from _undescribed(schema["items"], (*path, "[]"))


@DEFINITIONS
def test_the_reference_page_has_its_names_columns_and_status(repository: Path, definition: Definition) -> None:
    page = (repository / "docs" / "reference" / "resources.md").read_text()
    columns = ", ".join(column.name for column in definition.columns if not column.wide)
    rows = re.findall(r"^\| `status\.(\w+)` \| ([^|]*) \|", page, re.MULTILINE)
    (version,) = crds.manifest(definition)["spec"]["versions"]

    assert f"| `{definition.kind}` | `{definition.plural}` | `{definition.short}` | {columns} |" in page
    documented = {field for field, kinds in rows if kinds == "all" or f"`{definition.kind}`" in kinds}
    assert documented == set(version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"])


def test_the_chart_has_them_as_they_are_generated(repository: Path, tmp_path: Path) -> None:
    """`make gen` writes them."""
    (tmp_path / "hopgate.dev_stale.yaml").touch()
    crds.write(tmp_path)
    chart = repository / "deploy" / "charts" / "hopgate" / "crds"

    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {file.name: file.read_text() for file in chart.iterdir()}


@DEFINITIONS
def test_the_yaml_is_the_value(definition: Definition) -> None:
    assert yaml.safe_load(crds.to_yaml(crds.manifest(definition))) == crds.manifest(definition)


@pytest.mark.parametrize(
    "value",
    [
        {"a": {"b": [[1, [2]], {"c": [], "d": {}}, [], {}]}},
        {
            "on": "off",
            "yes": "Null",
            "1": "1",
            "a": "1e3",
            "b": "",
            "c": "- x: y # z",
            "d": "a\n\"b'\\\t\u2028é",
            "e": "~",
            "f": "=",
            "g": "y",
        },
        {"a": [True, False, None, 0, -1.5]},
    ],
    ids=["nested", "strings", "scalars"],
)
def test_yaml_reads_as_what_was_written(value: Schema) -> None:
    assert yaml.safe_load(crds.to_yaml(value)) == value
