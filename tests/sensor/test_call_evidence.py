"""What first bytes say. Each row has a neighbour that differs in one fact and says nothing of the kind."""

from __future__ import annotations

import pytest

from sensor import call_evidence, data
from sensor.evidence import EvidenceKind
from sensor.providers import Providers

K = EvidenceKind
Request = tuple[str, str, dict[str, str], int]


@pytest.fixture(scope="module")
def known() -> Providers:
    return data.built_in()


BOTH = {"accept": "application/json, text/event-stream"}
ROWS: dict[str, tuple[EvidenceKind, Request, Request]] = {
    "a tunnel": (K.MODEL_BY_PROXY, ("CONNECT", "api.openai.com:443", {}, 3128), ("CONNECT", "api.example.com:443", {}, 3128)),
    "a tunnel, not a page": (K.MODEL_BY_PROXY, ("CONNECT", "api.openai.com:443", {}, 3128), ("GET", "/api.openai.com:443", {}, 3128)),
    "in clear": (
        K.MODEL_REQUEST,
        ("GET", "/v1/models", {"host": "api.openai.com"}, 80),
        ("GET", "/v1/models", {"host": "api.example.com"}, 80),
    ),
    "in clear by a proxy": (
        K.MODEL_REQUEST,
        ("GET", "http://api.openai.com/v1/models", {"host": "proxy"}, 3128),
        ("GET", "http://example.com/?http://api.openai.com/", {"host": "proxy"}, 3128),
    ),
    "Host in capitals, with a port": (
        K.MODEL_REQUEST,
        ("GET", "/", {"host": "API.OpenAI.com:80"}, 80),
        ("GET", "/", {"host": "API.OpenAI.com.example:80"}, 80),
    ),
    "chat completions": (
        K.LOCAL_MODEL,
        ("POST", "/v1/chat/completions", {"host": "127.0.0.1"}, 8000),
        ("GET", "/v1/chat/completions", {"host": "127.0.0.1"}, 8000),
    ),
    "chat completions below a prefix": (
        K.LOCAL_MODEL,
        ("POST", "/llm/v1/messages?beta=true", {"host": "a"}, 8000),
        ("POST", "/llm/v2/messages?beta=true", {"host": "a"}, 8000),
    ),
    "Ollama": (K.LOCAL_MODEL, ("POST", "/api/chat", {}, 11434), ("POST", "/api/chat", {}, 80)),
    "Ollama by its path, not its port": (K.LOCAL_MODEL, ("POST", "/api/generate", {}, 11434), ("POST", "/api/tags", {}, 11434)),
    "llama.cpp": (K.LOCAL_MODEL, ("POST", "/completion", {}, 8080), ("POST", "/completed", {}, 8080)),
    "MCP by header": (K.MCP_REQUEST, ("POST", "/tools", {"mcp-protocol-version": "2025-11-25"}, 80), ("POST", "/tools", {}, 80)),
    "MCP's first request": (K.MCP_REQUEST, ("POST", "/mcp", BOTH, 80), ("POST", "/mcp", {"accept": "application/json"}, 80)),
    "MCP's first request, by path": (K.MCP_REQUEST, ("POST", "/mcp/", BOTH, 80), ("POST", "/events", BOTH, 80)),
    "A2A by header": (K.A2A_REQUEST, ("POST", "/", {"a2a-version": "1.0"}, 80), ("POST", "/", {"api-version": "1.0"}, 80)),
    "a card": (K.A2A_CARD, ("GET", "/.well-known/agent-card.json", {}, 80), ("GET", "/.well-known/security.txt", {}, 80)),
}


@pytest.mark.parametrize(("kind", "request_", "neighbour"), ROWS.values(), ids=ROWS.keys())
def test_a_request(known: Providers, kind: EvidenceKind, request_: Request, neighbour: Request) -> None:
    assert kind in {piece.kind for piece in call_evidence.of_request(*request_, known)}
    assert kind not in {piece.kind for piece in call_evidence.of_request(*neighbour, known)}


@pytest.mark.parametrize("of", [call_evidence.of_hello, call_evidence.of_name])
def test_a_name(known: Providers, of: object) -> None:
    assert callable(of)
    found = of("api.anthropic.com", known)
    assert found is not None
    assert "api.anthropic.com (Anthropic)" in found.sentence
    assert of("api.example.com", known) is None


def test_a_browsers_hello_and_a_sdks() -> None:
    assert call_evidence.greets_as_browser("t13d1516h2_8daaf6152771_02713d6af862")
    assert not call_evidence.greets_as_browser("t13d1812h1_85036bcba153_d41ae481755e")


@pytest.mark.parametrize("target", ["", "/", "*", "://", "http://", "http:///", "[::1]:80", ":", "?", "http://[::1]:80/x"])
@pytest.mark.parametrize("method", ["GET", "POST", "CONNECT", "OPTIONS"])
def test_odd_targets_say_nothing(known: Providers, method: str, target: str) -> None:
    assert call_evidence.of_request(method, target, {"host": "[::1]:80"}, 80, known) == ()
