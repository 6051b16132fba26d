"""YAML and JSON as plain values with their places; everything that could mean something else than it looks like is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopgate.manifests import document
from hopgate.manifests.document import Position, Value
from hopgate.resources.fields import Path


def _value(text: str) -> Value:
    reading = document.read(text.encode())
    assert reading.mistakes == ()
    (found,) = reading.documents
    return found.value


def _mistakes(data: bytes) -> list[tuple[str, int, int]]:
    return [(mistake.code, mistake.position.line, mistake.position.column) for mistake in document.read(data).mistakes]


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("true", True),
        ("false", False),
        *((word, word) for word in ("True", "yes", "no", "on", "off", "n", "y", "NO", "Null", "TRUE")),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-7", -7),
        (str(2**63 - 1), 2**63 - 1),
        (str(-(2**63)), -(2**63)),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        *(
            (word, word)
            for word in (
                "010",
                "0x10",
                "0o17",
                "0b1",
                "1_000",
                "+1",
                "12:30",
                ".5",
                "1.",
                "2026-01-31",
                "2026-01-31T10:00:00Z",
                "=",
                "1.2.3",
            )
        ),
        ("'1'", "1"),
        ('"true"', "true"),
        ('"a\\nb"', "a\nb"),
        ("a b", "a b"),
        ("ü", "ü"),
    ],
)
def test_a_scalar_is_what_it_looks_like(scalar: str, value: Value) -> None:
    assert _value(f"k: {scalar}\nl: x") == {"k": value, "l": "x"}


@pytest.mark.parametrize(
    ("data", "code", "line", "column", "allowed"),
    [
        pytest.param(b"a: 1\nb:\n  c: 1\n  c: 2\n", "DuplicateKey", 4, 3, b"a: 1\nb:\n  c: 1\n  d: 2\n", id="repeated key"),
        pytest.param(b'a: 1\n"a": 2\n', "DuplicateKey", 2, 1, b'a: 1\n"b": 2\n', id="repeated key, once in quotes"),
        pytest.param(b'{"a": 1,\n "a": 2}', "DuplicateKey", 2, 2, b'{"a": 1,\n "b": 2}', id="repeated key in JSON"),
        pytest.param(b"a: &x 1\n", "UnsupportedAnchor", 1, 4, b"a: '&x 1'\n", id="anchor"),
        pytest.param(b"a: *x\n", "UnsupportedAnchor", 1, 4, b"a: '*x'\n", id="alias of nothing"),
        pytest.param(b"a: !!python/object:os.system x\n", "UnsupportedTag", 1, 4, b"a: '!!python'\n", id="Python's tag"),
        pytest.param(b"a: !!str 1\n", "UnsupportedTag", 1, 4, b"a: '1'\n", id="standard tag"),
        pytest.param(b"a: !secret x\n", "UnsupportedTag", 1, 4, b"a: secret x\n", id="own tag"),
        pytest.param(b"a: !!map {}\n", "UnsupportedTag", 1, 4, b"a: {}\n", id="tag of a mapping"),
        pytest.param(b"1: x\n", "InvalidKey", 1, 1, b"'1': x\n", id="number as key"),
        pytest.param(b"true: x\n", "InvalidKey", 1, 1, b"on: x\n", id="true as key"),
        pytest.param(b"~: x\n", "InvalidKey", 1, 1, b"'~': x\n", id="null as key"),
        pytest.param(b"<<: {a: 1}\n", "InvalidKey", 1, 1, b"'<<': {a: 1}\n", id="merge key"),
        pytest.param(b"? [a]\n: x\n", "InvalidKey", 1, 3, b"? a\n: x\n", id="list as key"),
        pytest.param(b"? {a: 1}\n: x\n", "InvalidKey", 1, 3, b"? a\n: x\n", id="mapping as key"),
        pytest.param(b"a: .nan\n", "InvalidNumber", 1, 4, b"a: nan\n", id="not a number"),
        pytest.param(b"a: -.INF\n", "InvalidNumber", 1, 4, b"a: -INF\n", id="infinite"),
        pytest.param(b"a: 1e999\n", "InvalidNumber", 1, 4, b"a: 1e99\n", id="float beyond all bounds"),
        pytest.param(b"a: 9223372036854775808\n", "InvalidNumber", 1, 4, b"a: 9223372036854775807\n", id="integer of 65 bits"),
        pytest.param(b"a: " + b"9" * 10_000, "InvalidNumber", 1, 4, b"a: '" + b"9" * 10_000 + b"'", id="integer of 10,000 digits"),
        pytest.param(b"a: b: c\n", "InvalidSyntax", 1, 5, b"a: 'b: c'\n", id="two colons"),
        pytest.param(b"a: [1\n", "InvalidSyntax", 2, 1, b"a: [1]\n", id="list left open"),
        pytest.param(b"a:\n\t- b\n", "InvalidSyntax", 2, 1, b"a:\n  - b\n", id="tab as indent"),
        pytest.param(b"a: 1\nb: \x00\n", "InvalidSyntax", 2, 4, b"a: 1\nb: '0'\n", id="NUL"),
        pytest.param(b"a: \x1b[31m\n", "InvalidSyntax", 1, 4, b"a: '[31m'\n", id="escape character"),
        pytest.param(b"a: 1\nb: \xff\n", "InvalidEncoding", 2, 1, b"a: 1\nb: \xc3\xbf\n", id="not UTF-8"),
        pytest.param("a: 1".encode("utf-16"), "InvalidEncoding", 1, 1, b"\xef\xbb\xbfa: 1", id="UTF-16"),
        pytest.param(b'{"a": "\\ud83d"}', "InvalidSyntax", 1, 10, '{"a": "😀"}'.encode(), id="half a surrogate pair"),
        pytest.param(b"a: " + b"[" * 70 + b"]" * 70, "TooDeep", 1, 67, b"a: " + b"[" * 60 + b"]" * 60, id="70 levels"),
        pytest.param(b"{a: " * 100_000, "TooDeep", 1, 257, b"{a: " * 60 + b"}" * 60, id="100,000 levels"),
    ],
)  # fmt: skip
def test_what_is_refused_says_where(data: bytes, code: str, *, line: int, column: int, allowed: bytes) -> None:
    assert _mistakes(data) == [(code, line, column)]
    assert _mistakes(allowed) == []


def test_a_text_beyond_the_limit_is_not_read() -> None:
    comment = b"# " + b"x" * (document.MAX_BYTES - 8) + b"\na: 1"

    assert _mistakes(comment) == []
    assert _mistakes(comment + b"234") == [("TooLarge", 1, 1)]


def test_expanding_aliases_are_refused_without_expanding() -> None:
    bomb = b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (b, b, b - 1, b - 1) for b in range(ord("b"), ord("z")))

    assert {code for code, _, _ in _mistakes(bomb)} == {"UnsupportedAnchor"}


def test_every_document_of_a_text_is_read_and_empty_ones_are_left_out() -> None:
    reading = document.read(b"# only a comment\n---\na: 1\n---\n---\n# nothing\n---\nb: 2\n...\n")

    assert [found.value for found in reading.documents] == [{"a": 1}, {"b": 2}]
    assert [found.layout.locate(()).line for found in reading.documents] == [3, 8]


def test_a_document_with_a_mistake_does_not_hide_the_others_nor_their_mistakes() -> None:
    reading = document.read(b"a: 1\na: 2\n---\nb: !x 2\n---\nc: 3\n---\nd: [\n")

    assert [found.value for found in reading.documents] == [{"c": 3}]
    assert [(mistake.code, mistake.position.line, mistake.path) for mistake in reading.mistakes] == [
        ("DuplicateKey", 2, ()),
        ("UnsupportedTag", 4, ("b",)),
        ("InvalidSyntax", 9, ("d", 0)),
    ]


TEXT = """\
# a comment
kind: Policy
spec:
  hosts: [a,
          b]
  tests:
  - name: x
    context: {limit: 5}
  -
    name: y
  cedar: |  # the rules

    permit;
    forbid;
  folded: >
    a
    b
  quoted: "a
    b"
"""


@pytest.mark.parametrize(
    ("path", "offset", "line", "column"),
    [
        ((), None, 2, 1),
        (("kind",), None, 2, 1),
        (("spec", "hosts"), None, 4, 3),
        (("spec", "hosts", 0), None, 4, 11),
        (("spec", "hosts", 1), None, 5, 11),
        (("spec", "tests", 0, "context", "limit"), None, 8, 15),
        (("spec", "tests", 1, "name"), None, 10, 5),
        (("spec", "absent"), None, 3, 1),
        (("spec", "tests", 1, "absent", "below"), None, 10, 5),
        (("spec", "cedar"), None, 11, 3),
        (("spec", "cedar"), 0, 12, 1),
        (("spec", "cedar"), 2, 14, 1),
        (("spec", "folded"), 1, 15, 3),
        (("spec", "quoted"), 1, 18, 3),
    ],
    ids=str,
)
def test_each_field_is_found_where_it_stands(path: Path, offset: int | None, *, line: int, column: int) -> None:
    (found,) = document.read(TEXT.encode()).documents

    assert found.layout.locate(path, offset) == Position(line=line, column=column)


def test_lines_of_a_block_are_those_of_its_text() -> None:
    (found,) = document.read(TEXT.encode()).documents
    assert isinstance(found.value, dict)
    assert isinstance(found.value["spec"], dict)
    cedar = found.value["spec"]["cedar"]
    assert isinstance(cedar, str)

    for number, line in enumerate(cedar.splitlines()):
        place = found.layout.locate(("spec", "cedar"), number)
        assert TEXT.splitlines()[place.line - 1].strip() == line


def test_no_value_is_shown() -> None:
    for text in (
        "k: *MARKER",
        "k: !MARKER x",
        "k: &MARKER x",
        "k: 'MARKER",
        "k: MARKER: x",
        '"k": "MARKER\\q"',
        "k: %MARKER",
        "k: @MARKER",
        "k: MARKER\x00",
    ):
        reading = document.read(text.encode())
        assert reading.mistakes or reading.documents
        assert "MARKER" not in repr(reading)


# Text that YAML takes as it is: JSON escapes control characters, but halves of surrogate pairs only JSON can write.
_text = st.text(st.characters(min_codepoint=32, max_codepoint=0xD7FF, exclude_categories=["Cc", "Cn", "Co", "Zl", "Zp"]))
_numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_json = st.recursive(
    st.none() | st.booleans() | _numbers | _text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz ", max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(value=_json.filter(lambda value: value is not None))
def test_what_json_wrote_is_read_back_the_same(value: object) -> None:
    reading = document.read(json.dumps(value, ensure_ascii=False).encode())

    assert reading.mistakes == ()
    assert [found.value for found in reading.documents] == [value]


@given(data=st.binary(max_size=200) | st.text("ab:-?[]{}&*!|>'\"%@`#,\n \t~<=0.1e\\\0", max_size=60).map(str.encode))
def test_any_bytes_give_documents_or_mistakes(data: bytes) -> None:
    reading = document.read(data)

    for mistake in reading.mistakes:
        assert 1 <= mistake.position.line <= len(data) + 2
    for found in reading.documents:
        assert () in found.layout.positions
