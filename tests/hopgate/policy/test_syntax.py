"""Cutting Cedar text into policies, and finding the place that a message is about."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopgate.policy import cedar, syntax
from hopgate.policy.errors import CedarSyntaxError
from hopgate.policy.syntax import MAX_BRACKETS, MAX_OPERATORS, Position

ONE = "permit (principal, action, resource);"


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        pytest.param("", [], id="nothing"),
        pytest.param("  // only a comment\n", [], id="a comment"),
        pytest.param(ONE, [(ONE, 1, 1)], id="one"),
        pytest.param(f"// first\n\n  {ONE}", [(ONE, 3, 3)], id="one after a comment"),
        pytest.param(f"{ONE} {ONE}\n{ONE}", [(ONE, 1, 1), (ONE, 1, 39), (ONE, 2, 1)], id="three"),
        pytest.param(f"{ONE}\n// permit (principal, action, resource);\n", [(ONE, 1, 1)], id="one in a comment"),
        pytest.param('@id("a;b") ' + ONE, [('@id("a;b") ' + ONE, 1, 1)], id="a semicolon in a string"),
        pytest.param('@id("a\\";b") ' + ONE, [('@id("a\\";b") ' + ONE, 1, 1)], id="a semicolon after an escaped quote"),
        pytest.param("permit ( // ; \n principal", [("permit ( // ; \n principal", 1, 1)], id="unfinished"),
        pytest.param(f"// a\r{ONE}", [(ONE, 1, 6)], id="a comment that a carriage return ends"),
        pytest.param('"abc;', [('"abc;', 1, 1)], id="a string without end"),
    ],
)
def test_text_is_cut_into_policies_with_their_places(text: str, pieces: list[tuple[str, int, int]]) -> None:
    assert [(piece.text, piece.start.line, piece.start.column) for piece in syntax.cut(text)] == pieces


TOKENS = st.sampled_from(
    [
        "permit",
        "forbid",
        "(",
        ")",
        "principal",
        "action",
        "resource",
        ",",
        ";",
        "when",
        "{",
        "}",
        "true",
        '"a;"',
        "//;\n",
        "\n",
        "\r",
        " ",
        "==",
        "1",
        '"',
        "\\",
        "@id",
    ]
)


@given(st.lists(TOKENS | st.just(ONE), max_size=20).map(" ".join))
def test_cedar_finds_as_many_policies_as_are_cut(text: str) -> None:
    """Whatever Cedar can read as a whole, it reads piece by piece as the same number of single policies."""
    try:
        whole = cedar.count(text)
    except CedarSyntaxError:
        return
    pieces = syntax.cut(text)
    assert len(pieces) == whole
    for piece in pieces:
        assert cedar.count(piece.text) == 1


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param("permit (principal, action, resource)", (1, 37), id="no semicolon"),
        pytest.param("permit (principal,\n  action\n  resource);", (3, 3), id="no comma"),
        pytest.param("permit (principal, action, resource)\nwhen { 1 & 2 };", (2, 10), id="half of an operator"),
        pytest.param("permit (principal, action, resource)\nwhen {\n  context.a == 'x' };", (3, 16), id="single quotes"),
        pytest.param("permit (principal, action, resource)\nwhen { true && foo };", (2, 16), id="a variable that is none"),
        pytest.param("permit (principal, action, resource)\nwhen { context.foo(1) };", (2, 16), id="a method that is none"),
        pytest.param('permit (principal, action, resource)\nwhen { "abc };', (2, 8), id="a string without end"),
        pytest.param("allow (principal, action, resource);", (1, 1), id="an effect that is none"),
        pytest.param("permit (principal, action, resource)\nwhen { 99999999999999999999 == 1 };", (2, 29), id="a number that is too large"),
    ],
)
def test_a_syntax_error_has_its_place(text: str, place: tuple[int, int]) -> None:
    (piece,) = syntax.cut(text)
    with pytest.raises(CedarSyntaxError) as error:
        cedar.read(piece.text)
    assert syntax.locate_syntax(piece, str(error.value), cedar.read) == Position(line=place[0], column=place[1])


def _condition(expression: str) -> str:
    return f"permit (principal, action, resource) when {{ {expression} }};"


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        pytest.param(_condition("(" * (MAX_BRACKETS - 1) + "true" + ")" * (MAX_BRACKETS - 1)), None, id="as deep as may be"),
        pytest.param(_condition("(" * MAX_BRACKETS + "true" + ")" * MAX_BRACKETS), "expected at most 50 nested brackets", id="one deeper"),
        pytest.param(_condition("[" * 60 + "]" * 60 + " == 1"), "expected at most 50 nested brackets", id="sets"),
        pytest.param(_condition("{a:" * 60 + "1" + "}" * 60 + " == 1"), "expected at most 50 nested brackets", id="records"),
        pytest.param(_condition("(" * 100_000), "expected at most 50 nested brackets", id="brackets without end"),
        pytest.param("(" * 100_000, "expected at most 50 nested brackets", id="brackets alone"),
        pytest.param("}" * 100 + "(" * 100, "expected at most 50 nested brackets", id="closed before they are opened"),
        pytest.param(_condition(" && ".join(["true"] * (MAX_OPERATORS + 1))), None, id="as many operators as may be"),
        pytest.param(_condition(" && ".join(["true"] * (MAX_OPERATORS + 2))), "expected at most 300 operators", id="one operator more"),
        pytest.param(_condition("context" + ".a" * 100_000), "expected at most 300 operators", id="a chain of attributes"),
        pytest.param(_condition("if true then true else " * 100_000 + "true"), "expected at most 300 operators", id="a chain of ifs"),
        pytest.param(_condition("context" + '["a"]' * 100_000), "expected at most 300 operators", id="a chain of indexes"),
        pytest.param(_condition("context.now in [" + ", ".join(["1"] * 5_000) + "]"), None, id="a long set"),
        pytest.param("permit (principal, action, resource)" + " when { 1 + 1 == 2 }" * 200 + ";", None, id="many conditions"),
        pytest.param(_condition('"a\u202eb" == "c"'), "character U+202E changes the direction of reading", id="right-to-left override"),
        pytest.param(_condition('"aä\u05d0b" == "c"'), None, id="Hebrew itself"),
    ],
)
def test_text_that_would_end_the_process_or_deceive_is_kept_from_cedar(text: str, refused: str | None) -> None:
    (piece,) = syntax.cut(text)
    danger = syntax.find_danger(piece)
    assert (danger is None) is (refused is None)
    if danger is not None and refused is not None:
        assert danger[0].startswith(refused)


@pytest.mark.parametrize(
    ("message", "place"),
    [
        pytest.param("attribute `arguments.limit` is not there", (2, 26), id="a path by its last word"),
        pytest.param("unrecognized entity type `Agent`", (1, 22), id="a type"),
        pytest.param("invalid variable: principal", (1, 9), id="a last word without quotes"),
        pytest.param("something else", (1, 1), id="nothing that is there"),
    ],
)
def test_a_message_is_placed_by_the_words_that_it_quotes(message: str, place: tuple[int, int]) -> None:
    (piece,) = syntax.cut('permit (principal == Agent::"a", action, resource)\nwhen { context.arguments.limit <= 100 };')
    assert syntax.locate_quoted(piece, message) == Position(line=place[0], column=place[1])
