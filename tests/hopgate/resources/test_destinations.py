"""Agent, ToolServer and ModelProvider: defaults, each field's mistakes with an allowed neighbour, and contradictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hopgate.identity.names import ObjectName
from hopgate.resources.fields import Path
from hopgate.resources.kinds import (
    Agent,
    AgentProtocol,
    Credential,
    DialAddress,
    ModelProvider,
    Provider,
    SecretKey,
    Service,
    Tls,
    Tool,
    ToolProtocol,
    ToolServer,
)
from hopgate.resources.parse import parse

Manifest = dict[str, Any]
Change = Callable[[str, Path, object], Manifest]

CREDENTIAL = {"secretRef": {"name": "keys", "key": "api.key"}, "header": "authorization"}
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\nAAAA=\n-----END CERTIFICATE-----\n"
PRIVATE_KEY = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"  # the form alone; no key
IT = ObjectName("demo", "it")


def test_an_agent_without_a_spec_has_its_defaults(change: Change) -> None:
    assert parse(change("Agent", ("spec",), ...)).resource == Agent(
        name=IT, service_account_name="it", protocols=(AgentProtocol.A2A,), path="/", service=None
    )


def test_an_agent_keeps_all_that_is_written(change: Change) -> None:
    spec = {
        "serviceAccountName": "planner",
        "owner": "Team A <a@example.com>",
        "purpose": "plans\nthings",
        "version": "1.2",
        "protocols": ["HTTP", "A2A"],
        "path": "/a2a/v1",
        "service": {"name": "planner", "port": 8080},
    }

    assert parse(change("Agent", ("spec",), spec)).resource == Agent(
        name=IT,
        service_account_name="planner",
        owner="Team A <a@example.com>",
        purpose="plans\nthings",
        version="1.2",
        protocols=(AgentProtocol.HTTP, AgentProtocol.A2A),
        path="/a2a/v1",
        service=Service(name="planner", port=8080),
    )


def test_a_tool_server_by_hosts_has_the_defaults_of_https(change: Change) -> None:
    assert parse(change("ToolServer", ("metadata", "labels"), {})).resource == ToolServer(
        name=IT, protocol=ToolProtocol.MCP, path="/mcp", hosts=("tools.example.com",), port=443, tls=Tls.OPEN
    )


def test_a_tool_server_by_service_is_plain_at_the_services_port(change: Change) -> None:
    assert parse(change("ServiceServer", ("spec", "address"), "127.0.0.1")).resource == ToolServer(
        name=IT,
        protocol=ToolProtocol.HTTP,
        path=None,
        service=Service(name="tickets", port=8080),
        port=8080,
        tls=Tls.DISABLED,
        address=DialAddress(ip="127.0.0.1", port=8080),
    )


def test_an_agent_without_a2a_has_no_path(change: Change) -> None:
    agent = parse(change("Agent", ("spec", "protocols"), ["HTTP"])).resource

    assert isinstance(agent, Agent)
    assert agent.path is None


def test_without_tls_hosts_are_reached_at_port_80(change: Change) -> None:
    plain = parse(change("ToolServer", ("spec", "tls"), "Disabled")).resource

    assert isinstance(plain, ToolServer)
    assert plain.port == 80


def test_a_model_provider_keeps_all_that_is_written(change: Change) -> None:
    spec = {
        "provider": "Anthropic",
        "hosts": ["api.anthropic.com", "eu.anthropic.com"],
        "port": 8443,
        "address": "[2001:DB8::1]",
        "tls": "Open",
        "caBundle": f"  {CERTIFICATE}\n\n{CERTIFICATE}",
        "models": ["claude", "meta/llama:3"],
        "credential": {**CREDENTIAL, "header": "X-Api-Key", "prefix": "Bearer "},
    }

    assert parse(change("ModelProvider", ("spec",), spec)).resource == ModelProvider(
        name=IT,
        provider=Provider.ANTHROPIC,
        hosts=("api.anthropic.com", "eu.anthropic.com"),
        port=8443,
        address=DialAddress(ip="2001:db8::1", port=8443),
        tls=Tls.OPEN,
        ca_bundle=CERTIFICATE + CERTIFICATE,
        models=("claude", "meta/llama:3"),
        credential=Credential(secret=SecretKey(secret=ObjectName("demo", "keys"), key="api.key"), header="x-api-key", prefix="Bearer "),
    )


def test_tools_keep_their_input_schema(change: Change) -> None:
    schema = {"type": "object", "properties": {"limit": {"type": "integer", "maximum": 1.5, "default": None}}}
    server = parse(change("ToolServer", ("spec", "tools"), [{"name": "search", "inputSchema": schema}, {"name": "a/b"}])).resource

    assert isinstance(server, ToolServer)
    assert server.tools == (Tool(name="search", input_schema=schema), Tool(name="a/b"))


@pytest.mark.parametrize(
    ("kind", "path", "bad", "code", "allowed"),
    [
        pytest.param("Agent", ("spec", "serviceAccountName"), "A", "InvalidName", "a", id="agent: service account in upper case"),
        pytest.param("Agent", ("spec", "owner"), "", "InvalidValue", "x", id="agent: owner empty"),
        pytest.param("Agent", ("spec", "owner"), "a\nb", "InvalidValue", "a b", id="agent: owner of two lines"),
        pytest.param("Agent", ("spec", "version"), 1.2, "WrongType", "1.2", id="agent: version a number"),
        pytest.param("Agent", ("spec", "purpose"), ["x"], "WrongType", "x", id="agent: purpose a list"),
        pytest.param("Agent", ("spec", "protocols"), [], "InvalidValue", ["HTTP"], id="agent: no protocol"),
        pytest.param("Agent", ("spec", "protocols"), "A2A", "WrongType", ["A2A"], id="agent: protocols not a list"),
        pytest.param("Agent", ("spec", "path"), "a2a", "InvalidValue", "/a2a", id="agent: path without a slash"),
        pytest.param("Agent", ("spec", "path"), "/a//b", "InvalidValue", "/a/b.c~d_e-f", id="agent: path with an empty part"),
        pytest.param("Agent", ("spec", "path"), "/a/", "InvalidValue", "/", id="agent: path with a slash at its end"),
        pytest.param("Agent", ("spec", "path"), "/a/../b", "InvalidValue", "/a/..b", id="agent: path with dots"),
        pytest.param("ToolServer", ("spec", "path"), "/m%63p", "InvalidValue", "/mcp", id="path with an escape"),
        pytest.param("ToolServer", ("spec", "path"), "/mcp?a", "InvalidValue", "/" + "a" * 255, id="path with a query"),
        pytest.param("ToolServer", ("spec", "path"), "/" + "a" * 256, "InvalidValue", "/v1/mcp", id="path too long"),
        pytest.param("ToolServer", ("spec", "path"), "/mcp\n", "InvalidValue", "/MCP", id="path with a line break"),
        pytest.param("ServiceServer", ("spec", "path"), "/mcp", "Contradiction", ..., id="path of an HTTP server"),
        pytest.param("SealedServer", ("spec", "path"), "/mcp", "Contradiction", ..., id="path where nothing is read"),
        pytest.param("Agent", ("spec", "service", "name"), "a.b", "InvalidName", "a-b", id="agent: service name with a dot"),
        pytest.param("Agent", ("spec", "service", "port"), ..., "MissingField", 80, id="agent: service without a port"),
        pytest.param("Agent", ("spec", "service", "port"), 0, "InvalidPort", 1, id="agent: port 0"),
        pytest.param("Agent", ("spec", "service", "port"), 65536, "InvalidPort", 65535, id="agent: port beyond 16 bits"),
        pytest.param("Agent", ("spec", "service", "port"), True, "WrongType", 1, id="agent: port true"),
        pytest.param("Agent", ("spec", "service", "port"), "80", "WrongType", 80, id="agent: port a string"),
        pytest.param("Agent", ("spec", "service", "port"), 80.0, "WrongType", 80, id="agent: port a float"),
        pytest.param("ToolServer", ("spec", "protocol"), "mcp", "InvalidValue", "MCP", id="protocol in lower case"),
        pytest.param("ToolServer", ("spec", "protocol"), ..., "MissingField", "MCP", id="protocol missing"),
        pytest.param("ToolServer", ("spec", "hosts"), ..., "MissingField", ["a.example.com"], id="neither service nor hosts"),
        pytest.param("ToolServer", ("spec", "hosts"), [], "InvalidValue", ["a.example.com"], id="hosts empty"),
        pytest.param("ToolServer", ("spec", "port"), -1, "InvalidPort", 8443, id="port negative"),
        pytest.param("ToolServer", ("spec", "tls"), "open", "InvalidValue", "Open", id="tls in lower case"),
        pytest.param("ToolServer", ("spec", "caBundle"), PRIVATE_KEY, "InvalidCertificate", CERTIFICATE, id="caBundle a key"),
        pytest.param("ToolServer", ("spec", "caBundle"), "LS0tLS1", "InvalidCertificate", CERTIFICATE, id="caBundle not PEM"),
        pytest.param("ToolServer", ("spec", "caBundle"), "", "InvalidCertificate", CERTIFICATE, id="caBundle empty"),
        pytest.param("ToolServer", ("spec", "tools"), {"a": 1}, "WrongType", [{"name": "a"}], id="tools a mapping"),
        pytest.param(
            "ToolServer", ("spec", "tools"), [{"name": "a"}, {"name": "a", "inputSchema": {}}], "Repeated", [{"name": "a"}], id="tool twice"
        ),
        pytest.param("ModelProvider", ("spec", "provider"), "openai", "InvalidValue", "OpenAI", id="provider in lower case"),
        pytest.param("ModelProvider", ("spec", "provider"), ..., "MissingField", "Anthropic", id="provider missing"),
        pytest.param("ModelProvider", ("spec", "hosts"), ..., "MissingField", ["a.example.com"], id="model provider without hosts"),
        pytest.param(
            "ModelProvider", ("spec", "service"), {"name": "a", "port": 1}, "UnknownField", ..., id="model provider with a service"
        ),
        pytest.param("SealedServer", ("spec", "caBundle"), CERTIFICATE, "Contradiction", ..., id="sealed with caBundle"),
        pytest.param("SealedServer", ("spec", "credential"), CREDENTIAL, "Contradiction", ..., id="sealed with a credential"),
        pytest.param("ServiceServer", ("spec", "caBundle"), CERTIFICATE, "Contradiction", ..., id="plain with caBundle"),
        pytest.param("ServiceServer", ("spec", "port"), 80, "Contradiction", ..., id="port beside a service"),
        pytest.param("ServiceServer", ("spec", "tools"), [{"name": "a"}], "Contradiction", ..., id="tools of an HTTP server"),
    ],
)
def test_a_mistake_names_its_field(change: Change, kind: str, path: Path, *, bad: object, code: str, allowed: object) -> None:
    refused = parse(change(kind, path, bad))

    assert [(mistake.path, mistake.code) for mistake in refused.mistakes] == [(path, code)]
    neighbour = change(kind, ("metadata", "labels"), {}) if allowed is ... else change(kind, path, allowed)
    assert parse(neighbour).mistakes == ()


@pytest.mark.parametrize(
    ("path", "value", "allowed"),
    [
        pytest.param(("spec", "protocols"), ["A2A", "A2A"], ["A2A", "HTTP"], id="protocols"),
        pytest.param(("spec", "hosts"), ["a.example.com", "a.example.com"], ["a.example.com", "b.example.com"], id="hosts"),
        pytest.param(("spec", "models"), ["m", "m"], ["m", "n"], id="models"),
    ],
)
def test_an_item_twice_in_a_list_is_refused(change: Change, path: Path, value: object, allowed: object) -> None:
    kind = "Agent" if path[-1] == "protocols" else "ModelProvider"

    assert [(mistake.path, mistake.code) for mistake in parse(change(kind, path, value)).mistakes] == [((*path, 1), "Repeated")]
    assert parse(change(kind, path, allowed)).mistakes == ()


def test_service_and_hosts_together_contradict(change: Change) -> None:
    refused = parse(change("ToolServer", ("spec", "service"), {"name": "a", "port": 80}))

    assert [(mistake.path, mistake.code) for mistake in refused.mistakes] == [(("spec", "service"), "Contradiction")]


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [("ToolServer", "tools", [{"name": "a"}]), ("ModelProvider", "models", ["m"]), ("ModelProvider", "credential", CREDENTIAL)],
    ids=["tools", "models", "credential"],
)
def test_what_needs_sight_is_refused_for_sealed_and_allowed_for_open(change: Change, kind: str, field: str, value: object) -> None:
    manifest = change(kind, ("spec", field), value)
    assert parse(manifest).mistakes == ()

    manifest["spec"]["tls"] = "Sealed"

    assert [(mistake.path, mistake.code) for mistake in parse(manifest).mistakes] == [(("spec", field), "Contradiction")]


@pytest.mark.parametrize(
    ("path", "bad", "code"),
    [
        pytest.param(("secretRef",), ..., "MissingField", id="no secretRef"),
        pytest.param(("secretRef", "name"), ..., "MissingField", id="no secret's name"),
        pytest.param(("secretRef", "key"), ..., "MissingField", id="no key"),
        pytest.param(("secretRef", "name"), "Keys", "InvalidName", id="secret's name in upper case"),
        pytest.param(("secretRef", "key"), "a/b", "InvalidName", id="key with a slash"),
        pytest.param(("secretRef", "namespace"), "other", "UnknownField", id="another namespace"),
        pytest.param(("header",), ..., "MissingField", id="no header"),
    ],
)
def test_a_credential_refers_to_one_key_of_a_secret_of_its_namespace(change: Change, path: Path, bad: object, code: str) -> None:
    manifest = change("ToolServer", ("spec", "credential"), CREDENTIAL)
    assert parse(manifest).mistakes == ()
    found = manifest["spec"]["credential"]
    for step in path[:-1]:
        found = found[step]
    if bad is ...:
        del found[path[-1]]
    else:
        found[path[-1]] = bad

    assert [(mistake.path, mistake.code) for mistake in parse(manifest).mistakes] == [(("spec", "credential", *path), code)]


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("search", True),
        ("a/b.c-d_e", True),
        ("x" * 256, True),
        ("x" * 257, False),
        ("", False),
        (" a", False),
        ("a\n", False),
        ("a\u202eb", False),
    ],
    ids=["a word", "with a slash", "256 long", "257 long", "empty", "a blank before", "a line break", "bidi mark"],
)
def test_a_tools_name_is_printable_and_short(change: Change, name: str, *, accepted: bool) -> None:
    mistakes = parse(change("ToolServer", ("spec", "tools"), [{"name": name}])).mistakes

    assert [(mistake.path, mistake.code) for mistake in mistakes] == ([] if accepted else [(("spec", "tools", 0, "name"), "InvalidValue")])


def test_an_input_schema_nested_beyond_all_reason_is_refused(change: Change) -> None:
    schema: Manifest = {}
    for _ in range(60):
        schema = {"properties": schema}
    mistakes = parse(change("ToolServer", ("spec", "tools"), [{"name": "a", "inputSchema": schema}])).mistakes

    assert [(mistake.path, mistake.code) for mistake in mistakes] == [(("spec", "tools", 0, "inputSchema"), "InvalidValue")]
