"""CPU a check, by part: the real checker in this process, each part timed alone, medians of several thousand."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from authz import recording, state, wire
from authz.caller import VerificationKeys
from authz.check import Checker, Sources
from authz.decide import Hop, decide
from authz.request import Direction
from authz.server import Call
from authz.state import State, Workload, Workloads
from bench import checks
from bench.figures import Figure, percentile
from hopgate.audit.spool import Durability, Spool
from hopgate.identity.names import ObjectName
from hopgate.manifests import snapshots
from hopgate.resources.kinds import DialAddress
from hopgate.snapshot import Upstreams
from tokenmint.keys import KeyRing
from tokenmint.replay import ReplayCache

ROUNDS = 3000
HELPER = ObjectName("bench", "helper")
CALL = Call(authorization=f"Bearer {checks.CREDENTIAL}", direction="outbound", seconds_left=lambda: None)


def timed(work: Callable[[], object]) -> str:
    """Median microseconds of `work`, after a warm-up."""
    for _ in range(200):
        work()
    spent = []
    for _ in range(ROUNDS):
        started = time.perf_counter_ns()
        work()
        spent.append((time.perf_counter_ns() - started) / 1000)
    return f"{percentile(spent, 0.5):.1f} us"


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        return _measure(Path(name))


def _measure(folder: Path) -> list[Figure]:
    snapshot = snapshots.load(checks.write_manifests(folder / "resources"), previous=None, now=int(time.time()))
    snapshot = replace(snapshot, upstreams=Upstreams(gates={HELPER: DialAddress(ip="127.0.0.1", port=4000)}))
    workloads = Workloads(
        State(sequence=1, workloads=(Workload(credential_sha256=state.credential_sha256(checks.CREDENTIAL), agent="bench/planner"),))
    )
    spool = Spool(folder / "spool", "bench", clock=time.time, durability=Durability.WRITE)
    synced = Spool(folder / "synced", "bench", clock=time.time, durability=Durability.FSYNC)
    sources = Sources(
        snapshot=lambda: snapshot,
        workloads=lambda: workloads,
        wall_ns=time.time_ns,
        monotonic_ns=time.monotonic_ns,
        new_id=lambda: secrets.token_hex(16),
    )
    ring = KeyRing.create(int(time.time()))
    checker = Checker(sources, ring, ReplayCache(), spool.append)
    tickets = snapshot.registry.by_host["tickets.bench.svc"]
    helper = snapshot.registry.by_host["helper.bench.svc"]
    tool = checks.request("tickets.bench.svc", 80, tickets.address, checks.CALL)
    message = checks.request("helper.bench.svc:8080", 8080, helper.address, checks.MESSAGE, "/")
    check = wire.decode(tool, Direction.OUTBOUND)
    hop = Hop(check=check, workload=ObjectName("bench", "planner"))
    keys, now = VerificationKeys(), int(time.time())
    verdict = decide(hop, snapshot, keys, now)
    if not verdict.allowed:
        raise RuntimeError(f"the measured check is denied: {verdict.message}")

    def record() -> object:
        return recording.decision(
            decision_id="0" * 32, wall_ns=1, latency_ns=1, check=check, verdict=verdict, minted_token_id=None, snapshot=snapshot
        )

    made = recording.decision(
        decision_id="0" * 32, wall_ns=1, latency_ns=1, check=check, verdict=verdict, minted_token_id=None, snapshot=snapshot
    )
    return [
        Figure(what="decode the CheckRequest", value=timed(lambda: wire.decode(tool, Direction.OUTBOUND))),
        Figure(what="decide: caller, destination, operation, Cedar", value=timed(lambda: decide(hop, snapshot, keys, now))),
        Figure(
            what="encode the answer",
            value=timed(lambda: wire.allow(dial=verdict.dial, set_headers=(), remove_headers=(), decision_id="0" * 32)),
        ),
        Figure(what="make the record", value=timed(record)),
        Figure(what="append it to the spool (Write)", value=timed(lambda: spool.append(made))),
        Figure(what="append it to the spool (Fsync)", value=timed(lambda: synced.append(made))),
        Figure(what="whole check, tool call (bytes to bytes, recorded)", value=timed(lambda: checker.check(tool, CALL))),
        Figure(what="whole check, message to an agent (with a hop token)", value=timed(lambda: checker.check(message, CALL))),
    ]
