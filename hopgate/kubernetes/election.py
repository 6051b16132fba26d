"""One leader among several processes, by a Lease (coordination.k8s.io/v1).

Times in the Lease are for people and are compared with no clock: clocks differ between machines. A process takes a Lease over that it has
watched for `LEASE_SECONDS` of its own time without a change, and takes itself for the leader for `RENEW_SECONDS` after it began a renewal
that succeeded. The second is shorter than the first, so the former leader has stopped before the next one begins, whatever their clocks
say, as long as both count seconds alike. The clock must go on while the machine sleeps.

The client's own election is not used: it goes by the wall clock, has no timeout on a renewal, and cannot end what it started.
A process can still be halted between asking "do I lead?" and its next request, so each write says which version it is of.
"""

from __future__ import annotations

import datetime as dt
import http
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hopgate.kubernetes.access import Calls
from hopgate.kubernetes.api import Manifest, RefusedError

# As in the cluster's own controllers (k8s.io/component-base, LeaderElectionConfiguration).
LEASE_SECONDS: Final = 15
RENEW_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A version of the Lease, and when it was first seen (seconds of the own clock)."""

    version: str
    since: float


def see(before: Sighting | None, lease: Manifest, now: float) -> Sighting:
    """What is known of the Lease as it is now."""
    version = str(lease["metadata"]["resourceVersion"])
    return before if before is not None and before.version == version else Sighting(version, now)


def is_free(lease: Manifest, sighting: Sighting, identity: str, now: float) -> bool:
    """Whether this process may write itself into the Lease: it is its own, nobody's, or was abandoned."""
    holder = _spec(lease).get("holderIdentity")
    return not holder or holder == identity or now - sighting.since >= LEASE_SECONDS


def fresh(namespace: str, name: str, identity: str, wall: float) -> dict[str, Any]:
    """The first Lease. `wall` in Unix seconds."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": namespace},
        "spec": _held(identity, _time(wall), _time(wall), 0),
    }


def taken(lease: Manifest, identity: str, wall: float) -> dict[str, Any]:
    """The Lease, held or renewed by `identity`; it is written as the version that was read."""
    spec = _spec(lease)
    transitions = spec.get("leaseTransitions")
    count = transitions if isinstance(transitions, int) else 0
    if spec.get("holderIdentity") == identity:
        return {**lease, "spec": _held(identity, spec.get("acquireTime") or _time(wall), _time(wall), count)}
    return {**lease, "spec": _held(identity, _time(wall), _time(wall), count + 1)}


def released(lease: Manifest, wall: float) -> dict[str, Any]:
    """The Lease, nobody's."""
    return {**lease, "spec": {**_spec(lease), "holderIdentity": "", "renewTime": _time(wall)}}


def _spec(lease: Manifest) -> Manifest:
    spec = lease.get("spec")
    return spec if isinstance(spec, dict) else {}


def _held(identity: str, acquired: str, renewed: str, transitions: int) -> dict[str, Any]:
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": LEASE_SECONDS,
        "acquireTime": acquired,
        "renewTime": renewed,
        "leaseTransitions": transitions,
    }


def _time(wall: float) -> str:
    return dt.datetime.fromtimestamp(wall, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Candidate:
    """One process that may lead. `step` every `RETRY_SECONDS`; `leads` before each thing that only a leader does.

    `term` counts how often it came to lead: between two, another may have.
    """

    def __init__(
        self, calls: Calls, *, namespace: str, name: str, identity: str, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        """`identity` is of this process alone. `clock` gives seconds and goes on while the machine sleeps; `wall` gives Unix seconds."""
        self._calls = calls
        self._namespace, self._name, self._identity = namespace, name, identity
        self._clock, self._wall = clock, wall
        self._leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._sighting: Sighting | None = None
        self._held: Manifest | None = None
        self._leads_until = float("-inf")
        self._resigned = threading.Event()
        self.term = 0

    def leads(self) -> bool:
        """Whether this process is the leader now."""
        return not self._resigned.is_set() and self._clock() < self._leads_until

    def step(self) -> None:
        """Look at the Lease and take or renew it if it is to be had. Raises ClientError."""
        began = self._clock()
        written = self._write()
        if written is None:
            self._held, self._leads_until = None, float("-inf")
            return
        if not self._clock() < self._leads_until:
            self.term += 1
        self._held = written
        self._sighting = see(self._sighting, written, self._clock())
        self._leads_until = began + RENEW_SECONDS

    def resign(self) -> None:
        """Lead no more, and give the Lease up if it is held. Raises ClientError: then it ends by itself."""
        self._resigned.set()
        if self._held is not None:
            held, self._held = self._held, None
            self._calls.call("PUT", f"{self._leases}/{self._name}", released(held, self._wall()))

    def _write(self) -> Manifest | None:
        """The Lease that this process holds from now on; None when it is another's."""
        try:
            lease = self._calls.call("GET", f"{self._leases}/{self._name}")
        except RefusedError as refused:
            if refused.status != http.HTTPStatus.NOT_FOUND:
                raise
            return self._put("POST", self._leases, fresh(self._namespace, self._name, self._identity, self._wall()))
        now = self._clock()
        self._sighting = see(self._sighting, lease, now)
        if not is_free(lease, self._sighting, self._identity, now):
            return None
        return self._put("PUT", f"{self._leases}/{self._name}", taken(lease, self._identity, self._wall()))

    def _put(self, method: str, path: str, lease: Manifest) -> Manifest | None:
        try:
            return self._calls.call(method, path, lease)
        except RefusedError as refused:
            if refused.status == http.HTTPStatus.CONFLICT:
                return None
            raise
