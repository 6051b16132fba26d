"""References name an object as people do."""

from __future__ import annotations

import pytest

from hopgate.identity.names import ObjectName
from hopgate.resources import reference
from hopgate.resources.kinds import Agent, Policy, Resource, Secret, ShadowAgent


@pytest.mark.parametrize(
    ("resource", "shown"),
    [
        (Agent(name=ObjectName("demo", "a"), service_account_name="a"), "Agent demo/a"),
        (Secret(name=ObjectName("demo", "s"), data={}), "Secret demo/s"),
        (Policy(namespace="demo", name="p", cedar=""), "Policy demo/p"),
        (Policy(namespace=None, name="p", cedar=""), "ClusterPolicy p"),
        (ShadowAgent(name="x"), "ShadowAgent x"),
    ],
    ids=["an agent", "a secret", "a policy", "a cluster policy", "a shadow agent"],
)
def test_a_reference_reads_as_kind_and_name(resource: Resource, shown: str) -> None:
    assert str(reference.of(resource)) == shown
