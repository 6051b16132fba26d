"""What an authz process of a cluster tells Prometheus: read from its counters when somebody asks, so a check pays nothing for it.

The one module that knows `prometheus_client`. Labels are reason codes, kinds and outcomes: sets that the code bounds. No agent, user,
host or object is one, since whoever may read metrics may not read records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_PREFIX: Final = "hopgate_authz_"
CONTENT_TYPE: Final = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4


class Type(StrEnum):
    """Prometheus' own kinds of metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One metric: its name without the prefix, as it is asked for in a query."""

    name: str
    type: Type
    labels: tuple[str, ...] = ()
    meaning: str

    @property
    def full_name(self) -> str:
        """The name in a query."""
        return _PREFIX + self.name


def _counter(name: str, meaning: str, *labels: str) -> Described:
    return Described(name=name, type=Type.COUNTER, labels=labels, meaning=meaning)


def _gauge(name: str, meaning: str, *labels: str) -> Described:
    return Described(name=name, type=Type.GAUGE, labels=labels, meaning=meaning)


INFO: Final = _gauge("info", "Always 1; `version` is this process's.", "version")
STARTED: Final = _gauge("start_time_seconds", "When the process started, Unix seconds.")
READY: Final = _gauge("ready", "Whether checks are led here: 1 or 0.")
DECISIONS: Final = _counter(
    "decisions_total", "Decisions. `reason` is the code of the record; `Permitted` alone allows.", "verdict", "reason"
)
SECONDS: Final = Described(
    name="decision_seconds", type=Type.HISTOGRAM, meaning="How long decisions took, from the check's bytes to the record."
)
FAILED_OPEN: Final = _counter("failed_open_total", "Hops that passed although something had failed. Always 0: anything else is a defect.")
REPLAYS: Final = _counter("hop_tokens_refused_total", "Hop tokens that the memory of used ones refused.", "cause")
TOKENS: Final = _counter("workload_tokens_total", "Tokens of workloads that were genuine: `verified` now or `remembered`.", "outcome")
TOKENS_REFUSED: Final = _counter("workload_tokens_refused_total", "Credentials of workloads that were refused, by code.", "code")
TOKENS_KEPT: Final = _gauge("workload_tokens_remembered", "Genuine tokens in memory.")
SNAPSHOT_AGE: Final = _gauge("snapshot_age_seconds", "Since the snapshot in force was built. It is built when something changes.")
WATCH_AGE: Final = _gauge(
    "watch_age_seconds", "Since the API server was last heard of for a kind. A quiet kind is heard of each minute.", "kind"
)
WATCH_FAILURES: Final = _gauge("watch_failures", "Failures of a kind's watch in a row; 0 when it runs.", "kind")
BUILDS: Final = _counter("snapshot_builds_total", "Snapshots built.")
BUILD_FAILURES: Final = _counter("snapshot_build_failures_total", "Snapshots that a defect ended; the one before stays in force.")
BUILD_SECONDS: Final = _gauge("snapshot_build_seconds", "How long the last snapshot took to build.")
PROBLEMS: Final = _gauge("resource_problems", "Mistakes in resources; `in_force` says what of the object is.", "kind", "in_force")
PODS: Final = _gauge("pods", "Pods known.")
AGENTS: Final = _gauge("agents", "Agents registered.")
PROCESSES: Final = _gauge("processes", "authz processes whose keys count, this one among them.")
JWKS_AGE: Final = _gauge("api_server_keys_age_seconds", "Since the keys of service accounts' tokens were read.")
CERTIFICATE_ENDS: Final = _gauge("certificate_not_after_seconds", "When the certificate that sidecars are shown ends, Unix seconds.")
KEY_AGE: Final = _gauge("signing_key_age_seconds", "Since the key of hop tokens began to sign. It is replaced after 12 hours.")
STREAMS: Final = _gauge("certificate_streams", "Streams of certificates of opened TLS that are open; each is one name of one sidecar.")
CA_ENDS: Final = _gauge("open_tls_ca_not_after_seconds", "When the CA of opened TLS ends, Unix seconds; absent where no TLS is opened.")
SPOOL_BYTES: Final = _counter("spool_bytes_total", "Bytes of records written.")
SPOOL_ERRORS: Final = _counter("spool_errors_total", "Records that could not be written; each of them denied its hop.")
NAMES: Final = _counter("resolver_messages_total", "Messages to the resolver, by how they ended.", "outcome")

METRICS: Final = (
    INFO,
    STARTED,
    READY,
    DECISIONS,
    SECONDS,
    FAILED_OPEN,
    REPLAYS,
    TOKENS,
    TOKENS_REFUSED,
    TOKENS_KEPT,
    SNAPSHOT_AGE,
    WATCH_AGE,
    WATCH_FAILURES,
    BUILDS,
    BUILD_FAILURES,
    BUILD_SECONDS,
    PROBLEMS,
    PODS,
    AGENTS,
    PROCESSES,
    JWKS_AGE,
    CERTIFICATE_ENDS,
    KEY_AGE,
    STREAMS,
    CA_ENDS,
    SPOOL_BYTES,
    SPOOL_ERRORS,
    NAMES,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """A distribution: how many values were at most each bound and above the one before, the last for all others; and their sum."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


Labels = tuple[str, ...]
# The values of one metric by the values of its labels, in the order of `Described.labels`.
Values = Mapping[Labels, float] | Buckets
Observed = Mapping[Described, Values]


def render(registry: CollectorRegistry) -> bytes:
    """Everything as text (Prometheus' text format 0.0.4)."""
    return prometheus_client.generate_latest(registry)


def registry_of(observe: Callable[[], Observed]) -> CollectorRegistry:
    """A registry that asks `observe` each time it is read, with the process's own memory and processor time."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Observing(observe))
    ProcessCollector(registry=registry)
    return registry


class _Observing(Collector):
    def __init__(self, observe: Callable[[], Observed]) -> None:
        self._observe = observe

    def collect(self) -> Iterable[Metric]:
        observed = self._observe()
        for described in METRICS:
            values = observed.get(described)
            if values is not None:
                yield _family(described, values)


def _family(described: Described, values: Values) -> Metric:
    if isinstance(values, Buckets):
        return HistogramMetricFamily(described.full_name, described.meaning, buckets=list(_cumulative(values)), sum_value=values.total)
    kind = CounterMetricFamily if described.type is Type.COUNTER else GaugeMetricFamily
    family = kind(described.full_name, described.meaning, labels=described.labels)
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family


def _cumulative(values: Buckets) -> Iterator[tuple[str, float]]:
    reached = 0
    for bound, count in zip((*(repr(bound) for bound in values.bounds), "+Inf"), values.counts, strict=True):
        reached += count
        yield bound, reached
