"""CPU a check, by part: the real checker in this process, each part timed alone, medians of several thousand."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from authz import caller as callers
from authz import destination as destinations
from authz import operations, recording, state, wire
from authz.caller import ISSUER, VerificationKeys
from authz.check import Checker, Sources
from authz.decide import Hop, decide
from authz.request import CheckInput, Direction
from authz.server import Call
from authz.state import State, Workload
from authz.verdict import Verdict
from authz.workloads import HeldCredentials
from bench import checks
from bench.figures import Figure, percentile
from hopgate.audit.spool import Durability, Spool
from hopgate.identity.names import ObjectName
from hopgate.manifests import snapshots
from hopgate.policy.question import Entity, Question
from hopgate.resources.kinds import DialAddress
from hopgate.snapshot import Snapshot, Upstreams
from tokenmint import hop_token
from tokenmint.hop_token import RequestBinding
from tokenmint.keys import KeyRing
from tokenmint.replay import ReplayCache

ROUNDS = 3000
PLANNER = ObjectName("bench", "planner")
HELPER = ObjectName("bench", "helper")
CALL = Call(authorization=f"Bearer {checks.CREDENTIAL}", direction="outbound", seconds_left=lambda: None)


def timed(work: Callable[[], object], *, rounds: int = ROUNDS, pause: float = 0.0) -> str:
    """Median microseconds of `work`, after a warm-up; with a `pause` in seconds, other things use the caches between the rounds."""
    for _ in range(200):
        work()
    spent = []
    for _ in range(rounds):
        if pause:
            time.sleep(pause)
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
    workloads = HeldCredentials(
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
    hop = Hop(check=check, workload=PLANNER)
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
        Figure(what="workload by its credential", value=timed(lambda: workloads.identify(checks.CREDENTIAL, now))),
        Figure(what="decide, the whole", value=timed(lambda: decide(hop, snapshot, keys, now))),
        *_steps(check, verdict, snapshot, now),
        _mint(wire.decode(message, Direction.OUTBOUND), snapshot, ring, now),
        Figure(
            what="encode the answer",
            value=timed(lambda: wire.allow(dial=verdict.dial, set_headers=(), remove_headers=(), decision_id="0" * 32)),
        ),
        Figure(what="make the record", value=timed(record)),
        Figure(what="append it to the spool (Write)", value=timed(lambda: spool.append(made))),
        Figure(what="append it to the spool (Fsync)", value=timed(lambda: synced.append(made))),
        Figure(what="whole check, tool call (bytes to bytes, recorded)", value=timed(lambda: checker.check(tool, CALL))),
        Figure(what="whole check, tool call, one every 10 ms", value=timed(lambda: checker.check(tool, CALL), rounds=300, pause=0.01)),
        Figure(what="whole check, message to an agent (with a hop token)", value=timed(lambda: checker.check(message, CALL))),
    ]


def _steps(check: CheckInput, verdict: Verdict, snapshot: Snapshot, now: int) -> list[Figure]:
    """What `decide` is made of, each with what the ones before it found."""
    endpoint = destinations.find_outbound(check, snapshot)
    operation, http = verdict.operation, check.http
    if operation is None or http is None:
        raise RuntimeError("the measured check is no HTTP request")
    question = Question(
        principal=Entity("Agent", str(PLANNER)),
        action=operation.action,
        resource=operation.resource,
        server=operation.server,
        context=verdict.context or {},
        caller_namespace="bench",
        destination_namespace="bench",
    )
    return [
        Figure(what="  destination", value=timed(lambda: destinations.find_outbound(check, snapshot))),
        Figure(what="  caller", value=timed(lambda: callers.outbound(http, PLANNER, snapshot, VerificationKeys(), now))),
        Figure(what="  operation", value=timed(lambda: operations.extract(http, endpoint.destination))),
        Figure(what="  judge (Cedar, one policy of 20 applies)", value=timed(lambda: snapshot.policies.judge(question))),
        Figure(what="  address to dial", value=timed(lambda: destinations.find_dial(endpoint, http.unverified_host, snapshot, now))),
    ]


def _mint(check: CheckInput, snapshot: Snapshot, ring: KeyRing, now: int) -> Figure:
    """A hop token for a message to another agent: claims, binding and signature."""
    verdict = decide(Hop(check=check, workload=PLANNER), snapshot, VerificationKeys(), now)
    http, destination = check.http, verdict.destination
    if not verdict.mint or http is None or destination is None:
        raise RuntimeError(f"the measured message gets no token: {verdict.message}")

    def mint() -> object:
        claims = hop_token.next_claims(
            issuer=ISSUER,
            caller=PLANNER,
            chain=(),
            user=None,
            audience=destination,
            token_id=secrets.token_hex(16),
            transaction="0" * 32,
            now=now,
            binding=RequestBinding.of(http.method, http.unverified_host, http.path, http.body),
        )
        return hop_token.mint(ring.signing_key(now), claims)

    return Figure(what="mint a hop token (only towards an agent)", value=timed(mint))
