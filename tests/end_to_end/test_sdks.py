"""Unmodified SDKs through the gate: the same results as without it, and denials that are their own permission errors."""

from __future__ import annotations

import sys
import time

import pytest

from hopgate.demo import __main__ as demo
from tests.end_to_end.conftest import World
from tests.end_to_end.gates import wait

pytestmark = [pytest.mark.root, pytest.mark.envoy]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_an_mcp_client_works_and_is_told_no(world: World, mode: str) -> None:
    found = world.gate.json("demo/planner", "sdk_client.py", "mcp", mode)
    assert found["tools"] == ["delete", "search"]
    assert found["search"] == "#1 login fails on Monday"
    assert found["denied"].startswith("MCPError: ")
    denied = [record for record in world.gate.records() if record["resource"].endswith('tickets/delete"')][-1]
    assert denied["id"] in found["denied"]
    assert found["after"] == "#3 the logo is blue"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_each_step_of_a_stream_arrives_before_the_next_is_sent(world: World, mode: str) -> None:
    found = world.gate.json("demo/planner", "sdk_client.py", "mcp-steps", mode)
    assert found == {"seen": [1, 2, 3, 4, 5], "result": "counted to 5"}


def test_an_openai_client_works_at_its_default_address_without_a_key(world: World) -> None:
    found = world.gate.json("demo/planner", "sdk_client.py", "openai")
    assert found["plain"] == "gpt-4o-mini says: begin with the oldest ticket"
    assert "".join(found["chunks"]).split() == found["plain"].split()
    assert len(found["chunks"]) > 3
    assert found["denied"].startswith("PermissionDeniedError: Error code: 403")


def test_an_anthropic_client_works_at_its_default_address_without_a_key(world: World) -> None:
    found = world.gate.json("demo/planner", "sdk_client.py", "anthropic")
    assert found["plain"] == "hello"
    assert found["denied"].startswith("PermissionDeniedError: Error code: 403")


def test_an_agent_reaches_another_for_its_user_and_a_stranger_does_not(world: World) -> None:
    url = "http://researcher.demo.svc:8080"
    script = str(demo.HERE / "agents" / "researcher.py")
    options = ("--listen", "8080", "--bind", str(demo.HERE))
    with world.gate.running("demo/researcher", sys.executable, script, "8080", url + "/", "http://tickets.demo.svc/mcp", options=options):
        wait(lambda: any(agent["agent"] == "demo/researcher" for agent in world.gate.status()["agents"]), "the researcher is attached")
        token = world.issuer.token(subject="ada", groups=("g",), audience="hopgate", now=int(time.time()))
        card = wait(lambda: _asked(world, url, token), "the researcher serves")
        assert card == {"send": ["#1 login fails on Monday; #2 login is slow"], "stream": ["#1 login fails on Monday; #2 login is slow"]}
        inbound = [record for record in world.gate.records() if record["direction"] == "Inbound" and record["action"] == "SendMessage"]
        assert {(record["caller"], record["user"]) for record in inbound} == {("demo/planner", "ada")}
        assert all(record["presented_token_id"] for record in inbound)
        refused = world.gate.json("demo/stranger", "sdk_client.py", "a2a", url, token)
        assert all("403" in outcome for outcome in refused.values()), refused
        forged = world.gate.json("demo/planner", "sdk_client.py", "a2a", url, token[:-4] + "AAAA")
        assert all("403" in outcome for outcome in forged.values()), forged
    assert world.gate.records()[-1]["reason"] == "InvalidUserToken"


def _asked(world: World, url: str, token: str) -> dict[str, list[str]] | None:
    found = world.gate.json("demo/planner", "sdk_client.py", "a2a", url, token)
    return found if all(isinstance(outcome, list) for outcome in found.values()) else None
