"""Whatever bytes come, the parsers give a value or their own error, never anything else: 100,000 generated inputs each run."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from authz import dns_message, operations, strict_json, wire
from authz.dns_message import DnsError
from authz.operations.errors import OperationError
from authz.request import Direction, HttpRequest
from authz.strict_json import JsonError
from authz.wire import WireError
from bench import checks
from hopgate.identity.names import DestinationKind, DestinationName, ObjectName
from hopgate.resources.kinds import Agent, ModelProvider, Provider, Tls, Tool, ToolProtocol, ToolServer
from hopgate.resources.registry import Destination, Protocol
from tests.authz import requests

pytestmark = pytest.mark.slow

NAME = ObjectName("demo", "it")
SCHEMA = {
    "type": "object",
    "properties": {"limit": {"type": "integer"}, "deep": {"type": "object", "properties": {"a": {"type": "string"}}}},
}
RECORDS: dict[Protocol, Agent | ToolServer | ModelProvider] = {
    Protocol.MCP: ToolServer(name=NAME, protocol=ToolProtocol.MCP, tools=(Tool(name="search", input_schema=SCHEMA),)),
    Protocol.A2A: Agent(name=NAME, service_account_name="it"),
    Protocol.OPENAI: ModelProvider(name=NAME, provider=Provider.OPENAI, hosts=("api.openai.com",), models=("gpt-4o",)),
    Protocol.ANTHROPIC: ModelProvider(name=NAME, provider=Provider.ANTHROPIC, hosts=("api.anthropic.com",)),
}
KINDS = {Protocol.MCP: DestinationKind.TOOL_SERVER, Protocol.A2A: DestinationKind.AGENT}
BODIES = [
    json.dumps(requests.tool_call("search", {"limit": 3, "deep": {"a": "é"}})).encode(),
    json.dumps(requests.message()).encode(),
    json.dumps(requests.chat("gpt-4o", max_tokens=5, stream=True)).encode(),
    b'{"jsonrpc":"2.0","id":"a\\u0041","result":{"x":[1,2.5e3,null,true,"\\ud83d\\ude00"]}}',
]
QUESTION = bytes.fromhex("123401000001000000000000") + b"\x07tickets\x04demo\x03svc\x00\x00\x01\x00\x01"


def mutated(source: random.Random, data: bytes) -> bytes:
    """`data` with a few bytes changed, taken out, doubled or put in."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 3)):
        at = source.randrange(len(changed) + 1)
        match source.randrange(5):
            case 0 if at < len(changed):
                changed[at] = source.randrange(256)
            case 1:
                del changed[at : at + source.randint(1, 8)]
            case 2:
                changed[at:at] = changed[at : at + source.randint(1, 30)]
            case 3:
                changed[at:at] = source.choice(
                    (b'"', b"{", b"[", b"\\u0000", b"\\ud800", b"NaN", b"1e999", b"\xff", b",", b"-0", b"9" * 50)
                )
            case _:
                changed[at:at] = source.randbytes(source.randint(1, 4))
    return bytes(changed)


def run(count: int, data: list[bytes], attempt: Callable[[bytes], Any], *allowed: type[Exception]) -> tuple[int, int]:
    """How many inputs gave a value and how many the allowed error; any other exception is the test's failure."""
    source = random.Random(20_26)
    values = errors = 0
    for number in range(count):
        try:
            attempt(mutated(source, data[number % len(data)]))
            values += 1
        except allowed:
            errors += 1
    return values, errors


def test_strict_json_gives_a_value_or_its_error() -> None:
    values, errors = run(40_000, BODIES, strict_json.parse, JsonError)
    assert min(values, errors) > 1000


@pytest.mark.parametrize("protocol", RECORDS, ids=str)
def test_an_extractor_gives_an_operation_or_its_error(protocol: Protocol) -> None:
    record = RECORDS[protocol]
    kind = KINDS.get(protocol, DestinationKind.MODEL_PROVIDER)
    destination = Destination(name=DestinationName(kind, NAME), protocol=protocol, tls=Tls.OPEN, record=record)
    path = {Protocol.OPENAI: "/v1/chat/completions", Protocol.ANTHROPIC: "/v1/messages"}.get(protocol, "/mcp")

    def attempt(body: bytes) -> object:
        request = HttpRequest(
            method="POST",
            scheme="http",
            unverified_host="x",
            path=path,
            headers=(("content-type", "application/json"), ("mcp-name" if len(body) % 7 == 0 else "accept", body[:20].decode("latin-1"))),
            body=body,
            body_complete=True,
        )
        return operations.extract(request, destination)

    values, errors = run(7_500, BODIES, attempt, OperationError)
    assert min(values, errors) > 50


def test_a_question_is_read_or_refused() -> None:
    values, errors = run(15_000, [QUESTION], dns_message.parse, DnsError)
    assert min(values, errors) > 300


def test_a_check_with_its_headers_is_read_or_refused() -> None:
    request = checks.request("tickets.bench.svc", 80, "198.19.0.7", checks.CALL)
    values, errors = run(15_000, [request], lambda data: wire.decode(data, Direction.OUTBOUND), WireError)
    assert min(values, errors) > 300
