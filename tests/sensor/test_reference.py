"""The reference page is what its definition gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sensor import data, reference
from sensor.evidence import DEFINITIONS


def test_the_page_is_what_is_generated(repository: Path, tmp_path: Path) -> None:
    made = tmp_path / "evidence.md"
    subprocess.run([sys.executable, "-m", "sensor.reference", str(made)], check=True, cwd=repository, stdin=subprocess.DEVNULL)
    assert (repository / "docs" / "reference" / "evidence.md").read_text(encoding="utf-8") == made.read_text(encoding="utf-8"), (
        "run `make gen`"
    )


def test_without_a_file_it_says_what_it_expects(capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main([]) == 2
    assert "FILE" in capsys.readouterr().err


def test_the_page_has_each_kind_with_its_points_and_each_host() -> None:
    page = reference.page()
    for kind, definition in DEFINITIONS.items():
        assert f"| `{kind}` | {definition.aspect} | {definition.weight} |" in page
    for provider in data.built_in().providers:
        assert all(f"`{host}`" in page for host in provider.hosts)
