"""Whatever bytes come, the parsers give a value or their own error, never anything else: 120,000 generated inputs each run."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from authz import dns_message, operations, wire
from authz.dns_message import Answer, DnsError
from authz.operations.errors import OperationError
from authz.request import Direction, HttpRequest
from authz.wire import WireError
from bench import checks
from hopgate import strict_json
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
    Protocol.A2A: Agent(name=NAME, service_account_name="it", path="/mcp"),
    Protocol.OPENAI: ModelProvider(name=NAME, provider=Provider.OPENAI, hosts=("api.openai.com",), models=("gpt-4o",)),
    Protocol.ANTHROPIC: ModelProvider(name=NAME, provider=Provider.ANTHROPIC, hosts=("api.anthropic.com",)),
}
PATHS = {Protocol.OPENAI: "/v1/chat/completions", Protocol.ANTHROPIC: "/v1/messages"}
KINDS = {Protocol.MCP: DestinationKind.TOOL_SERVER, Protocol.A2A: DestinationKind.AGENT}
BODIES = [
    json.dumps(requests.tool_call("search", {"limit": 3, "deep": {"a": "é"}})).encode(),
    json.dumps(requests.message()).encode(),
    json.dumps(requests.chat("gpt-4o", max_tokens=5, stream=True)).encode(),
    b'{"jsonrpc":"2.0","id":"a\\u0041","result":{"x":[1,2.5e3,null,true,"\\ud83d\\ude00"]}}',
]
QUESTION = bytes.fromhex("123401000001000000000000") + b"\x07tickets\x04demo\x03svc\x00\x00\x01\x00\x01"

# With EDNS and a cookie, as `dig` asks.
COOKIE = bytes.fromhex("00 0029 1000 00000000 000c 000a 0008 0102030405060708")
QUESTION_OF_NOW = QUESTION[:11] + b"\x01" + QUESTION[12:] + COOKIE


def destination_of(protocol: Protocol) -> Destination:
    kind = KINDS.get(protocol, DestinationKind.MODEL_PROVIDER)
    return Destination(name=DestinationName(kind, NAME), protocol=protocol, tls=Tls.OPEN, record=RECORDS[protocol])


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
    values, errors = run(40_000, BODIES, strict_json.parse, strict_json.JsonError)
    assert min(values, errors) > 1000


@pytest.mark.parametrize("protocol", RECORDS, ids=str)
def test_an_extractor_gives_an_operation_or_its_error(protocol: Protocol) -> None:
    destination, path = destination_of(protocol), PATHS.get(protocol, "/mcp")

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


VALUES: list[Any] = [None, True, 0, -1, 2**70, 1.5, "", "x\n", "search", [], [1], ["a:b"], {}, {"a": {"b": []}}, [[{}]]]
KEYS = [
    "name",
    "Name",
    "uri",
    "arguments",
    "notifications",
    "resourceSubscriptions",
    "configuration",
    "stream",
    "max_tokens",
    "a",
    "\u017f",
]
METHODS = ["tools/call", "resources/read", "prompts/get", "subscriptions/listen", "SendMessage", "message/stream", "ping", "tasks/get"]


def rearranged(source: random.Random, value: Any) -> Any:
    """JSON of much the same form, with members of other types, gone, added or under other names."""
    if source.random() < 0.1:
        return source.choice(VALUES)
    if isinstance(value, list):
        return [rearranged(source, each) for each in value for _ in range(source.choice((1, 1, 1, 0, 2)))]
    if not isinstance(value, dict):
        return value
    made = {key: rearranged(source, each) for key, each in value.items() if source.random() < 0.95}
    if "method" in made and source.random() < 0.8:
        made["method"] = source.choice(METHODS)
    if source.random() < 0.3:
        made[source.choice(KEYS)] = source.choice(VALUES)
    return made


@pytest.mark.parametrize("protocol", RECORDS, ids=str)
def test_an_extractor_gives_an_operation_or_its_error_for_any_form_of_json(protocol: Protocol) -> None:
    source = random.Random(20_27)
    forms = [json.loads(body) for body in BODIES]
    forms += [{"jsonrpc": "2.0", "id": 1, "method": "x", "params": {"uri": "a:b", "notifications": {"resourceSubscriptions": ["a:b"]}}}]
    forms += [{"jsonrpc": "2.0", "id": 1, "method": "x", "params": {"message": {}, "configuration": {"pushNotificationConfig": {}}}}]
    path = PATHS.get(protocol, "/mcp")
    values = errors = 0
    for number in range(5_000):
        body = rearranged(source, forms[number % len(forms)])
        request = requests.http(host="x", path=path, body=json.dumps(body).encode())
        try:
            operations.extract(request, destination_of(protocol))
            values += 1
        except OperationError:
            errors += 1
    assert min(values, errors) > 50


def test_a_question_is_read_and_replied_to_or_refused() -> None:
    def attempt(data: bytes) -> None:
        question = dns_message.parse(data)
        assert len(question.name) <= 4 * 255
        for answer in Answer:
            assert len(dns_message.reply(question, answer, "198.18.0.1")) > 12
        assert len(dns_message.failure(question)) > 12

    values, errors = run(15_000, [QUESTION, QUESTION_OF_NOW], attempt, DnsError)
    assert min(values, errors) > 300


def test_a_check_with_its_headers_is_read_or_refused() -> None:
    request = checks.request("tickets.bench.svc", 80, "198.19.0.7", checks.CALL)
    values, errors = run(15_000, [request], lambda data: wire.decode(data, Direction.OUTBOUND), WireError)
    assert min(values, errors) > 300
