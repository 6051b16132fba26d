"""What a node's sensor tells Prometheus: the loader, the rings, what was seen and what could not be done.

Labels are sets that the code bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import hopgate
from hopgate.kubernetes.informers import Freshness
from sensor.state import Report

CONTENT_TYPE: Final = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4
_RINGS: Final = ("events", "payloads")
_COUNTED: Final = {
    "flows": "Connections of governed agents that were told.",
    "bypasses": "Those that went around the gate.",
    "evicted": "Sockets given up because there were too many.",
    "records_unwritten": "Records that the spool did not take.",
    "not_looked_at": "Events passed over because there were too many of nobody's here.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What there is to tell. `waiting` are shadow agents that are not told of yet, `unenforced` quarantines that are not in force."""

    report: Report
    ready: bool
    kinds: tuple[Freshness, ...]
    waiting: int
    unenforced: int


def families(moment: Moment) -> Iterator[Metric]:
    """All metrics."""
    report = moment.report
    yield _gauge(
        "info",
        "Always 1: the version, and by which loader the kernel's programs came.",
        {(hopgate.__version__, report.loader): 1},
        "version",
        "loader",
    )
    yield _gauge("ready", "Whether it knows who is on its node: 1 or 0.", {(): float(moment.ready)})
    yield _gauge("unseen", "Things that it can't see; its log names them.", {(): len(report.unseen)})
    yield _gauge("shadow_agents_waiting", "Shadow agents that the API server was not told of yet.", {(): moment.waiting})
    yield _gauge("quarantines_unenforced", "Quarantines that are asked for and not in force.", {(): moment.unenforced})
    ages: dict[tuple[str, ...], float] = {(kind.kind,): kind.age_seconds for kind in moment.kinds if kind.age_seconds is not None}
    yield _gauge("watch_age_seconds", "How long ago the API server was last heard of, by kind; up to a minute says nothing.", ages, "kind")
    yield _counter(
        "ring_attempts",
        "What the kernel's programs had to tell, by ring.",
        {(ring,): report.counters[f"{ring}.attempts"] for ring in _RINGS},
        "ring",
    )
    yield _counter("ring_lost", "What found no room, by ring.", {(ring,): report.counters[f"{ring}.lost"] for ring in _RINGS}, "ring")
    for name, meaning in _COUNTED.items():
        yield _counter(name, meaning, {(): report.counters[name]})


def render(moment: Moment) -> bytes:
    """Everything as text (Prometheus' text format 0.0.4)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(families(moment)))
    return prometheus_client.generate_latest(registry)


class _Once(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _gauge(name: str, meaning: str, values: Mapping[tuple[str, ...], float], *labels: str) -> Metric:
    family = GaugeMetricFamily(f"hopgate_sensor_{name}", meaning, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _counter(name: str, meaning: str, values: Mapping[tuple[str, ...], float], *labels: str) -> Metric:
    family = CounterMetricFamily(f"hopgate_sensor_{name}", meaning, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
