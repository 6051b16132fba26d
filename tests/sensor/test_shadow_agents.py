"""The `ShadowAgent` that is made of a sighting."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from hopgate.kubernetes import crds
from hopgate.resources.kinds import API_VERSION
from sensor import shadow_agents
from sensor.containers import Placement
from sensor.evidence import Evidence, EvidenceKind
from sensor.shadow_agents import Where
from sensor.sightings import Program, Reached, Sighting

PROGRAM = Program(
    name="bot.py", executable="/usr/bin/python3.11", script="bot.py", shown="python3 bot.py", uid=1000, user="demo", cgroup="/bot.service"
)
SEEN = Sighting(
    program=PROGRAM,
    process=7,
    processes=1,
    agent="",
    evidence=(Evidence(kind=EvidenceKind.MODEL_HANDSHAKE, subject="api.example.com"),),
    reached=(
        Reached(host="api.example.com", provider="Example", connections=3),
        Reached(host="www.example.com", provider="", connections=1),
    ),
    others=0,
    connections=4,
    first_seen_ns=1_700_000_000_000_000_000,
    last_seen_ns=1_700_000_060_900_000_000,
)
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def made(seen: Sighting = SEEN, previous: dict[str, Any] | None = None) -> dict[str, Any]:
    return shadow_agents.status(seen, shadow_agents.where(seen.program), previous or {})


@pytest.mark.parametrize(
    ("name", "begin"),
    [("bot.py", "bot-py"), ("My Agent", "my-agent"), ("", "python3-11"), ("...", "program"), ("x" * 200, "x" * 50), ("é" * 9 + "b", "b")],
)
def test_a_name_is_a_label_that_people_know_it_by(name: str, begin: str) -> None:
    program = replace(PROGRAM, name=name)
    assert shadow_agents.name(program) == f"{begin}-{program.id}"
    assert LABEL.fullmatch(shadow_agents.name(program))


def test_two_programs_of_one_name_are_two() -> None:
    assert shadow_agents.name(PROGRAM) == shadow_agents.name(replace(PROGRAM, cgroup="/other.scope"))
    assert shadow_agents.name(PROGRAM) != shadow_agents.name(replace(PROGRAM, placement=Placement(unit="other.service")))


def test_the_object_is_a_shadow_agent_that_nobody_has_cut_off() -> None:
    assert shadow_agents.new(SEEN, Where(cgroup="/bot.service")) == {
        "apiVersion": API_VERSION,
        "kind": "ShadowAgent",
        "metadata": {"name": f"bot-py-{PROGRAM.id}"},
        "spec": {"quarantine": False},
        "status": {
            "firstSeen": "2023-11-14T22:13:20Z",
            "lastSeen": "2023-11-14T22:14:20Z",
            "program": {"name": "bot.py", "executable": "/usr/bin/python3.11", "command": "python3 bot.py", "user": "demo"},
            "where": {"cgroup": "/bot.service"},
            "evidence": [{"time": "2023-11-14T22:14:20Z", "message": "opened TLS for api.example.com"}],
            "reached": [{"host": "api.example.com", "provider": "Example"}, {"host": "www.example.com"}],
        },
    }


def test_what_is_known_of_the_place_is_said_and_nothing_else() -> None:
    assert Where(node="one", image_digest="sha256:00").fields() == {"node": "one", "imageDigest": "sha256:00"}


def test_what_stood_there_is_kept() -> None:
    before = {
        "firstSeen": "2023-01-01T00:00:00Z",
        "lastSeen": "2024-01-01T00:00:00Z",
        "evidence": [{"time": "2023-01-01T00:00:00Z", "message": "earlier"}],
        "reached": [{"host": "old.example.com"}],
        "conditions": [{"type": "Quarantined"}],
    }
    after = made(previous=before)
    assert (after["firstSeen"], after["lastSeen"]) == (before["firstSeen"], before["lastSeen"])
    assert [piece["message"] for piece in after["evidence"]] == ["earlier", "opened TLS for api.example.com"]
    assert [place["host"] for place in after["reached"]] == ["api.example.com", "www.example.com", "old.example.com"]
    assert after["conditions"] == before["conditions"]
    assert made(previous=after) == after


def test_it_is_bounded() -> None:
    assert (shadow_agents.MOST_EVIDENCE, shadow_agents.MOST_REACHED) == (crds.MAX_EVIDENCE, crds.MAX_REACHED)
    seen = replace(
        SEEN,
        evidence=tuple(Evidence(kind=EvidenceKind.PROVIDER_KEY, subject=f"KEY_{number}") for number in range(99)),
        reached=tuple(Reached(host=f"{number}.example.com", provider="", connections=1) for number in range(99)),
    )
    after = made(seen)
    assert (len(after["evidence"]), len(after["reached"])) == (32, 32)


@pytest.mark.parametrize("bad", [{"evidence": "none", "reached": 3}, {"evidence": [1], "reached": [None]}, {"firstSeen": None}])
def test_a_status_that_someone_spoilt_is_made_anew(bad: dict[str, Any]) -> None:
    assert made(previous=bad) == made()


def test_only_agents_that_nobody_registered_are_told() -> None:
    assert shadow_agents.is_told(SEEN)
    assert not shadow_agents.is_told(replace(SEEN, agent="demo/planner"))
    assert not shadow_agents.is_told(replace(SEEN, evidence=()))
    assert not shadow_agents.is_told(replace(SEEN, program=Program()))
