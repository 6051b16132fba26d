"""JSON that every reader reads alike, or an error."""

from __future__ import annotations

import json

import pytest

from authz import strict_json
from authz.strict_json import MAX_DEPTH, JsonError

REFUSED = {
    "nothing": b"",
    "a repeated key": b'{"a":1,"a":2}',
    "a key repeated by an escape": b'{"a":1,"\\u0061":2}',
    "a key repeated in another case": b'{"name":1,"Name":2}',
    "a repeated key inside": b'{"x":[{"a":1,"a":2}]}',
    "NaN": b'{"a":NaN}',
    "an infinity": b'{"a":-Infinity}',
    "a number beyond a double": b'{"a":1e999}',
    "an integer without end": b'{"a":' + b"9" * 5000 + b"}",
    "a byte order mark": b'\xef\xbb\xbf{"a":1}',
    "another encoding": '{"a":1}'.encode("utf-16"),
    "a byte that is no UTF-8": b'{"a":"\xff"}',
    "half a surrogate pair": b'{"a":"\\ud800"}',
    "something after it": b'{"a":1}{"b":2}',
    "a comment": b'{"a":1}//',
    "a comma too many": b'{"a":1,}',
    "single quotes": b"{'a':1}",
    "a control character": b'{"a":"\n"}',
    "one level too deep": b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    "nesting without end": b"[" * 100_000,
}
ACCEPTED = {
    "an object": b'{"a":[1,-2.5e3,true,false,null,"\\u00e9\\n"]}',
    "a whole surrogate pair": b'{"a":"\\ud83d\\ude00"}',
    "as deep as allowed": b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
    "brackets in text": b'{"a":"' + b"[" * 200 + b'"}',
    "a key that differs": b'{"name":1,"names":2}',
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_refuses(body: bytes) -> None:
    with pytest.raises(JsonError):
        strict_json.parse(body)


@pytest.mark.parametrize("body", ACCEPTED.values(), ids=ACCEPTED)
def test_reads_what_the_standard_library_reads(body: bytes) -> None:
    assert strict_json.parse(body) == json.loads(body)
