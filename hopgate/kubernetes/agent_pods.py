"""How many running pods each service account has, as watched, and when each agent was last decided about, as authz tells it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hopgate.identity.names import ObjectName
from hopgate.kubernetes import authz_state
from hopgate.kubernetes.api import Manifest, WatchedKind

# Namespace and name of a service account.
Account = tuple[str, str]


def running_as(manifest: Mapping[str, Any]) -> Account | None:
    """The service account of a pod that runs; None for one that doesn't, or is being deleted."""
    metadata, spec, status = manifest["metadata"], manifest.get("spec") or {}, manifest.get("status") or {}
    if status.get("phase") != "Running" or metadata.get("deletionTimestamp") is not None:
        return None
    return metadata["namespace"], spec.get("serviceAccountName") or "default"


class RunningPods:
    """A `Sink` for pods."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._accounts: dict[str, Account] = {}

    def counts(self) -> Mapping[Account, int]:
        """How many run now."""
        with self._lock:
            return Counter(self._accounts.values())

    def replace(self, _: WatchedKind, manifests: Sequence[Manifest]) -> None:
        """See `informers.Sink`."""
        found = {each["metadata"]["uid"]: account for each in manifests if (account := running_as(each)) is not None}
        with self._lock:
            self._accounts = found
        self._changed()

    def put(self, manifest: Manifest) -> None:
        """See `informers.Sink`."""
        self._set(manifest["metadata"]["uid"], running_as(manifest))

    def remove(self, manifest: Manifest) -> None:
        """See `informers.Sink`."""
        self._set(manifest["metadata"]["uid"], None)

    def _set(self, uid: str, account: Account | None) -> None:
        with self._lock:
            before = self._accounts.pop(uid, None)
            if account is not None:
                self._accounts[uid] = account
        if before != account:
            self._changed()


class LastSeen:
    """A `Sink` for the Leases of authz' processes. Nobody is woken by them: what they tell is looked at from time to time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: dict[str, Mapping[ObjectName, int]] = {}

    def latest(self) -> dict[ObjectName, int]:
        """The last decision about each agent, of all processes (Unix seconds)."""
        with self._lock:
            told = list(self._told.values())
        latest: dict[ObjectName, int] = {}
        for each in told:
            for agent, at in each.items():
                latest[agent] = max(at, latest.get(agent, 0))
        return latest

    def replace(self, _: WatchedKind, manifests: Sequence[Manifest]) -> None:
        """See `informers.Sink`."""
        told = {each["metadata"]["name"]: _read(each) for each in manifests}
        with self._lock:
            self._told = told

    def put(self, manifest: Manifest) -> None:
        """See `informers.Sink`."""
        told = _read(manifest)
        with self._lock:
            self._told[manifest["metadata"]["name"]] = told

    def remove(self, manifest: Manifest) -> None:
        """See `informers.Sink`."""
        with self._lock:
            self._told.pop(manifest["metadata"]["name"], None)


def _read(lease: Manifest) -> Mapping[ObjectName, int]:
    return authz_state.read_last_seen(lease["metadata"].get("annotations") or {})
