"""The reference page says what is: its examples compile, its tables name every action, entity type and code."""

from __future__ import annotations

import re
from pathlib import Path

from hopgate.policy import schema
from hopgate.policy.question import Action
from tests.hopgate.policy import world


def _page(repository: Path) -> str:
    return (repository / "docs" / "reference" / "cedar.md").read_text(encoding="utf-8")


def test_every_example_compiles(repository: Path) -> None:
    examples = re.findall(r"```cedar\n(.*?)```", _page(repository), re.DOTALL)
    assert len(examples) >= 4
    for text in examples:
        world.compiled(world.policy(text))


def test_the_table_of_actions_has_each_action(repository: Path) -> None:
    table = _page(repository).partition("## Actions")[2].partition("The common part")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == {action.value for action in Action}


def test_the_table_of_entities_has_each_type(repository: Path) -> None:
    table = _page(repository).partition("## Entities")[2].partition("## Actions")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == set(re.findall(r"^  entity (\w+)", schema.text(), re.MULTILINE))


def test_the_table_of_codes_has_each_code_that_admission_gives(repository: Path) -> None:
    table = _page(repository).partition("## What is refused at admission")[2].partition("## More examples")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    sources = [
        (repository / "hopgate" / "policy" / name).read_text(encoding="utf-8") for name in ("admission.py", "registered.py", "trials.py")
    ]
    given = {
        code
        for source in sources
        for code in re.findall(r'"((?:No|Invalid|Template|Duplicate|Never|Unknown|Other|Test)[A-Za-z]*)"', source)
    }
    assert named == given | {"InvalidSyntax"}
