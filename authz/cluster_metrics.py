"""An authz process of a cluster as metrics: its counters and ages at one moment. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import hopgate
from authz import check, metrics
from authz.check import Checker
from authz.cluster_state import ClusterState
from authz.metrics import Buckets, Labels, Observed
from authz.open_tls import OpenTls
from authz.verdict import Reason
from authz.workloads_cluster import ClusterWorkloads
from hopgate.audit.spool import Written
from hopgate.kubernetes.informers import Freshness
from hopgate.kubernetes.watcher import WatchState

# Counted under names of their own beside the codes of what was refused.
_GENUINE = ("remembered", "verified")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What a process is made of, and when. Times are Unix seconds; None: not yet."""

    now: float
    started_at: float
    ready: bool
    checker: Checker
    state: ClusterState
    workloads: ClusterWorkloads
    kinds: tuple[Freshness, ...]
    resources: WatchState | None
    jwks_read_at: float | None
    certificate_ends_at: int
    key_made_at: int
    open_tls: OpenTls | None
    written: Written
    resolver: Mapping[str, int]


def observe(moment: Moment) -> Observed:
    """The values of every metric that has one."""
    state, now = moment.state, moment.now
    snapshot_at = state.snapshot_at
    return {
        metrics.INFO: {(hopgate.__version__,): 1},
        metrics.STARTED: _one(moment.started_at),
        metrics.READY: _one(float(moment.ready)),
        **_of_checks(moment.checker),
        **_of_tokens(moment.workloads),
        metrics.SNAPSHOT_AGE: {} if snapshot_at is None else _one(max(0.0, now - snapshot_at)),
        metrics.WATCH_AGE: {(kind.kind,): kind.age_seconds for kind in moment.kinds if kind.age_seconds is not None},
        metrics.WATCH_FAILURES: {(kind.kind,): kind.failures for kind in moment.kinds},
        **({} if moment.resources is None else _of_building(moment.resources)),
        metrics.PODS: _one(len(state.pods.index or ())),
        metrics.AGENTS: _one(0 if snapshot_at is None else len(state.snapshot.registry.agents)),
        metrics.PROCESSES: _one(len(state.published())),
        metrics.JWKS_AGE: {} if moment.jwks_read_at is None else _one(max(0.0, now - moment.jwks_read_at)),
        metrics.CERTIFICATE_ENDS: _one(moment.certificate_ends_at),
        metrics.KEY_AGE: _one(max(0.0, now - moment.key_made_at)),
        metrics.STREAMS: {} if moment.open_tls is None else _one(moment.open_tls.streams),
        metrics.CA_ENDS: {} if moment.open_tls is None else _one(moment.open_tls.ca_ends_at),
        metrics.SPOOL_BYTES: _one(moment.written.bytes),
        metrics.SPOOL_ERRORS: _one(moment.written.errors),
        metrics.NAMES: _labelled(moment.resolver),
    }


def _of_checks(checker: Checker) -> Observed:
    counters = checker.counters
    decisions: dict[Labels, float] = {
        ("Allow" if reason is Reason.PERMITTED else "Deny", reason.value): counters.reasons.get(reason.value, 0) for reason in Reason
    }
    replays = {name.removeprefix("replay."): count for name, count in checker.replay_counters().items()}
    return {
        metrics.DECISIONS: decisions,
        metrics.SECONDS: Buckets(
            bounds=tuple(bound / 1e9 for bound in check.LATENCY_BOUNDS_NS),
            counts=tuple(counters.latencies),
            total=counters.latency_ns / 1e9,
        ),
        metrics.FAILED_OPEN: _one(counters.allowed_on_failure),
        metrics.REPLAYS: _labelled(replays),
    }


def _of_tokens(workloads: ClusterWorkloads) -> Observed:
    counters = workloads.counters
    return {
        metrics.TOKENS: _labelled({name: counters[name] for name in _GENUINE}),
        metrics.TOKENS_REFUSED: _labelled({code: count for code, count in counters.items() if code not in _GENUINE}),
        metrics.TOKENS_KEPT: _one(len(workloads)),
    }


def _of_building(resources: WatchState) -> Observed:
    problems: Counter[Labels] = Counter((problem.reference.kind, problem.kept.value) for problem in resources.problems)
    return {
        metrics.BUILDS: _one(resources.builds),
        metrics.BUILD_FAILURES: _one(resources.failures),
        metrics.BUILD_SECONDS: _one(resources.build_seconds),
        metrics.PROBLEMS: dict(problems),
    }


def _one(value: float) -> Mapping[Labels, float]:
    return {(): value}


def _labelled(values: Mapping[str, int]) -> Mapping[Labels, float]:
    return {(name,): value for name, value in values.items()}
