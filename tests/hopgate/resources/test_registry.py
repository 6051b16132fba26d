"""The registry: what each record becomes, and which addresses it has."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from hopgate.identity.names import DestinationKind, DestinationName, ObjectName
from hopgate.resources import addresses, registry
from hopgate.resources.kinds import (
    Agent,
    AgentProtocol,
    DialAddress,
    ModelProvider,
    Provider,
    Resource,
    Service,
    ShadowAgent,
    Tls,
    ToolProtocol,
    ToolServer,
)
from hopgate.resources.registry import Protocol, Registry

PLANNER = Agent(name=ObjectName("demo", "planner"), service_account_name="planner")
SEARCHER = Agent(name=ObjectName("demo", "searcher"), service_account_name="searcher", service=Service(name="search", port=8080))
TICKETS = ToolServer(
    name=ObjectName("demo", "tickets"),
    protocol=ToolProtocol.MCP,
    service=Service(name="tickets", port=9000),
    port=9000,
    tls=Tls.DISABLED,
    address=DialAddress(ip="127.0.0.1", port=9100),
)
OPENAI = ModelProvider(name=ObjectName("demo", "openai"), provider=Provider.OPENAI, hosts=("api.openai.com", "eu.openai.com"))
VAULT = ToolServer(name=ObjectName("demo", "vault"), protocol=ToolProtocol.HTTP, hosts=("vault.example.com",), tls=Tls.SEALED, port=8200)


def _build(*resources: Resource, previous: Registry | None = None) -> Registry:
    result = registry.build(resources, previous)
    assert result.conflicts == ()
    assert result.registry is not None
    return result.registry


def test_every_destination_is_found_by_its_name_and_every_agent_too() -> None:
    built = _build(PLANNER, SEARCHER, TICKETS, OPENAI, VAULT, ShadowAgent(name="x"))

    assert built.agents == {PLANNER.name: PLANNER, SEARCHER.name: SEARCHER}
    assert {str(name) for name in built.destinations} == {
        "Agent:demo/planner",
        "Agent:demo/searcher",
        "ToolServer:demo/tickets",
        "ModelProvider:demo/openai",
        "ToolServer:demo/vault",
    }


def test_each_outside_host_has_an_endpoint_and_a_service_has_one_for_both_names() -> None:
    built = _build(PLANNER, SEARCHER, TICKETS, OPENAI, VAULT)

    assert {frozenset(endpoint.hosts) for endpoint in built.by_address.values()} == {
        frozenset({"search.demo.svc", "search.demo.svc.cluster.local"}),
        frozenset({"tickets.demo.svc", "tickets.demo.svc.cluster.local"}),
        frozenset({"api.openai.com"}),
        frozenset({"eu.openai.com"}),
        frozenset({"vault.example.com"}),
    }
    for host, endpoint in built.by_host.items():
        assert host in endpoint.hosts
        assert built.by_address[endpoint.address] is endpoint
        assert built.destinations[endpoint.destination.name] is endpoint.destination


@pytest.mark.parametrize(
    ("host", "network", "port", "dial"),
    [
        ("search.demo.svc", "198.19.0.0/16", 8080, None),
        ("tickets.demo.svc.cluster.local", "198.19.0.0/16", 9000, DialAddress(ip="127.0.0.1", port=9100)),
        ("api.openai.com", "198.18.0.0/17", 443, None),
        ("vault.example.com", "198.18.128.0/17", 8200, None),
    ],
)
def test_an_endpoint_says_where_it_is_and_what_is_dialled(host: str, network: str, port: int, dial: DialAddress | None) -> None:
    endpoint = _build(PLANNER, SEARCHER, TICKETS, OPENAI, VAULT).by_host[host]

    assert IPv4Address(endpoint.address) in IPv4Network(network)
    assert (endpoint.port, endpoint.dial) == (port, dial)


@pytest.mark.parametrize(
    ("record", "kind", "protocol"),
    [
        pytest.param(PLANNER, DestinationKind.AGENT, Protocol.A2A, id="an agent speaks A2A"),
        pytest.param(
            replace(PLANNER, protocols=(AgentProtocol.HTTP, AgentProtocol.A2A)), DestinationKind.AGENT, Protocol.A2A, id="A2A before HTTP"
        ),
        pytest.param(replace(PLANNER, protocols=(AgentProtocol.HTTP,)), DestinationKind.AGENT, Protocol.HTTP, id="an HTTP agent"),
        pytest.param(TICKETS, DestinationKind.TOOL_SERVER, Protocol.MCP, id="an MCP server"),
        pytest.param(replace(TICKETS, protocol=ToolProtocol.HTTP), DestinationKind.TOOL_SERVER, Protocol.HTTP, id="an HTTP server"),
        pytest.param(VAULT, DestinationKind.TOOL_SERVER, Protocol.OPAQUE, id="a sealed server"),
        pytest.param(OPENAI, DestinationKind.MODEL_PROVIDER, Protocol.OPENAI, id="OpenAI"),
        pytest.param(replace(OPENAI, provider=Provider.ANTHROPIC), DestinationKind.MODEL_PROVIDER, Protocol.ANTHROPIC, id="Anthropic"),
        pytest.param(replace(OPENAI, tls=Tls.SEALED), DestinationKind.MODEL_PROVIDER, Protocol.OPAQUE, id="a sealed provider"),
    ],
)
def test_what_is_spoken_at_a_destination(record: Agent | ToolServer | ModelProvider, kind: DestinationKind, protocol: Protocol) -> None:
    destination = _build(record).destinations[DestinationName(kind, record.name)]

    assert destination.protocol is protocol
    assert destination.record is record


def test_an_address_stays_when_others_come_and_go() -> None:
    first = _build(OPENAI, TICKETS)
    second = _build(SEARCHER, VAULT, replace(OPENAI, hosts=("eu.openai.com", "us.openai.com")), previous=first)

    assert second.by_host["eu.openai.com"].address == first.by_host["eu.openai.com"].address
    assert "api.openai.com" not in second.by_host


def test_nothing_at_all_is_a_registry_without_destinations() -> None:
    built = _build()

    assert not built.by_address
    assert not built.destinations


def test_a_full_range_is_a_conflict_of_the_record_that_got_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "RANGES", {tls: IPv4Network("198.18.0.0/30") for tls in Tls})
    records = [replace(OPENAI, name=ObjectName("demo", name), hosts=(f"{name}.example",)) for name in "abc"]
    assert registry.build(records[:2]).registry is not None

    result = registry.build(records)

    assert result.registry is None
    assert [(conflict.position, conflict.code) for conflict in result.conflicts] == [(2, "NoAddressLeft")]
