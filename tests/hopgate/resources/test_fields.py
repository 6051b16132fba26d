"""Reading one mapping: what stands for what in messages, and that every mistake is collected."""

from __future__ import annotations

import pytest

from hopgate.resources import fields
from hopgate.resources.fields import Field, FieldError, Fields, RefusedError


@pytest.mark.parametrize(
    ("path", "shown"),
    [((), ""), (("spec",), "spec"), (("spec", "hosts", 0), "spec.hosts[0]"), (("a", 1, 2, "b\n"), "a[1][2].b\\n")],
    ids=["nothing", "a field", "an item", "items of items"],
)
def test_a_path_is_shown_as_people_write_it(path: fields.Path, shown: str) -> None:
    assert fields.show(path) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a", "`a`"), ("a\n\0b", "`a\\n\\x00b`"), ("\u202e", "`\\u202e`"), ("x" * 100, "`" + "x" * 80 + "…`"), ("\ud800", "`\\ud800`")],
    ids=["plain", "control characters", "bidi mark", "long", "half a surrogate pair"],
)
def test_a_users_text_is_cut_and_cleaned(text: str, shown: str) -> None:
    assert fields.quote(text) == shown


def test_a_mapping_collects_the_mistakes_of_its_fields_and_goes_on() -> None:
    mistakes: list[FieldError] = []
    found = Fields(Field({"a": 1, "b": "x", "z": 0}, ("spec",), mistakes))

    read = (found.required("a", fields.text, "stand-in"), found.required("b", fields.text, ""), found.required("c", fields.text, ""))
    found.close()

    assert read == ("stand-in", "x", "")
    assert [(mistake.path, mistake.code) for mistake in mistakes] == [
        (("spec", "a"), "WrongType"),
        (("spec", "c"), "MissingField"),
        (("spec", "z"), "UnknownField"),
    ]


def test_a_key_that_is_no_string_is_refused() -> None:
    mistakes: list[FieldError] = []
    Fields(Field({1: 2, "a": 1}, ("spec",), mistakes))

    assert [(mistake.path, mistake.code) for mistake in mistakes] == [(("spec",), "WrongType")]


def test_a_number_where_text_belongs_is_told_to_be_quoted() -> None:
    with pytest.raises(RefusedError, match="expected a string, got a number: put it in quotes"):
        fields.text(Field(1.2, ("spec", "version"), []))


def test_a_list_has_a_limit() -> None:
    within = fields.items(fields.integer(0, 10**6))
    assert len(within(Field(list(range(fields.MAX_ITEMS)), (), []))) == fields.MAX_ITEMS

    with pytest.raises(RefusedError, match="at most"):
        within(Field(list(range(fields.MAX_ITEMS + 1)), (), []))


@pytest.mark.parametrize(
    ("value", "accepted"),
    [(True, True), (2**63 - 1, True), (2**63, False), (-(2**63), True), (-(2**63) - 1, False), ("x", True), (1.0, False), (None, False)],
    ids=repr,
)
def test_a_context_holds_what_cedar_has_values_for(value: object, *, accepted: bool) -> None:
    field = Field({"a": [{"b": value}]}, ("context",), [])
    if accepted:
        assert fields.cedar_mapping(field) == field.value
        return
    with pytest.raises(RefusedError) as refused:
        fields.cedar_mapping(field)
    assert refused.value.mistake.path == ("context", "a", 0, "b")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), {1: 2}, b"x"], ids=repr)
def test_free_json_is_json(value: object) -> None:
    assert fields.json_mapping(Field({"a": [None, 1.5, True, "x"]}, (), [])) == {"a": [None, 1.5, True, "x"]}

    with pytest.raises(RefusedError):
        fields.json_mapping(Field({"a": value}, (), []))
