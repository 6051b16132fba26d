"""The reference page of the resources names every field, default kind and code that the code knows, and its examples load."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from hopgate.manifests import document, folder
from hopgate.manifests.document import SyntaxCode
from hopgate.manifests.errors import FileError, FolderError
from hopgate.manifests.folder import FolderCode, Loaded
from hopgate.resources.conflicts import ConflictCode
from hopgate.resources.fields import Code
from hopgate.resources.parse import parse

KINDS = ["Agent", "ToolServer", "ModelProvider", "Policy", "ClusterPolicy", "IdentityProvider", "ShadowAgent", "Secret"]
# They stand in the table of what all kinds have.
SHARED = {"apiVersion", "kind", "metadata", "status"}
PROBE = "zzzzzzzzzz"


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs" / "reference" / "resources.md").read_text()


def _section(page: str, title: str) -> str:
    found = re.search(rf"^## (?:[A-Za-z]+ and )?{title}(?: and [A-Za-z]+)?\n(.*?)(?=^## )", page, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[1]


def _examples(text: str) -> str:
    return "---\n".join(re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))


def _documented(section: str) -> dict[str, set[str]]:
    """The fields of each mapping, by the mapping's own path as the page writes it."""
    tree: dict[str, set[str]] = {"": set()}
    for path in re.findall(r"^\| `([a-zA-Z.\[\]]+)` \|", section, re.MULTILINE):
        parent, _, name = path.rpartition(".")
        tree.setdefault(parent, set()).add(name)
    return tree


def _known(manifests: list[Any], path: str) -> set[str]:
    """What the parser says it knows in the mapping at `path`, asked with a field that it does not know."""
    for manifest in copy.deepcopy(manifests):
        found = manifest
        for step in [step for step in path.split(".") if step]:
            found = found.get(step.removesuffix("[]"), {}) if isinstance(found, dict) else {}
            found = found[0] if isinstance(found, list) else found
        if not found:
            continue
        found[PROBE] = 1
        (mistake,) = parse(manifest).mistakes
        assert mistake.code == "UnknownField"
        return set(re.findall(r"`(\w+)`", mistake.message.partition("known here:")[2]))
    raise AssertionError(f"no example of the page has {path}")


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_kind_is_on_the_page_and_no_other(page: str, kind: str) -> None:
    section = _section(page, kind)
    manifests = [found.value for found in document.read(_examples(section).encode()).documents]
    own = [found for found in manifests if isinstance(found, dict) and found["kind"] == kind]
    assert own
    tree = _documented(section)

    for path, names in tree.items():
        if path == "":
            assert _known(own, path) == names | SHARED | ({"spec"} if kind != "Secret" else set())
        else:
            assert _known(own, path) == names


def test_every_field_of_metadata_is_on_the_page(page: str) -> None:
    manifests = [found.value for found in document.read(_examples(page).encode()).documents]

    for name in _known(manifests, "metadata"):
        assert f"`metadata.{name}`" in page or f"`{name}`" in page


def test_the_examples_of_the_page_load_together(page: str, tmp_path: Path) -> None:
    (tmp_path / "page.yaml").write_text(_examples(page))

    assert isinstance(folder.load(tmp_path), Loaded)


def test_every_code_is_on_the_page(page: str) -> None:
    codes = {*Code, *ConflictCode, *SyntaxCode, *FolderCode, FolderError.code, FileError.code}

    assert set(re.findall(r"`([A-Z][A-Za-z0-9]+)`", _section(page + "\n## ", "Mistakes"))) == {str(code) for code in codes} | {"Code"} - {
        "Code"
    }
