"""Prints what an image holds as a CycloneDX document: Python distributions, Debian packages, the interpreter, with versions and licences.

Run by the image's own Python while it is built (`Dockerfile`), with the standard library alone. Arguments: further folders of
distributions.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any
from urllib.parse import quote

_UNKNOWN = "unknown"
_CLASSIFIER = "License :: OSI Approved :: "
# Longer ones are the text of a licence, not its name.
_LONGEST_NAME = 60
# A licence paragraph or field of a copyright file in Debian's machine-readable format begins so.
_DEBIAN_LICENCE = re.compile(r"^License:[ \t]*(\S.*)$", re.MULTILINE)


def document(folders: Sequence[str]) -> dict[str, Any]:
    """The document, its components sorted by name."""
    components = [*_python_components(folders), *_debian_components(), _interpreter()]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "components": sorted(components, key=lambda component: (component["name"].lower(), component["version"])),
    }


def _component(name: str, version: str, url: str, licences: Sequence[str], kind: str = "library") -> dict[str, Any]:
    names = [{"license": {"name": licence}} for licence in licences or (_UNKNOWN,)]
    return {"type": kind, "name": name, "version": version, "purl": url, "bom-ref": url, "licenses": names}


def _python_components(folders: Sequence[str]) -> Iterator[dict[str, Any]]:
    for found in (*importlib.metadata.distributions(), *importlib.metadata.distributions(path=list(folders))):
        name = found.metadata["Name"]
        canonical = re.sub(r"[-_.]+", "-", name).lower()
        yield _component(name, found.version, f"pkg:pypi/{canonical}@{found.version}", _python_licences(found))


def _python_licences(found: Distribution) -> list[str]:
    """By trust: the SPDX expression, a short `License` field, the classifiers, the licence's own file."""
    expressions = found.metadata.get_all("License-Expression")
    if expressions:
        return list(expressions)
    field = "".join(found.metadata.get_all("License") or ()).strip()
    if field and len(field) <= _LONGEST_NAME and "\n" not in field:
        return [field]
    classifiers = found.metadata.get_all("Classifier") or ()
    named = [classifier.removeprefix(_CLASSIFIER) for classifier in classifiers if classifier.startswith(_CLASSIFIER)]
    return named or [f"see {file}" for file in found.files or () if file.parent.name == "licenses"]


def _debian_components() -> Iterator[dict[str, Any]]:
    command = ("dpkg-query", "--show", "--showformat", "${Package}\t${Version}\t${Architecture}\n")
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        name, version, architecture = line.split("\t")
        url = f"pkg:deb/debian/{name}@{quote(version, safe='')}?arch={architecture}"
        yield _component(name, version, url, _debian_licences(name))


def _debian_licences(package: str) -> list[str]:
    """The names that its copyright file uses; the file itself when it is not in the machine-readable format (DEP 5)."""
    file = Path("/usr/share/doc", package, "copyright")
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    if not text.startswith("Format:"):
        return [f"see {file}"]
    return sorted({name.strip() for name in _DEBIAN_LICENCE.findall(text)})


def _interpreter() -> dict[str, Any]:
    version = platform.python_version()
    return _component("CPython", version, f"pkg:generic/cpython@{version}", ["PSF-2.0"], kind="platform")


if __name__ == "__main__":
    json.dump(document(sys.argv[1:]), sys.stdout, indent=1)
