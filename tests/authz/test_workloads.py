"""One machine: an agent is known by the credential that its gate holds, and by nothing else."""

from __future__ import annotations

import pytest

from authz import state as states
from authz.state import State, Workload
from authz.workloads import NO_CREDENTIAL, UNKNOWN_CREDENTIAL, HeldCredentials, Refusal
from hopgate.identity.names import ObjectName

WORKLOADS = HeldCredentials(
    State(sequence=1, workloads=(Workload(credential_sha256=states.credential_sha256("held"), agent="demo/planner"),))
)


def test_knows_an_agent_by_its_credential() -> None:
    assert WORKLOADS.identify("held", 0) == ObjectName("demo", "planner")


@pytest.mark.parametrize(
    ("credential", "refusal"),
    [
        pytest.param(None, NO_CREDENTIAL, id="none"),
        pytest.param("", UNKNOWN_CREDENTIAL, id="an empty one"),
        pytest.param("Held", UNKNOWN_CREDENTIAL, id="other case"),
        pytest.param("held ", UNKNOWN_CREDENTIAL, id="a space more"),
        pytest.param("demo/planner", UNKNOWN_CREDENTIAL, id="the agent's name"),
        pytest.param(states.credential_sha256("held"), UNKNOWN_CREDENTIAL, id="the hash itself"),
    ],
)
def test_knows_nobody_by_anything_else(credential: str | None, refusal: Refusal) -> None:
    assert WORKLOADS.identify(credential, 0) == refusal
