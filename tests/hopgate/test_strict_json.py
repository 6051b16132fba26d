"""JSON that all readers read alike gives its value; each thing that two readers could read differently is refused."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from hopgate import strict_json
from hopgate.strict_json import MAX_DEPTH, MAX_DIGITS, JsonError

VALUES: dict[str, tuple[bytes, Any]] = {
    "an object": (b'{"a": 1, "b": [true, false, null]}', {"a": 1, "b": [True, False, None]}),
    "white space around": (b' \t\r\n{"a": 1}\n', {"a": 1}),
    "a scalar": (b'"x"', "x"),
    "numbers": (b"[-0, 1.5, 1e3, -2E-2]", [0, 1.5, 1000.0, -0.02]),
    "an integer beyond a double": (b"9007199254740993", 9007199254740993),
    "characters beyond ASCII": ('{"é": "日本 😀"}'.encode(), {"é": "日本 😀"}),
    "an escaped pair of surrogates": (b'"\\ud83d\\ude00"', "😀"),
    "an escaped letter in a key": (b'{"\\u0061": 1}', {"a": 1}),
    "one key in two objects": (b'{"a": {"a": 1}, "b": {"a": 2}}', {"a": {"a": 1}, "b": {"a": 2}}),
    "many brackets in a text": (b'["' + b"[" * 5000 + b'\\"[[{{"]', ["[" * 5000 + '"[[{{']),
    "many flat brackets": (b"[" + b"[]," * 500 + b"[]]", [[]] * 501),
    "an escaped NUL": (b'"\\u0000"', "\x00"),
}


@pytest.mark.parametrize(("data", "value"), VALUES.values(), ids=VALUES)
def test_json_has_its_value(data: bytes, value: Any) -> None:
    assert strict_json.parse(data) == value


# What is refused, and the neighbour that differs in one fact and is read.
REFUSED: dict[str, tuple[bytes, bytes]] = {
    "a repeated key": (b'{"a": 1, "a": 1}', b'{"a": 1, "b": 1}'),
    "a repeated key further in": (b'[{"x": {"a": 1, "b": 2, "a": 3}}]', b'[{"x": {"a": 1, "b": 2, "c": 3}}]'),
    "a key in two cases": (b'{"name": 1, "Name": 2}', b'{"name": 1, "Game": 2}'),
    "a key in two cases beyond ASCII": ('{"é": 1, "É": 2}'.encode(), '{"é": 1, "È": 2}'.encode()),
    "a key with a Kelvin sign for k": ('{"key": 1, "\u212aey": 2}'.encode(), '{"key": 1, "\u03baey": 2}'.encode()),
    "a key with a long s for s": ('{"params": 1, "param\u017f": 2}'.encode(), b'{"params": 1, "paramz": 2}'),
    "a repeated key, once escaped": (b'{"a": 1, "\\u0061": 2}', b'{"a": 1, "\\u0062": 2}'),
    "NaN": (b"[NaN]", b"[0]"),
    "an infinity": (b"[Infinity]", b"[1]"),
    "an infinity below": (b"[-Infinity]", b"[-1]"),
    "a number beyond a double": (b"1e999", b"1e308"),
    "a number beyond a double below": (b"-1.0e309", b"-1.0e308"),
    "too many digits": (b"1" * (MAX_DIGITS + 1), b"1" * MAX_DIGITS),
    "more digits than Python reads": (b"1" * 5000, b"1" * 20),
    "a byte order mark": (b"\xef\xbb\xbf{}", b"{}"),
    "UTF-16": ('{"a": 1}'.encode("utf-16-le"), b'{"a": 1}'),
    "UTF-16 with a mark": ('{"a": 1}'.encode("utf-16"), b'{"a": 1}'),
    "a byte that is no UTF-8": (b'"\xff"', '"\xff"'.encode()),
    "an overlong slash": (b'"\xc0\xaf"', b'"/"'),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', b'"\xed\x9f\xbf"'),
    "half of a pair": (b'"\\ud800"', b'"\\ud83d\\ude00"'),
    "half of a pair in a key": (b'{"\\udc00": 1}', b'{"\\u00dc": 1}'),
    "a pair the wrong way round": (b'"\\ude00\\ud83d"', b'"\\ud83d\\ude00"'),
    "too many levels": (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), b"[" * MAX_DEPTH + b"]" * MAX_DEPTH),
    "too many levels of objects": (
        b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
        b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH,
    ),
    "levels that would end the stack": (b"[" * 100_000, b"[]"),
    "levels after closing brackets": (b"]" * 5000 + b"[" * 5000, b"[]"),
    "a second value": (b"{} {}", b"{}"),
    "a comma at the end": (b"[1,]", b"[1]"),
    "a comment": (b"[1] // x", b"[1]"),
    "single quotes": (b"['a']", b'["a"]'),
    "a plain control character": (b'"\x01"', b'"\\u0001"'),
    "a line end in a text": (b'"a\nb"', b'"a\\nb"'),
    "a leading zero": (b"[01]", b"[0]"),
    "a leading plus": (b"[+1]", b"[1]"),
    "no text at all": (b"", b"0"),
    "a NUL after it": (b"{}\x00", b"{}\n"),
    "a no-break space before it": ("\u00a0{}".encode(), b" {}"),
    "Arabic digits": ("[\u0661]".encode(), b"[1]"),
}


@pytest.mark.parametrize(("refused", "read"), REFUSED.values(), ids=REFUSED)
def test_what_could_be_read_in_two_ways_is_refused(refused: bytes, read: bytes) -> None:
    with pytest.raises(JsonError):
        strict_json.parse(refused)
    strict_json.parse(read)


def test_an_error_repeats_nothing_of_the_body() -> None:
    for data in (b'{"secretname": 1, "secretname": 2}', b'{"secretname" 1}', b'["secretname\xff"]', b'"secretname'):
        with pytest.raises(JsonError) as caught:
            strict_json.parse(data)
        assert "secretname" not in str(caught.value)


def levels(text: str) -> int:
    """How deep a text of JSON goes, character by character: the slow way that the parser's own count must equal."""
    depth = deepest = 0
    inside = escaped = False
    for character in text:
        if inside:
            inside, escaped = escaped or character != '"', not escaped and character == "\\"
        elif character == '"':
            inside = True
        else:
            depth += (character in "[{") - (character in "]}")
            deepest = max(deepest, depth)
    return deepest


TEXTS = ["", "[", "]]", "{{[[", '\\"', "\\\\", '\\\\\\"[', "\\\\]", "a", "\\u005b", "\\n["]


def nested(source: random.Random, depth: int) -> str:
    """JSON of exactly this depth, with brackets and escapes in its texts and flat neighbours beside each level."""
    text = f'"{source.choice(TEXTS)}"'
    if depth == 0:
        return text
    inner = nested(source, depth - 1)
    if source.random() < 0.5:
        return f"[{text},{inner},{source.choice(('1', text))}]"
    return f'{{"k{source.choice(TEXTS)}":{inner},"z":{text}}}'


def test_levels_are_counted_as_a_parser_goes_down_them_whatever_the_texts_hold() -> None:
    source = random.Random(20_26)
    for _ in range(1500):
        depth = source.randint(MAX_DEPTH - 6, MAX_DEPTH + 6)
        text = nested(source, depth)
        assert levels(text) == depth
        if depth <= MAX_DEPTH:
            assert strict_json.parse(text.encode()) == json.loads(text)
        else:
            with pytest.raises(JsonError, match=f"got {depth}$"):
                strict_json.parse(text.encode())
