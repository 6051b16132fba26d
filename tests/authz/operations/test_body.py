"""A body is judged whole, plain, as JSON that everybody reads alike; each refusal has its neighbour that is taken."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from typing import Any

import pytest

from authz.request import HttpRequest
from authz.verdict import Reason
from hopgate.resources.registry import Destination
from tests.authz import requests
from tests.authz.operations import asked

TAKEN: dict[str, tuple[HttpRequest, Destination]] = {
    "MCP": (asked.post(requests.tool_call("search", {"limit": 3})), asked.MCP),
    "A2A": (asked.post(requests.message()), asked.A2A),
    "OpenAI": (asked.post(requests.chat("gpt-4o"), path="/v1/chat/completions"), asked.OPENAI),
    "Anthropic": (asked.post(requests.chat("claude-small"), path="/v1/messages"), asked.ANTHROPIC),
}
PROTOCOLS = pytest.mark.parametrize(("request_", "destination"), TAKEN.values(), ids=TAKEN)


def with_type(request: HttpRequest, *values: str) -> HttpRequest:
    return replace(request, headers=tuple(("content-type", value) for value in values))


def with_header(request: HttpRequest, name: str, *values: str) -> HttpRequest:
    return replace(request, headers=request.headers + tuple((name, value) for value in values))


@PROTOCOLS
@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;Charset="UTF-8"',
        "application/json; charset=utf8; x=y",
    ],
)
def test_json_in_utf_8_is_taken(request_: HttpRequest, destination: Destination, kind: str) -> None:
    assert asked.operation(with_type(request_, kind), destination) == asked.operation(request_, destination)


@PROTOCOLS
@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json, text/plain",
        "application/jsonp",
        "application/json-rpc",
        "",
        "application/json; charset=utf-7",
        "application/json; charset=utf-16",
        "application/json; charset*=utf-8''utf-7",
        "application/json; charset=utf-8; charset=utf-7",
        "application/json;  CHARSET = 'utf-7'",
        "application/json; charset",
    ],
)
def test_another_type_or_charset_is_refused(request_: HttpRequest, destination: Destination, kind: str) -> None:
    assert asked.refusal(with_type(request_, kind), destination).reason is Reason.BODY_MALFORMED


@PROTOCOLS
def test_a_body_of_no_type_or_of_two_is_refused(request_: HttpRequest, destination: Destination) -> None:
    assert asked.refusal(with_type(request_), destination).reason is Reason.BODY_MALFORMED
    twice = with_type(request_, "application/json", "application/json")
    assert asked.refusal(twice, destination).reason is Reason.REPEATED_HEADER


@PROTOCOLS
def test_a_body_that_was_cut_is_refused(request_: HttpRequest, destination: Destination) -> None:
    assert asked.refusal(replace(request_, body_complete=False), destination).reason is Reason.BODY_INCOMPLETE


@PROTOCOLS
@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd", "identity, gzip", "x"])
def test_an_encoded_body_is_refused(request_: HttpRequest, destination: Destination, encoding: str) -> None:
    packed = replace(with_header(request_, "content-encoding", encoding), body=gzip.compress(request_.body))
    assert asked.refusal(packed, destination).reason is Reason.BODY_ENCODED
    plain = with_header(request_, "content-encoding", encoding)
    assert asked.refusal(plain, destination).reason is Reason.BODY_ENCODED


@PROTOCOLS
def test_identity_is_no_encoding_and_is_said_once(request_: HttpRequest, destination: Destination) -> None:
    plain = asked.operation(with_header(request_, "content-encoding", "identity"), destination)
    assert plain == asked.operation(request_, destination)
    twice = with_header(request_, "content-encoding", "identity", "gzip")
    assert asked.refusal(twice, destination).reason is Reason.REPEATED_HEADER


def _inserted(request: HttpRequest, text: bytes) -> bytes:
    """The body with `text` as its object's first members."""
    return b"{" + text + b", " + request.body[1:]


FAULTS: dict[str, bytes] = {
    "a repeated key": b'"x": 1, "x": 2',
    "a key in two cases": b'"x": 1, "X": 2',
    "NaN": b'"x": NaN',
    "an infinity": b'"x": -Infinity',
    "a lone surrogate": b'"x": "\\ud800"',
    "levels without end": b'"x": ' + b"[" * 100 + b"]" * 100,
    "a number beyond a double": b'"x": 1e999',
    "a byte that is no UTF-8": b'"x": "\xff"',
}


@PROTOCOLS
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_two_readers_read_differently_is_refused(request_: HttpRequest, destination: Destination, fault: bytes) -> None:
    assert asked.refusal(replace(request_, body=_inserted(request_, fault)), destination).reason is Reason.BODY_MALFORMED
    harmless = replace(request_, body=_inserted(request_, b'"x": "\\u00e9", "y": [[1.5]]'))
    assert asked.operation(harmless, destination) == asked.operation(request_, destination)


@PROTOCOLS
def test_a_mark_before_the_body_and_a_second_value_are_refused(request_: HttpRequest, destination: Destination) -> None:
    for body in (b"\xef\xbb\xbf" + request_.body, request_.body + request_.body, request_.body[:-1], b"", b"null", b'"x"', b"1"):
        assert asked.refusal(replace(request_, body=body), destination).reason is Reason.BODY_MALFORMED
    spaced = replace(request_, body=b"\r\n " + request_.body + b"\n")
    assert asked.operation(spaced, destination) == asked.operation(request_, destination)


@PROTOCOLS
@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_batch_is_refused_however_small(request_: HttpRequest, destination: Destination, count: int) -> None:
    batch: list[Any] = [json.loads(request_.body)] * count
    assert asked.refusal(replace(request_, body=json.dumps(batch).encode()), destination).reason is Reason.BATCH_REFUSED


VARIANTS = {
    "MCP": ["Method", "PARAMS", "Result", "iD", "JsonRpc", "param\u017f", "Error"],
    "A2A": ["Method", "PARAMS", "Result", "meth_od"],
    "OpenAI": ["Model", "Stream", "Max_Tokens", "maxTokens", "MaxCompletionTokens", "max_output_Tokens"],
    "Anthropic": ["Model", "STREAM", "maxTokens", "Max_Tokens"],
}


@pytest.mark.parametrize(("protocol", "key"), [(protocol, key) for protocol, keys in VARIANTS.items() for key in keys])
def test_a_judged_key_has_one_spelling(protocol: str, key: str) -> None:
    request, destination = TAKEN[protocol]
    body = {name: value for name, value in json.loads(request.body).items() if name.casefold() != key.casefold()}
    varied = replace(request, body=json.dumps(body | {key: "x"}).encode())
    assert asked.refusal(varied, destination).reason is Reason.BODY_MALFORMED
    other = replace(request, body=json.dumps(json.loads(request.body) | {key + "zz": "x"}).encode())
    assert asked.operation(other, destination) == asked.operation(request, destination)
