"""What the gate itself records of runs."""

from __future__ import annotations

import pytest

from hopgate.audit import records
from hopgate.identity.names import ObjectName
from hopgate.local import recording
from hopgate.local.attachment import AttachmentSpec

SPEC = AttachmentSpec(
    agent=ObjectName("demo", "planner"),
    namespace=3,
    pid=7,
    listen=8080,
    command=("python", "agent.py", "--key", "marker-secret"),
    user=1000,
    allow_sockets=("/run/a.sock",),
    binds=("/data",),
    kept_variables=("OPENAI_API_KEY",),
    cgroup_id=9,
)
OPENED = {
    "program": "python",
    "arguments": 3,
    "pid": 7,
    "listen": 8080,
    "binds": ["/data"],
    "allowSockets": ["/run/a.sock"],
    "keptVariables": ["OPENAI_API_KEY"],
}


@pytest.mark.parametrize(("operation", "before", "after"), [("Start", {}, OPENED), ("Stop", OPENED, {})])
def test_a_run_is_recorded_with_what_was_opened_for_it(operation: str, before: dict[str, object], after: dict[str, object]) -> None:
    change = recording.run_change(operation, SPEC, 1_234_567_891)
    assert (change.operation, change.kind, change.name, change.who, change.time) == (operation, "Run", "demo/planner", "1000", 1_234_567)
    assert (change.before, change.after) == (before, after)
    assert records.table_of(change) == "changes"
    assert b"marker-secret" not in records.render(change)


def test_each_record_has_an_id_of_its_own() -> None:
    ids = {recording.run_change("Start", SPEC, 0).id for _ in range(10)}
    assert len(ids) == 10
    assert {len(found) for found in ids} == {32}
