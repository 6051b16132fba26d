from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmint import token_json
from tokenmint.errors import TokenMalformedError


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b'{"a":1,"a":1}', id="a repeated member"),
        pytest.param(b'{"x":{"a":1,"\\u0061":2}}', id="a repeated member inside, spelled otherwise"),
        pytest.param(b'{"a":NaN}', id="not a number"),
        pytest.param(b'{"a":-Infinity}', id="infinity"),
        pytest.param(b'{"a":1e999}', id="a number beyond a double"),
        pytest.param(b'{"sub":1,"Sub":2}', id="a repeated member in another case"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="an endless integer"),
        pytest.param(b'{"a":"\xff"}', id="bytes that are not UTF-8"),
        pytest.param('\ufeff{"a":1}'.encode(), id="a byte order mark"),
        pytest.param('{"a":1}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"a":' * 20_000, id="nesting beyond the parser"),
        pytest.param(b"[]", id="an array"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"a":1} {}', id="two values"),
        pytest.param(b"{'a':1}", id="other quotes"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(text: bytes) -> None:
    with pytest.raises(TokenMalformedError) as caught:
        token_json.parse_object(text, "payload")
    assert caught.value.__cause__ is None  # a parser's error holds the text
    assert token_json.parse_object(b'{"a":1.5,"b":{"a":[1,-2,null,true]}}', "payload") == {"a": 1.5, "b": {"a": [1, -2, None, True]}}


@given(
    value=st.dictionaries(st.text(max_size=8), st.recursive(st.none() | st.integers(-(2**60), 2**60) | st.text(), st.lists, max_leaves=8))
)
def test_every_ordinary_object_is_read_as_it_was_written(value: dict[str, object]) -> None:
    assert token_json.parse_object(json.dumps(value).encode(), "payload") == value


@given(text=st.binary(max_size=60))
def test_any_bytes_are_an_object_or_a_typed_error(text: bytes) -> None:
    try:
        assert isinstance(token_json.parse_object(text, "payload"), dict)
    except TokenMalformedError:
        return
