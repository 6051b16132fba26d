"""The metrics of a node's sensor, and that their page names each."""

from __future__ import annotations

from pathlib import Path

from hopgate.kubernetes.informers import Freshness
from sensor import node_metrics
from sensor.node_metrics import Moment
from sensor.state import Report

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
COUNTERS = {"flows": 5, "bypasses": 2, "evicted": 0, "records_unwritten": 0, "not_looked_at": 7, "events": 9}
RINGS = {"events.attempts": 11, "events.lost": 3, "payloads.attempts": 4, "payloads.lost": 0}
MOMENT = Moment(
    report=Report(loader="CO-RE", why="", unseen=("packet_socket: not attached",), counters={**COUNTERS, **RINGS}),
    ready=True,
    kinds=(
        Freshness(kind="Pod", synced=True, age_seconds=2.5, failures=0, error=None),
        Freshness(kind="Agent", synced=False, age_seconds=None, failures=1, error="away"),
    ),
    waiting=1,
    unenforced=2,
)


def test_each_value_is_told() -> None:
    text = node_metrics.render(MOMENT).decode()
    for line in (
        "hopgate_sensor_ready 1.0",
        "hopgate_sensor_unseen 1.0",
        "hopgate_sensor_shadow_agents_waiting 1.0",
        "hopgate_sensor_quarantines_unenforced 2.0",
        'hopgate_sensor_watch_age_seconds{kind="Pod"} 2.5',
        'hopgate_sensor_ring_attempts_total{ring="events"} 11.0',
        'hopgate_sensor_ring_lost_total{ring="events"} 3.0',
        "hopgate_sensor_flows_total 5.0",
        "hopgate_sensor_bypasses_total 2.0",
        "hopgate_sensor_not_looked_at_total 7.0",
    ):
        assert line in text.splitlines()
    assert 'kind="Agent"' not in text


def test_the_page_has_each_with_its_meaning() -> None:
    rows = [line.split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `hopgate_sensor_")]
    page = {row[0].strip("| `"): (row[1], row[-1].rstrip(" |")) for row in rows}
    made = {
        family.name + ("_total" if family.type == "counter" else ""): (family.type, family.documentation)
        for family in node_metrics.families(MOMENT)
    }
    assert page == made
