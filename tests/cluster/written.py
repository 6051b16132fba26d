"""Every manifest that this repository shows or uses, with its placeholders filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

from hopgate.demo import credentials
from hopgate.manifests import document
from tests.cluster.verdicts import DEFINITIONS, Manifest
from tests.end_to_end import manifests
from tests.hopgate.resources.test_destinations import CERTIFICATE
from tests.hopgate.resources.test_governance import KEY

REPOSITORY = Path(__file__).resolve().parents[2]

_JWKS = {"keys": [KEY]}
_PORT = "_port"


def all_manifests() -> dict[str, Manifest]:
    """Those of hopgate's own kinds, by where they stand."""
    found: dict[str, Manifest] = {}
    for place, text in _texts():
        for position, part in enumerate(document.read(text.encode()).documents):
            manifest: Any = part.value
            if isinstance(manifest, dict) and manifest.get("kind") in DEFINITIONS:
                found[f"{place}#{position} {manifest['kind']} {manifest['metadata']['name']}"] = manifest
    return found


def demo() -> dict[str, str]:
    """The demo's files, by name."""
    addresses = {"tickets_address": "127.0.0.1:9000", "model_address": "127.0.0.1:9001"}
    return credentials.resources(
        {**addresses, "model_key": "sk-example", "authority_pem": json.dumps(CERTIFICATE), "jwks": json.dumps(_JWKS)}
    )


def _ports(template: Template) -> dict[str, int]:
    wanted = [name.removesuffix(_PORT) for name in template.get_identifiers() if name.endswith(_PORT)]
    return {name: 9000 + position for position, name in enumerate(wanted)}


def _texts() -> Iterator[tuple[str, str]]:
    for page in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))):
        blocks = re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
        yield str(page.relative_to(REPOSITORY)), "---\n".join(blocks)
    yield from demo().items()
    world = REPOSITORY / "tests" / "world" / "resources.yaml"
    yield "tests/world", world.read_text()
    end_to_end = manifests.world(ports=_ports(Template(manifests._WORLD)), authority_pem=CERTIFICATE.encode(), jwks=dict(_JWKS))
    yield from ((f"tests/end_to_end/{name}", text) for name, text in end_to_end.items())
