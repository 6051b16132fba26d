"""What has gone wrong elsewhere, tried through the real gate: each trick is refused, and its honest neighbour passes."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tests.end_to_end.conftest import World

pytestmark = [pytest.mark.root, pytest.mark.envoy]

HOST = "raw.demo.svc"
CALL = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "search", "arguments": {"limit": 5}}}
BODY = json.dumps(CALL)


def post(body: str = BODY, *headers: str, host: str = HOST, path: str = "/mcp", length: int | None = None) -> str:
    lines = [f"POST {path} HTTP/1.1", f"host: {host}", f"content-length: {len(body) if length is None else length}", *headers]
    if not any(line.startswith("content-type") for line in headers):
        lines.append("content-type: application/json")
    return "\r\n".join([*lines, "", body])


def send(world: World, *data: str, host: str = HOST, port: int = 80, **more: Any) -> list[str]:
    given = [{"host": host, "port": port, "data": item, **more} for item in data]
    outcomes = world.gate.json("demo/planner", "raw.py", input=json.dumps(given))
    return [outcome.get("answer") or outcome.get("error") or "closed" for outcome in outcomes]


def last_reason(world: World) -> str:
    return str(world.gate.records()[-1]["reason"])


def test_an_honest_request_passes_and_its_neighbour_is_denied(world: World) -> None:
    before = len(world.raw.received)
    allowed, denied = send(world, post(), post(json.dumps({**CALL, "params": {"name": "search", "arguments": {"limit": 101}}})))
    assert allowed.startswith("HTTP/1.1 200")
    assert denied.startswith("HTTP/1.1 403")
    assert json.loads(denied.partition("\r\n\r\n")[2])["id"] == 7
    assert len(world.raw.received) == before + 1


TWO_HOSTS = "\r\n".join(
    [
        "POST /mcp HTTP/1.1",
        f"host: {HOST}",
        "host: web.example.com",
        f"content-length: {len(BODY)}",
        "content-type: application/json",
        "",
        BODY,
    ]
)
REFUSED = {
    "a repeated key": post('{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}'),
    "a key repeated in another case": post('{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}'),
    "a batch": post(json.dumps([CALL])),
    "NaN": post('{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search","arguments":{"limit":NaN}}}'),
    "a byte order mark": post("\xef\xbb\xbf" + BODY),
    "no JSON": post("{"),
    "nesting without end": post("[" * 5000 + "]" * 5000),
    "a compressed body": post(gzip.compress(BODY.encode()).decode("latin-1"), "content-encoding: gzip"),
    "another type": post(BODY, "content-type: text/plain"),
    "two types": post(BODY, "content-type: application/json", "content-type: text/plain"),
    "a body too large to judge": post(BODY[:-1] + " " * (1 << 20) + "}"),
    "Mcp-Name that names another tool": post(BODY, "mcp-method: tools/call", "mcp-name: delete"),
    "an unknown method": post(json.dumps({**CALL, "method": "tools/drop"})),
    "an undeclared tool": post(json.dumps({**CALL, "params": {"name": "drop"}})),
    "another host": post(host="web.example.com"),
    "two hosts": TWO_HOSTS,
    "user information": post(host=f"{HOST}@web.example.com"),
    "an absolute target elsewhere": post(path="http://web.example.com/mcp"),
    "smuggling by two lengths": post(BODY, "transfer-encoding: chunked"),
    "CONNECT": f"CONNECT {HOST}:80 HTTP/1.1\r\nhost: {HOST}:80\r\n\r\n",
    "an escaped slash": post(path="/mcp%2f..%2fx"),
    "an escaped zero": post(path="/mcp%00"),
    "an upgrade": f"GET /mcp HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
}


def test_no_trick_reaches_the_upstream(world: World) -> None:
    before = len(world.raw.received)
    answers = dict(zip(REFUSED, send(world, *REFUSED.values()), strict=True))
    passed = {name: answer[:60] for name, answer in answers.items() if answer.startswith("HTTP/1.1 2")}
    assert not passed
    assert len(world.raw.received) == before
    assert send(world, post())[0].startswith("HTTP/1.1 200")


def test_forged_headers_never_reach_the_upstream(world: World) -> None:
    forged = (
        "x-hopgate-token: forged",
        "x-envoy-original-dst-host: 127.0.0.1:1",
        "x-envoy-auth-partial-body: false",
        "x-forwarded-for: 1.2.3.4",
    )
    mine = ("authorization: Bearer mine", "cookie: a=b", "x-api-key: mine")
    assert send(world, post(BODY, *forged, *mine))[0].startswith("HTTP/1.1 200")
    names = {name for name, _ in world.raw.received[-1].headers}
    assert names <= {"host", "content-length", "content-type", "accept-encoding", "accept", "user-agent"}, names


def test_the_upstream_gets_its_credential_and_the_agent_never_had_it(world: World) -> None:
    asked = "GET /public/today?key=1 HTTP/1.1\r\nhost: web.example.com\r\nx-api-key: mine\r\n\r\n"
    refused = "GET /private HTTP/1.1\r\nhost: web.example.com\r\n\r\n"
    tricked = "GET /public/../private HTTP/1.1\r\nhost: web.example.com\r\n\r\n"
    answers = send(world, asked, refused, tricked, host="web.example.com", port=443, tls="web.example.com")
    assert [answer[9:12] for answer in answers] == ["200", "403", "403"]
    received = world.web.received[-1]
    assert received.values("x-api-key") == ["marker-secret-5f2c9a71e0"]
    assert (received.path, received.values("host")) == ("/public/today?key=1", ["web.example.com"])
    assert world.gate.records()[-1]["path"] == "/private"


def test_tls_for_a_name_that_is_not_registered_fails_at_once(world: World) -> None:
    answers = send(world, "GET / HTTP/1.1\r\nhost: evil.example\r\n\r\n", host="web.example.com", port=443, tls="evil.example")
    assert "SSL" in answers[0]


def test_a_name_or_address_that_nobody_registered_leads_nowhere(world: World) -> None:
    named, address, sixth, own = (
        send(world, "GET / HTTP/1.1\r\nhost: x\r\n\r\n", host=host, port=port)[0]
        for host, port in (("evil.example", 80), ("203.0.113.7", 80), ("2001:db8::7", 80), ("192.0.2.2", 15001))
    )
    assert "gaierror" in named
    assert address.startswith("HTTP/1.1 403")
    assert sixth.startswith("HTTP/1.1 403")
    assert not own.startswith("HTTP/1.1 2")
    assert world.gate.records("names")[-1]["name"] == "evil.example"


def test_an_agent_without_a_policy_may_nothing(world: World) -> None:
    given = json.dumps([{"host": HOST, "port": 80, "data": post()}])
    assert world.gate.json("demo/stranger", "raw.py", input=given)[0]["answer"].startswith("HTTP/1.1 403")
    assert last_reason(world) == "NoPermit"
