"""Hosts of model APIs by name: what matches, what only looks alike, and files with mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from sensor import data, providers
from sensor.providers import PackageKind, Providers, ProvidersError


@pytest.fixture(scope="module")
def known() -> Providers:
    return data.built_in()


@pytest.mark.parametrize(
    ("host", "provider", "neighbour"),
    [
        ("api.openai.com", "OpenAI", "notapi.openai.com"),
        ("eu.api.openai.com", "OpenAI", "api.openai.com.example.org"),
        ("API.OpenAI.com.", "OpenAI", "api.openai.com.."),
        ("api.openai.com", "OpenAI", "openai.com"),
        ("api.openai.com", "OpenAI", "chat.openai.com"),
        ("mine.openai.azure.com", "Azure OpenAI", "mine.azure.com"),
        ("api.anthropic.com", "Anthropic", "anthropic.com"),
        ("generativelanguage.googleapis.com", "Google Gemini", "storage.googleapis.com"),
        ("us-central1-aiplatform.googleapis.com", "Google Vertex AI", "us-central1aiplatform.googleapis.com"),
        ("bedrock-runtime.us-east-1.amazonaws.com", "Amazon Bedrock", "s3.us-east-1.amazonaws.com"),
        ("bedrock-runtime.eu-west-3.amazonaws.com", "Amazon Bedrock", "bedrock-runtime.amazonaws.com"),
        ("vpce-1.bedrock-runtime.us-east-1.amazonaws.com", "Amazon Bedrock", "bedrock-runtime.a.b.amazonaws.com"),
        ("api.mistral.ai", "Mistral", "mistral.ai"),
        ("api.cohere.com", "Cohere", "cohere.com"),
        ("api.groq.com", "Groq", "api.grok.com"),
        ("api.together.xyz", "Together", "www.together.xyz"),
        ("openrouter.ai", "OpenRouter", "openrouter.ai.example.com"),
        ("api.deepseek.com", "DeepSeek", "chat.deepseek.com"),
        ("api.x.ai", "xAI", "x.ai"),
        ("router.huggingface.co", "Hugging Face Inference", "huggingface.co"),
    ],
)
def test_a_host_and_its_neighbour(known: Providers, host: str, provider: str, neighbour: str) -> None:
    found = known.provider_of(host)
    assert found is not None
    assert found.name == provider
    assert known.provider_of(neighbour) is None


@pytest.mark.parametrize("host", ["", ".", "com", "a..b", "192.0.2.1", "*", "*.openai.com", "\x00", "api.openai.com\n"])
def test_what_is_no_name_is_no_provider(known: Providers, host: str) -> None:
    assert known.provider_of(host) is None


def test_every_host_of_the_file_is_its_providers(known: Providers) -> None:
    for provider in known.providers:
        for host in provider.hosts:
            assert known.provider_of(host.replace("*", "eu-1")) == provider


@pytest.mark.parametrize(
    ("path", "package", "neighbour"),
    [
        ("/v/lib/python3.11/site-packages/jiter/jiter.so", "jiter", "/v/lib/python3.11/site-packages/jitter/jitter.so"),
        ("/usr/lib/python3/dist-packages/openai/__init__.py", "OpenAI", "/home/me/openai/__init__.py"),
        ("/usr/lib/node_modules/@anthropic-ai/claude-code/cli.js", "Claude Code", "/usr/lib/node_modules/@anthropic-ai/else/cli.js"),
        ("/a/node_modules/x/node_modules/@openai/codex/b", "Codex", "/a/node_modules/@openai/x/codex/b"),
    ],
)
def test_a_package_by_path(known: Providers, path: str, package: str, neighbour: str) -> None:
    found = known.package_of(path)
    assert found is not None
    assert package in found.name
    assert known.package_of(neighbour) is None


def test_keys_of_a_whole_cloud_say_nothing_of_models(known: Providers) -> None:
    assert "OPENAI_API_KEY" in known.variables
    assert "AWS_BEARER_TOKEN_BEDROCK" in known.variables
    assert "AWS_SECRET_ACCESS_KEY" not in known.variables


OWN = b"""
providers:
  - name: Our gateway
    hosts: [llm.example.com]
packages:
  - {name: Our SDK, is: SDK, paths: ["@example/sdk"]}
variables: [EXAMPLE_API_KEY]
"""


def test_a_users_file_adds_to_what_is_known(known: Providers) -> None:
    both = known.extended(providers.read(OWN, "own.yaml"))
    for host, name in (("llm.example.com", "Our gateway"), ("api.openai.com", "OpenAI")):
        found = both.provider_of(host)
        assert found is not None
        assert found.name == name
    assert known.provider_of("llm.example.com") is None
    package = both.package_of("/a/node_modules/@example/sdk/index.js")
    assert package is not None
    assert package.kind is PackageKind.SDK
    assert {"EXAMPLE_API_KEY", "OPENAI_API_KEY"} <= both.variables


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("providers: [{name: A, hosts: [com]}]", "1:31", "expected a DNS name"),
        ("providers: [{name: A, hosts: ['*.com']}]", "1:31", "expected a DNS name"),
        ("providers: [{name: A, hosts: ['a.*.com']}]", "1:31", "expected a DNS name"),
        ("providers: [{name: A, hosts: [API.example.com]}]", "1:31", "expected a DNS name"),
        ("providers: [{name: A, hosts: [api.example.com.]}]", "1:31", "expected a DNS name"),
        ("providers: [{name: A, hosts: ['https://api.example.com']}]", "1:31", "expected a DNS name"),
        ("providers: [{name: A, hosts: ['192.0.2.1']}]", "1:31", "expected a DNS name"),
        ("providers: [{name: A, hosts: []}]", "1:23", "at least 1"),
        ("providers:\n  - name: A", "2:5", "`hosts`"),
        ("providers:\n  - hosts: [a.example.com]", "2:5", "`name`"),
        ("provider: []", "1:1", "did you mean `providers`?"),
        ("providers: {}", "1:1", "expected a list"),
        ("- a", "1:1", "expected a mapping"),
        ("", "1:1", "one document"),
        ("providers: []\n---\nproviders: []", "1:1", "one document"),
        ("providers: [", "2:1", "InvalidSyntax"),
        ("packages: [{name: A, is: sdk, paths: [a]}]", "1:22", "`SDK`, `Agent`"),
        ("packages: [{name: A, is: SDK, paths: [a/b]}]", "1:39", "a package's folder"),
        ("variables: ['A B']", "1:13", "a variable's name"),
        (
            "providers: [{name: A, hosts: [a.example.com]}, {name: B, hosts: [a.example.com]}]",
            "1:1",
            "expected each host once, got `a.example.com` of `A` and `B`",
        ),
    ],
)
def test_a_mistake_has_its_place(text: str, place: str, message: str) -> None:
    with pytest.raises(ProvidersError) as caught:
        providers.read(text.encode(), "own.yaml")
    assert caught.value.code == "ProvidersInvalid"
    assert any(mistake.startswith(f"{place}:") for mistake in caught.value.mistakes), caught.value.mistakes
    assert message in str(caught.value)
    assert str(caught.value).startswith("own.yaml:")


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ProvidersError) as caught:
        providers.read(b"providers:\n  - name: A\n    hosts: [com]\n  - name: B\n    host: [b.example.com]\n", "own.yaml")
    assert [mistake.split(":")[0] for mistake in caught.value.mistakes] == ["3", "4", "5"]


def test_a_file_that_is_not_there_is_an_error_of_the_same_kind(tmp_path: Path) -> None:
    with pytest.raises(ProvidersError, match=r"none.yaml: expected a file that can be read"):
        data.with_file(tmp_path / "none.yaml")
    (tmp_path / "own.yaml").write_bytes(OWN)
    assert data.with_file(tmp_path / "own.yaml").provider_of("llm.example.com") is not None
