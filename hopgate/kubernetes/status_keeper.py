"""Keeps `status` of all objects as it should be: looks at everything, writes what differs, and nothing else.

One pass compares what is in force with what stands there, so nothing is lost: a write that failed differs still at the next pass. Each
write is of the version that was looked at: one that a former leader sends late is refused if the object has changed since. Whoever comes to
lead lists all objects first, so that it knows what was written before.
"""

from __future__ import annotations

import http
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol

from hopgate.identity.names import ObjectName
from hopgate.kubernetes import allocation, api, statuses
from hopgate.kubernetes.access import Calls
from hopgate.kubernetes.agent_pods import Account
from hopgate.kubernetes.announcements import Announcement
from hopgate.kubernetes.api import ClientError, RefusedError, Source, WatchedKind
from hopgate.kubernetes.problems import Problem
from hopgate.kubernetes.snapshots import Built
from hopgate.kubernetes.status_store import StatusStore, Stored
from hopgate.kubernetes.statuses import Verdict
from hopgate.resources.kinds import GROUP, VERSION, Agent
from hopgate.resources.reference import ObjectReference

KINDS: Final[Mapping[str, WatchedKind]] = {
    each.kind: each
    for each in (api.AGENTS, api.TOOL_SERVERS, api.MODEL_PROVIDERS, api.POLICIES, api.CLUSTER_POLICIES, api.IDENTITY_PROVIDERS)
}
# Counts of pods, which come and go in numbers, are merged over this time for each agent.
VOLATILE_SECONDS: Final = 2.0
# Requests at once: a thousand statuses in seconds, and a small share of what an API server takes at once.
_WRITERS: Final = 4
# An object whose status was refused is tried again after this.
REFUSED_SECONDS: Final = 10.0

_log = logging.getLogger(__name__)


class Connection(Calls, Source, Protocol):
    """What is needed of the API server's client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was seen at one moment. `pods` counts those that run, by service account; `last_seen` in Unix seconds."""

    built: Built
    stored: Mapping[ObjectReference, Stored]
    pods: Mapping[Account, int]
    last_seen: Mapping[ObjectName, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One status to write: `planned` is merged into it, over what `stored` has; `told` are the addresses that could not stay."""

    stored: Stored
    verdict: Verdict
    planned: Mapping[str, Any]
    told: tuple[str, ...]


def plan(facts: Facts, own: allocation.Given, now: float) -> tuple[list[Write], allocation.Given]:
    """All that is to be written now (Unix seconds), and the addresses of all names. `own` are those that were given here before.

    An object that has changed since the snapshot is left for the next one.
    """
    built = facts.built
    stands = {own_reference: stored.addresses for own_reference, stored in facts.stored.items()}
    given = allocation.allocate(built.objects, built.forms, stands, own)
    problems: dict[ObjectReference, list[Problem]] = {}
    for problem in built.problems:
        problems.setdefault(problem.reference, []).append(problem)
    writes: list[Write] = []
    for own_reference, stored in facts.stored.items():
        found = built.objects.get(own_reference)
        if found is None or (found.uid, found.generation) != (stored.uid, stored.generation):
            continue
        verdict = statuses.judge(found, problems.get(own_reference, []))
        addresses = given.by_object.get(own_reference)
        fields = _fields(facts, stored, addresses, now)
        planned = statuses.plan(stored.status, verdict, fields, now)
        if planned:
            told = tuple(
                allocation.repair(name, before, addresses[name])
                for name, before in stored.addresses.items()
                if addresses is not None and name in addresses and addresses[name] != before
            )
            writes.append(Write(stored=stored, verdict=verdict, planned=planned, told=told))
    return writes, given.by_name


def _fields(facts: Facts, stored: Stored, addresses: allocation.Given | None, now: float) -> dict[str, Any]:
    form = facts.built.forms.get(stored.reference)
    fields: dict[str, Any] = {}
    if addresses is not None:
        fields["addresses"] = statuses.address_entries(addresses)
    if stored.reference.kind in {"Policy", "ClusterPolicy"}:
        fields["digest"] = statuses.digest(form)
    if stored.reference.kind == "Agent":
        agent = form.resource if form is not None and isinstance(form.resource, Agent) else None
        fields["pods"] = 0 if agent is None else facts.pods.get((agent.name.namespace, agent.service_account_name), 0)
        told = None if agent is None else facts.last_seen.get(agent.name)
        fields["lastSeen"] = statuses.last_seen(stored.status, told, now)
    return fields


def path(reference: ObjectReference) -> str:
    """Where the API server has the object."""
    inside = "" if reference.namespace is None else f"/namespaces/{reference.namespace}"
    return f"/apis/{GROUP}/{VERSION}{inside}/{KINDS[reference.kind].plural}/{reference.name}"


def announcements(write: Write) -> list[Announcement]:
    """What a person must know of a status that was written."""
    stored, verdict = write.stored, write.verdict
    before = statuses.condition(stored.status, verdict.type)
    was = None if before is None else (before.get("status"), before.get("reason"))
    told = [_tell(stored, "Allocate", "AddressRepaired", note, warning=True) for note in write.told]
    if verdict.status == "False" and was != ("False", verdict.reason):
        told.append(_tell(stored, "Judge", verdict.reason, verdict.message, warning=True))
    if verdict.status == "True" and was is not None and was[0] != "True":
        told.append(_tell(stored, "Judge", verdict.reason, verdict.message, warning=False))
    return told


def _tell(stored: Stored, action: str, reason: str, note: str, *, warning: bool) -> Announcement:
    return Announcement(reference=stored.reference, uid=stored.uid, action=action, reason=reason, note=note, warning=warning)


class StatusKeeper:
    """Looks and writes, by one thread's `step`."""

    def __init__(
        self,
        connection: Connection,
        store: StatusStore,
        *,
        leads: Callable[[], bool],
        tell: Callable[[Announcement], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """`clock` is monotonic, `wall` gives Unix seconds."""
        self._connection = connection
        self._store = store
        self._leads, self._tell = leads, tell
        self._clock, self._wall = clock, wall
        self._given: allocation.Given = {}
        self._written_at: dict[str, float] = {}
        self._refused_at: dict[str, float] = {}
        self._telling = threading.Lock()
        self._workers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="status")
        self.written = 0

    def close(self) -> None:
        """End what is under way."""
        self._workers.shutdown(cancel_futures=True)

    def prepare(self) -> None:
        """See all objects as they are at the API server now, and forget what was given before; first in each term. Raises ClientError."""
        for kind in KINDS.values():
            for manifest in self._connection.list(kind).items:
                self._store.put(manifest)
        self._given = {}

    def step(self, built: Built, pods: Mapping[Account, int], last_seen: Mapping[ObjectName, int]) -> float | None:
        """Write all that differs. Gives the seconds after which to look again, if not only at a change."""
        facts = Facts(built=built, stored=self._store.look(), pods=pods, last_seen=last_seen)
        writes, self._given = plan(facts, self._given, self._wall())
        now = self._clock()
        due = [(write, self._due(write, now)) for write in writes]
        failed = sum(not done for done in self._workers.map(self._write, [write for write, wait in due if wait <= 0]))
        waits = [wait for _, wait in due if wait > 0]
        self._forget(facts.stored)
        return min([*waits, *([VOLATILE_SECONDS] if failed else [])], default=None)

    def _due(self, write: Write, now: float) -> float:
        """In how many seconds this may be written."""
        uid = write.stored.uid
        wait = self._refused_at.get(uid, -REFUSED_SECONDS) + REFUSED_SECONDS - now if uid in self._refused_at else 0.0
        if statuses.is_volatile(write.planned) and uid in self._written_at:
            wait = max(wait, self._written_at[uid] + VOLATILE_SECONDS - now)
        return wait

    def _write(self, write: Write) -> bool:
        """Whether there is nothing to do again for this."""
        stored = write.stored
        if not self._leads():
            return False
        body = {"metadata": {"resourceVersion": stored.version, "uid": stored.uid}, "status": dict(write.planned)}
        try:
            answer = self._connection.call("PATCH", f"{path(stored.reference)}/status", body, content_type="application/merge-patch+json")
        except RefusedError as refused:
            return self._refused(stored, refused)
        except ClientError as error:
            _log.warning("the status of %s could not be written: %s (%s)", stored.reference, error, error.code)
            return False
        self._refused_at.pop(stored.uid, None)
        self._written_at[stored.uid] = self._clock()
        self.written += 1
        self._store.answered(answer)
        with self._telling:
            for told in announcements(write):
                self._tell(told)
        return True

    def _refused(self, stored: Stored, refused: RefusedError) -> bool:
        if refused.status == http.HTTPStatus.NOT_FOUND:
            # The watch tells of its end.
            return True
        if refused.status != http.HTTPStatus.CONFLICT:
            _log.warning("the status of %s was refused: %s (%s)", stored.reference, refused, refused.code)
            self._refused_at[stored.uid] = self._clock()
            return False
        try:
            self._store.answered(self._connection.call("GET", path(stored.reference)))
        except RefusedError as again:
            return again.status == http.HTTPStatus.NOT_FOUND
        except ClientError:
            return False
        return True

    def _forget(self, stored: Mapping[ObjectReference, Stored]) -> None:
        there = {each.uid for each in stored.values()}
        for noted in (self._written_at, self._refused_at):
            for uid in noted.keys() - there:
                del noted[uid]
