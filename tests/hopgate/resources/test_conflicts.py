"""What is wrong between objects: each conflict beside the same objects with one fact changed, which have none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hopgate.identity.names import ObjectName
from hopgate.resources import conflicts
from hopgate.resources.fields import Path
from hopgate.resources.kinds import (
    Agent,
    Credential,
    DialAddress,
    IdentityProvider,
    ModelProvider,
    Policy,
    Provider,
    Resource,
    Secret,
    SecretKey,
    SecretValue,
    Service,
    ToolProtocol,
    ToolServer,
)
from hopgate.resources.reference import ObjectReference

AGENT = Agent(name=ObjectName("demo", "a"), service_account_name="a", service=Service(name="s", port=80))
OTHER_AGENT = Agent(name=ObjectName("demo", "b"), service_account_name="b")
SERVER = ToolServer(name=ObjectName("demo", "t"), protocol=ToolProtocol.MCP, hosts=("t.example", "u.example"))
MODEL = ModelProvider(name=ObjectName("demo", "m"), provider=Provider.OPENAI, hosts=("m.example",))
POLICY = Policy(namespace="demo", name="p", cedar="x")
PROVIDER = IdentityProvider(name="i", issuer="https://idp", audiences=("a",), jwks_uri="https://idp/k")
KEY = SecretKey(secret=ObjectName("demo", "keys"), key="k")
SECRET = Secret(name=ObjectName("demo", "keys"), data={"k": SecretValue(b"sk-marker"), "unused": SecretValue(b"x")})
WITH_CREDENTIAL = replace(MODEL, credential=Credential(secret=KEY, header="authorization"))
DIAL = DialAddress(ip="127.0.0.1", port=80)


@pytest.mark.parametrize(
    ("first", "second", "path", "code", "allowed"),
    [
        pytest.param(SERVER, replace(SERVER, hosts=("z.example",)), ("metadata", "name"), "DuplicateName",
                     replace(SERVER, name=ObjectName("other", "t"), hosts=("z.example",)), id="two tool servers of one name"),
        pytest.param(POLICY, POLICY, ("metadata", "name"), "DuplicateName", replace(POLICY, namespace=None), id="two policies of one name"),
        pytest.param(SECRET, SECRET, ("metadata", "name"), "DuplicateName",
                     replace(SECRET, name=ObjectName("other", "keys")), id="two secrets of one name"),
        pytest.param(SERVER, replace(MODEL, hosts=("m.example", "u.example")), ("spec", "hosts", 1), "DuplicateHost",
                     replace(MODEL, hosts=("m.example", "v.example")), id="one host of two records"),
        pytest.param(AGENT, replace(OTHER_AGENT, service=AGENT.service), ("spec", "service", "name"), "DuplicateService",
                     replace(OTHER_AGENT, service=Service(name="s2", port=80)), id="one service of two agents"),
        pytest.param(AGENT, replace(SERVER, service=Service(name="s", port=81), hosts=()), ("spec", "service", "name"), "DuplicateService",
                     replace(SERVER, name=ObjectName("other", "t"), service=Service(name="s", port=81), hosts=()),
                     id="one service of an agent and a tool server"),
        pytest.param(replace(SERVER, address=DIAL), replace(MODEL, address=DIAL), ("spec", "address"), "DuplicateAddress",
                     replace(MODEL, address=replace(DIAL, port=81)), id="one address of two records"),
        pytest.param(AGENT, replace(OTHER_AGENT, service_account_name="a"), ("spec", "serviceAccountName"), "DuplicateServiceAccount",
                     replace(OTHER_AGENT, name=ObjectName("other", "b"), service_account_name="a"), id="one service account of two agents"),
        pytest.param(PROVIDER, replace(PROVIDER, name="j"), ("spec", "issuer"), "DuplicateIssuer",
                     replace(PROVIDER, name="j", issuer="https://idp2"), id="one issuer of two identity providers"),
    ],
)  # fmt: skip
def test_what_two_claim_is_a_conflict_of_the_later_one(
    first: Resource, second: Resource, path: Path, *, code: str, allowed: Resource
) -> None:
    (conflict,) = conflicts.find([OTHER_AGENT_OUTSIDE, first, second])

    assert (conflict.position, conflict.other, conflict.path, conflict.code) == (2, 1, path, code)
    assert conflict.other_path[0] == path[0]
    assert conflicts.find([OTHER_AGENT_OUTSIDE, first, allowed]) == ()


OTHER_AGENT_OUTSIDE = Agent(name=ObjectName("outside", "o"), service_account_name="o")


def test_a_conflict_names_both_objects() -> None:
    (conflict,) = conflicts.find([SERVER, replace(MODEL, hosts=("u.example",))])

    assert str(conflict.reference) == "ModelProvider demo/m"
    assert conflict.message == "the host `u.example` belongs to ToolServer demo/t already"
    assert conflict.other_path == ("spec", "hosts", 1)


def test_an_object_written_twice_is_said_once() -> None:
    assert [conflict.code for conflict in conflicts.find([SERVER, SERVER])] == ["DuplicateName"]


def test_a_credential_needs_its_secret() -> None:
    assert conflicts.find([WITH_CREDENTIAL, SECRET]) == ()

    (conflict,) = conflicts.find([WITH_CREDENTIAL, replace(SECRET, name=ObjectName("other", "keys"))])

    assert (conflict.path, conflict.code) == (("spec", "credential", "secretRef", "name"), "MissingSecret")
    assert conflict.missing == ObjectReference(kind="Secret", namespace="demo", name="keys")


def test_a_credential_needs_its_key() -> None:
    (conflict,) = conflicts.find([WITH_CREDENTIAL, replace(SECRET, data={"l": SecretValue(b"x")})])

    assert (conflict.path, conflict.code) == (("spec", "credential", "secretRef", "key"), "MissingSecretKey")
    assert (conflict.position, conflict.other) == (0, 1)


@pytest.mark.parametrize("value", [b"", b"sk\n", b"sk\r\nx: y", b" sk", b"sk ", b"s\0k", "sü".encode(), b"\xff"], ids=ascii)
def test_a_secret_that_would_break_a_header_is_refused_without_being_shown(value: bytes) -> None:
    assert conflicts.find([WITH_CREDENTIAL, replace(SECRET, data={"k": SecretValue(b"s k~!")})]) == ()

    (conflict,) = conflicts.find([WITH_CREDENTIAL, replace(SECRET, data={"k": SecretValue(value)})])

    assert (conflict.path, conflict.code) == (("spec", "credential", "secretRef", "key"), "UnusableSecret")
    assert repr(value)[2:-1] not in conflict.message or value == b""


def test_only_secrets_that_a_credential_refers_to_are_kept() -> None:
    assert conflicts.secret_values([WITH_CREDENTIAL, SECRET, SERVER]) == {KEY: SecretValue(b"sk-marker")}
    assert conflicts.secret_values([MODEL, SECRET]) == {}
