"""The tables are defined once, and no record is larger than the bound whatever somebody puts into it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from hopgate.audit import records
from hopgate.audit.records import MAX_RECORD_BYTES, MAX_TEXT, TABLES, Record
from tests.hopgate.audit import samples

LARGE = "x" * (MAX_RECORD_BYTES + 1)
CONTROL = "\x00" * MAX_RECORD_BYTES
_KINDS = records.columns("decisions")
TEXTS = [name for name, kind in _KINDS.items() if kind in ("String", "LowCardinality(String)") and name not in ("id", "context")]
LISTS = [name for name, kind in _KINDS.items() if kind == "Array(String)"]


def filled(text: str, texts: tuple[str, ...], **more: Any) -> records.Decision:
    """A decision with the same in every text, and the same in every list."""
    told: dict[str, Any] = {**dict.fromkeys(TEXTS, text), **dict.fromkeys(LISTS, texts), **more}
    return samples.decision(**told)


@pytest.mark.parametrize("table", TABLES)
def test_each_column_has_a_type_and_a_meaning(table: str) -> None:
    assert list(records.columns(table)) == list(records.meanings(table))
    assert all(records.columns(table).values())
    assert all(records.meanings(table).values())
    assert list(records.columns(table))[:2] == ["id", "time"]


@pytest.mark.parametrize(
    ("record", "table"),
    [
        (samples.decision(), "decisions"),
        (samples.name(), "names"),
        (samples.change(), "changes"),
        (samples.flow(), "flows"),
        (samples.sighting(), "sightings"),
    ],
    ids=["a decision", "a name", "a change", "a flow", "a sighting"],
)
def test_a_record_is_rendered_in_the_order_of_its_columns(record: Record, table: str) -> None:
    assert records.table_of(record) == table
    assert list(json.loads(records.render(record))) == list(records.columns(table))


def test_a_context_within_the_bound_is_kept() -> None:
    rendered = json.loads(records.render(samples.decision(context={"a": "x" * 1000})))
    assert (rendered["context"], rendered["truncated"]) == ({"a": "x" * 1000}, False)


def test_a_context_beyond_the_bound_is_left_out_and_the_record_says_so() -> None:
    rendered = records.render(samples.decision(caller="demo/a", context={LARGE: 1}))
    read = json.loads(rendered)
    assert (read["context"], read["truncated"], read["caller"]) == ({}, True, "demo/a")
    assert len(rendered) <= MAX_RECORD_BYTES


@pytest.mark.parametrize(
    "record",
    [
        samples.decision(message=LARGE),
        filled(LARGE, ()),
        filled(CONTROL, (CONTROL,) * 20, context={CONTROL: CONTROL}),
        samples.decision(errors=("é" * 40_000,) * 3),
        samples.decision(chain=("a",) * 50_000),
        samples.name(name=LARGE),
        samples.change(after={"command": [LARGE]}),
        samples.change(before={"command": ["a"] * 50_000}, after={LARGE: {LARGE: 1}}),
    ],
    ids=[
        "a text",
        "every text",
        "everything, in the longest form of JSON",
        "long errors",
        "a long chain",
        "a name",
        "a command's argument",
        "a command of many arguments",
    ],
)
def test_no_record_is_beyond_the_bound(record: Record) -> None:
    rendered = records.render(record)
    assert len(rendered) <= MAX_RECORD_BYTES
    assert json.loads(rendered)["id"] == record.id


def test_a_long_argument_of_a_run_is_kept_as_its_digest_beside_the_others() -> None:
    rendered = json.loads(records.render(samples.change(after={"command": ["python", LARGE], "pid": 7})))
    digest = hashlib.sha256(LARGE.encode()).hexdigest()
    assert rendered["after"] == {"command": ["python", {"length": len(LARGE), "sha256": digest}], "pid": 7}


LONG = "é" * (MAX_TEXT + 1)
DIGEST = {"length": MAX_TEXT + 1, "sha256": hashlib.sha256(LONG.encode()).hexdigest()}


@pytest.mark.parametrize(
    ("value", "shortened"),
    [
        (LONG[1:], LONG[1:]),
        (LONG, DIGEST),
        ({"a": LONG, "b": [LONG, 1]}, {"a": DIGEST, "b": [DIGEST, 1]}),
        ((LONG, True), [DIGEST, True]),
        (None, None),
        (10**20, 10**20),
    ],
    ids=["a text at the bound", "a text beyond it", "texts inside", "a tuple", "nothing", "a number"],
)
def test_long_text_becomes_its_length_and_digest(value: Any, shortened: Any) -> None:
    assert records.shorten(value) == shortened


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def test_a_context_that_nests_too_deep_is_left_out_and_the_record_says_so() -> None:
    read = json.loads(records.render(samples.decision(context={"arguments": nested(100_000)})))
    assert (read["context"], read["truncated"]) == ({}, True)


@pytest.mark.parametrize(
    "record",
    [
        samples.change(after={"bind": ["/srv/\udcff"]}),
        samples.change(after={"\ud800": "x"}),
        samples.decision(path="/srv/\udcff", context={"a": "\ud800"}),
        samples.decision(message=LARGE + "\udcff"),
    ],
    ids=["a path", "a key", "a decision", "one that is cut"],
)
def test_text_without_utf8_is_written_as_its_code(record: Record) -> None:
    rendered = records.render(record)
    assert len(rendered) <= MAX_RECORD_BYTES
    assert json.loads(rendered.decode())["id"] == record.id


def test_a_byte_of_a_path_is_recognised() -> None:
    rendered = json.loads(records.render(samples.change(after={"bind": ["/srv/\udcff"]})))
    assert rendered["after"] == {"bind": ["/srv/\\udcff"]}
