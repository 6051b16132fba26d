"""What a call says by its first bytes: the name in a handshake, the head of a request in clear, a name that DNS was asked for. Pure.

Of requests in clear only what a protocol is known by is looked at, never a body. A port alone says nothing: anything may listen there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from sensor.evidence import Evidence, EvidenceKind
from sensor.providers import Providers

# Of OpenAI's and Anthropic's APIs, which vLLM, llama.cpp, LM Studio, Ollama and most others serve too.
_MODEL_PATHS: Final = re.compile(
    r"(?:/[^/?]+)*/v1/(?:chat/completions|completions|embeddings|responses|messages|rerank)"
    r"|/v1beta/models/[^/]+:(?:streamG|g)enerateContent"
)
# Of one server each; its port beside the path makes it clear, since other services have such paths as well.
_SERVER_PATHS: Final[Mapping[str, tuple[str, int]]] = {
    "/api/chat": ("Ollama", 11434),
    "/api/generate": ("Ollama", 11434),
    "/api/embed": ("Ollama", 11434),
    "/api/embeddings": ("Ollama", 11434),
    "/completion": ("llama.cpp", 8080),
    "/infill": ("llama.cpp", 8080),
    "/api/v0/chat/completions": ("LM Studio", 1234),
    "/generate_stream": ("Text Generation Inference", 8080),
}
_CARD_PATHS: Final = frozenset({"/.well-known/agent-card.json", "/.well-known/agent.json"})
# Headers that the protocols define for their requests (MCP: Streamable HTTP; A2A: service parameters).
_MCP_HEADERS: Final = ("mcp-protocol-version", "mcp-session-id", "mcp-method")
_A2A_HEADERS: Final = ("a2a-version", "a2a-extensions")
# JA4's first two parts of browsers whose third part changes from version to version: Chromium, Firefox.
_BROWSER_HELLOS: Final = ("t13d1516h2_8daaf6152771", "t13d1517h2_8daaf6152771", "t13d1715h2_5b57614c22b0", "t13d1717h2_5b57614c22b0")


def of_hello(server_name: str, providers: Providers) -> Evidence | None:
    """What a TLS or QUIC hello for this name says."""
    provider = providers.provider_of(server_name)
    return Evidence(kind=EvidenceKind.MODEL_HANDSHAKE, subject=f"{server_name} ({provider.name})") if provider else None


def greets_as_browser(ja4: str) -> bool:
    """Whether a fingerprint is one that browsers have."""
    return ja4.startswith(_BROWSER_HELLOS)


def of_name(name: str, providers: Providers) -> Evidence | None:
    """What a question to DNS says."""
    provider = providers.provider_of(name)
    return Evidence(kind=EvidenceKind.MODEL_NAME, subject=f"{name} ({provider.name})") if provider else None


def of_request(method: str, target: str, headers: Mapping[str, str], port: int, providers: Providers) -> tuple[Evidence, ...]:
    """What the head of an HTTP request in clear says. Names of `headers` are in lower case; `port` is the one connected to."""
    if method == "CONNECT":
        name = _host(target)
        provider = providers.provider_of(name)
        return (Evidence(kind=EvidenceKind.MODEL_BY_PROXY, subject=f"{name} ({provider.name})"),) if provider else ()
    host, path = _host_and_path(target, headers)
    found: list[Evidence] = []
    provider = providers.provider_of(host)
    if provider:
        found.append(Evidence(kind=EvidenceKind.MODEL_REQUEST, subject=f"{host} ({provider.name})"))
    elif method == "POST" and (server := _model_server(path, port)):
        found.append(Evidence(kind=EvidenceKind.LOCAL_MODEL, subject=server))
    if _is_mcp(method, path, headers):
        found.append(Evidence(kind=EvidenceKind.MCP_REQUEST, subject=path))
    if any(name in headers for name in _A2A_HEADERS):
        found.append(Evidence(kind=EvidenceKind.A2A_REQUEST, subject=path))
    elif method == "GET" and path in _CARD_PATHS:
        found.append(Evidence(kind=EvidenceKind.A2A_CARD, subject=path))
    return tuple(found)


def _model_server(path: str, port: int) -> str:
    server = _SERVER_PATHS.get(path)
    if server is not None and server[1] == port:
        return f"{path} ({server[0]})"
    return path if _MODEL_PATHS.fullmatch(path) else ""


def _is_mcp(method: str, path: str, headers: Mapping[str, str]) -> bool:
    """By its headers; before they are agreed on (`initialize`), by its path and the two types that a client must accept."""
    if any(name in headers for name in _MCP_HEADERS):
        return True
    accepted = headers.get("accept", "")
    return method == "POST" and path.rstrip("/").endswith("/mcp") and "application/json" in accepted and "text/event-stream" in accepted


def _host_and_path(target: str, headers: Mapping[str, str]) -> tuple[str, str]:
    """Of a target in origin form or, as proxies are asked, in absolute form (RFC 9112 3.2)."""
    scheme, separator, rest = target.partition("://")
    if separator and "/" not in scheme:
        authority, slash, path = rest.partition("/")
        return _host(authority), (slash + path or "/").partition("?")[0]
    return _host(headers.get("host", "")), target.partition("?")[0]


def _host(authority: str) -> str:
    """The name of `name:port`; an address in brackets is no provider's name."""
    return "" if authority.startswith("[") else authority.partition(":")[0].lower()
