"""Recorded decisions judged again: how many a second one core manages, over segments as a gate writes them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

from authz import recording, wire
from authz.caller import VerificationKeys
from authz.decide import Hop, decide
from authz.request import Direction
from bench import checks
from bench.figures import Figure, percentile
from hopgate.audit import replay
from hopgate.audit.spool import Durability, Spool
from hopgate.identity.names import ObjectName
from hopgate.manifests import snapshots

DECISIONS = 100_000
ROUNDS = 5
# The bench's policy permits a limit up to this.
PERMITTED_LIMIT = 100


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        return _measure(Path(name))


def _measure(folder: Path) -> list[Figure]:
    now = int(time.time())
    snapshot = snapshots.load(checks.write_manifests(folder / "resources"), previous=None, now=now)
    tickets = snapshot.registry.by_host["tickets.bench.svc"]
    check = wire.decode(checks.request("tickets.bench.svc", 80, tickets.address, checks.CALL), Direction.OUTBOUND)
    verdict = decide(Hop(check=check, workload=ObjectName("bench", "planner")), snapshot, VerificationKeys(), now)
    made = recording.decision(
        decision_id="0" * 32, wall_ns=1, latency_ns=1, check=check, verdict=verdict, minted_token_id=None, snapshot=snapshot
    )
    spool = Spool(folder / "spool", "bench", clock=time.time, durability=Durability.WRITE)
    arguments = cast("Mapping[str, object]", made.context["arguments"])
    for number in range(DECISIONS):
        limit = number % (2 * PERMITTED_LIMIT) + 1
        reason = "Permitted" if limit <= PERMITTED_LIMIT else "NoPermit"
        context = {**made.context, "arguments": {**arguments, "limit": limit}}
        spool.append(replace(made, id=f"{number:032x}", time=made.time + number, reason=reason, context=context))
    spool.close()
    rates = []
    for _ in range(ROUNDS):
        started = time.process_time()
        found = replay.replay(folder / "spool", snapshot.policies)
        rates.append(DECISIONS / (time.process_time() - started))
        if (found.judged, found.changed) != (DECISIONS, 0):
            raise RuntimeError(f"expected {DECISIONS} judged as they were, got {found.judged}, {found.changed} of them otherwise")
    return [
        Figure(
            what="decisions judged again, a second of CPU (tool call, 20 policies)",
            value=f"{min(rates):.0f} / {percentile(rates, 0.5):.0f} / {max(rates):.0f}",
            target="at least 10,000",
        )
    ]
