"""The variables, bundle and files that a governed program gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from hopgate.local import environment
from hopgate.local.environment import SOCKET_VARIABLES, Environment
from hopgate.resources.kinds import Provider
from hopgate.variables import PLACEHOLDER, PROVIDER_KEYS, PROXY_VARIABLES, TRUST_VARIABLES

BUNDLE = "/run/hopgate/trust-bundle.pem"
SECRET = "sk-marker-77aa"
NONE: frozenset[str] = frozenset()
NO_PROVIDERS: frozenset[Provider] = frozenset()


def governed(parent: dict[str, str], keep: frozenset[str] = NONE, providers: frozenset[Provider] = NO_PROVIDERS) -> Environment:
    return environment.governed_environment(parent, keep=keep, providers=providers, trust_bundle=BUNDLE)


@pytest.mark.parametrize("name", sorted(PROVIDER_KEYS))
def test_a_providers_key_reaches_the_program_as_a_placeholder(name: str) -> None:
    found = governed({name: SECRET, "OTHER": "kept"})
    assert found.variables[name] == PLACEHOLDER
    assert found.variables["OTHER"] == "kept"
    assert found.replaced == (name,)
    assert SECRET not in repr(found)


def test_a_kept_key_is_left_alone_and_its_neighbour_is_not() -> None:
    found = governed({"OPENAI_API_KEY": SECRET, "GROQ_API_KEY": SECRET}, keep=frozenset({"OPENAI_API_KEY"}))
    assert (found.variables["OPENAI_API_KEY"], found.variables["GROQ_API_KEY"]) == (SECRET, PLACEHOLDER)
    assert found.replaced == ("GROQ_API_KEY",)


def test_an_empty_key_stays_empty_when_no_provider_needs_it() -> None:
    assert governed({"OPENAI_API_KEY": ""}).variables["OPENAI_API_KEY"] == ""


@pytest.mark.parametrize(
    ("parent", "providers", "name", "expected"),
    [
        ({}, {Provider.OPENAI}, "OPENAI_API_KEY", PLACEHOLDER),
        ({"OPENAI_API_KEY": ""}, {Provider.OPENAI}, "OPENAI_API_KEY", PLACEHOLDER),
        ({}, {Provider.ANTHROPIC}, "ANTHROPIC_API_KEY", PLACEHOLDER),
        ({}, {Provider.ANTHROPIC}, "OPENAI_API_KEY", None),
        ({"ANTHROPIC_AUTH_TOKEN": SECRET}, {Provider.ANTHROPIC}, "ANTHROPIC_API_KEY", None),
        ({"ANTHROPIC_AUTH_TOKEN": SECRET}, {Provider.ANTHROPIC}, "ANTHROPIC_AUTH_TOKEN", PLACEHOLDER),
    ],
    ids=["OpenAI", "OpenAI, set empty", "Anthropic", "not the other's", "a token instead of a key", "the token itself"],
)
def test_a_registered_provider_gets_the_key_that_its_sdk_asks_for(
    parent: dict[str, str], providers: set[Provider], name: str, expected: str | None
) -> None:
    assert governed(parent, providers=frozenset(providers)).variables.get(name) == expected


def test_every_trust_variable_names_the_bundle_whatever_it_named_before() -> None:
    found = governed({"SSL_CERT_FILE": "/elsewhere.pem"})
    assert {name: found.variables[name] for name in TRUST_VARIABLES} == dict.fromkeys(TRUST_VARIABLES, BUNDLE)
    kept = governed({"SSL_CERT_FILE": "/elsewhere.pem"}, keep=frozenset({"SSL_CERT_FILE"}))
    assert kept.variables["SSL_CERT_FILE"] == "/elsewhere.pem"


@pytest.mark.parametrize("name", sorted(PROXY_VARIABLES | SOCKET_VARIABLES))
def test_what_leads_past_the_gate_is_taken_away_unless_it_is_kept(name: str) -> None:
    found = governed({name: "somewhere"})
    assert name not in found.variables
    assert found.removed == (name,)
    assert governed({name: "somewhere"}, keep=frozenset({name})).variables[name] == "somewhere"


@pytest.mark.parametrize(
    ("name", "value"),
    [("SSH_AUTH_SOCK", "/tmp/a"), ("DOCKER_HOST", "unix:///tmp/a"), ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/tmp/a")],
)
def test_a_variable_that_names_an_allowed_socket_stays(name: str, value: str) -> None:
    def of(socket: str) -> Environment:
        return environment.governed_environment(
            {name: value}, keep=NONE, providers=NO_PROVIDERS, trust_bundle=BUNDLE, allow_sockets=frozenset({socket})
        )

    assert of("/tmp/a").variables[name] == value
    assert name not in of("/tmp/b").variables


def test_the_parents_variables_are_not_changed() -> None:
    parent = {"OPENAI_API_KEY": SECRET, "HTTP_PROXY": "http://p"}
    governed(parent)
    assert parent == {"OPENAI_API_KEY": SECRET, "HTTP_PROXY": "http://p"}


def test_the_bundle_has_the_first_system_store_that_exists_and_the_gates_ca(tmp_path: Path) -> None:
    store = tmp_path / "roots.pem"
    store.write_bytes(b"system roots")
    (tmp_path / "second.pem").write_bytes(b"second roots")
    stores = (tmp_path / "absent.pem", store, tmp_path / "second.pem")
    assert environment.trust_bundle(b"gate", stores) == b"system roots\ngate"


def test_the_bundle_is_the_gates_ca_alone_where_the_system_has_none(tmp_path: Path) -> None:
    assert environment.trust_bundle(b"gate", (tmp_path / "absent.pem",)) == b"gate"


def test_host_names_come_from_the_file_and_dns_alone_and_other_databases_stay() -> None:
    switch = "passwd: files sss\n# hosts: a comment\nhosts: files mdns4_minimal [NOTFOUND=return] resolve dns\ngroup: files\n"
    assert environment.name_service(switch) == "passwd: files sss\n# hosts: a comment\ngroup: files\nhosts: files dns\n"


def test_the_resolver_is_named_with_short_waits() -> None:
    assert environment.resolver_configuration("192.0.2.1") == "nameserver 192.0.2.1\noptions timeout:1 attempts:2\n"


def test_the_hosts_file_knows_this_machine_only() -> None:
    assert environment.host_names("box").splitlines() == ["127.0.0.1 localhost box", "::1 localhost ip6-localhost ip6-loopback box"]
