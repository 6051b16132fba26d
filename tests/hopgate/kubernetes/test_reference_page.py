"""The reference page names each reason that a condition can have: its own table, and the tables of mistakes that it leads to."""

from __future__ import annotations

import re
from pathlib import Path

from hopgate.kubernetes import claims, crds, objects, statuses
from hopgate.resources.conflicts import ConflictCode
from hopgate.resources.fields import Code


def _codes(table: str) -> set[str]:
    return {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}


def test_the_table_of_reasons_has_each_reason(repository: Path) -> None:
    page = (repository / "docs" / "reference" / "resources.md").read_text(encoding="utf-8")
    own, _, rest = page.partition("| reason | means |")[2].partition("## Mistakes")
    own = own.partition("or one of")[0]
    assert _codes(own) == {statuses.IN_FORCE, objects.MISSING_SERVICE, objects.UNUSABLE_SERVICE, claims.UNREADABLE_SECRET}
    assert {code.value for code in (*Code, *ConflictCode)} <= _codes(rest)


def test_each_kind_with_a_condition_has_its_columns() -> None:
    shown = {each.kind: {column.name for column in each.columns} for each in crds.DEFINITIONS}
    for kind, condition in statuses.CONDITIONS.items():
        assert {condition, "Reason"} <= shown[kind]
    assert shown.keys() - statuses.CONDITIONS.keys() == {"ShadowAgent"}
