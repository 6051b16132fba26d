"""The validating webhook at work: a question, what is in force, who has which right, and the record of what was accepted.

A refusal that comes of other objects is looked at again against a list made just then: `kubectl apply` of several files asks about a
policy before the watch has brought the tool server that was applied a moment earlier. What an object claims that it did not claim
before is looked at again too, before it is accepted (`new_claims`).
"""

from __future__ import annotations

import http
import logging
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from hopgate.audit.errors import SpoolError
from hopgate.audit.records import Change
from hopgate.kubernetes import api, validation
from hopgate.kubernetes.access import Calls
from hopgate.kubernetes.admission import AdmissionRequest, Allowed, Operation, Refused, Verdict
from hopgate.kubernetes.api import ClientError, Manifest, Source
from hopgate.kubernetes.new_claims import NewClaims
from hopgate.kubernetes.validation import MayAccess, Mistake, World
from hopgate.resources.kinds import GROUP, VERSION

_log = logging.getLogger(__name__)

# What policies are read against, and what claims anything.
_SURROUNDINGS = (api.AGENTS, api.TOOL_SERVERS, api.MODEL_PROVIDERS, api.IDENTITY_PROVIDERS)
_UNAVAILABLE = 503


class Validator:
    """A `webhook_server.Reviewer`. `world` gives what is in force, None before it is known; `record` keeps a change or raises."""

    def __init__(
        self,
        *,
        source: Source,
        calls: Calls,
        claims: NewClaims,
        world: Callable[[], World | None],
        may: MayAccess,
        record: Callable[[Change], None],
        time_us: Callable[[], int],
    ) -> None:
        self._source = source
        self._calls = calls
        self._claims = claims
        self._world = world
        self._may = may
        self._record = record
        self._time_us = time_us

    def __call__(self, request: AdmissionRequest) -> Verdict:
        """The answer. What can't be found out refuses, but for a deletion, which needs nothing to be found out."""
        try:
            verdict = self._judge(request)
        except ClientError as error:
            return _unavailable(f"this can't be judged now: {error}; try again")
        return self._keep(request) if isinstance(verdict, Allowed) else verdict

    def _judge(self, request: AdmissionRequest) -> Verdict:
        verdict = validation.verdict(request, self._mistakes(request))
        if isinstance(verdict, Refused):
            return verdict
        return self._exists(request) or validation.verdict(request, self._newly_claimed(request))

    def _exists(self, request: AdmissionRequest) -> Refused | None:
        """The API server asks before it looks whether there is such an object. What is refused then must not be recorded as made."""
        if request.operation is not Operation.CREATE or request.dry_run or request.subresource:
            return None
        inside = "" if request.namespace is None else f"/namespaces/{request.namespace}"
        own = validation.refer(request)
        selector = urllib.parse.quote(f"metadata.name={own.name}")
        # A list, since the right to list is there already.
        path = f"/apis/{GROUP}/{VERSION}{inside}/{request.resource}?fieldSelector={selector}"
        if not self._calls.call("GET", path).get("items"):
            return None
        return Refused(message=f"{own} exists already", status=http.HTTPStatus.CONFLICT, reason="AlreadyExists")

    def _newly_claimed(self, request: AdmissionRequest) -> Sequence[Mistake]:
        """Why another object's claim stands against one that this object did not have before. None: it is held for this object."""
        own, claims = validation.refer(request), validation.new_claims(request)
        world = self._world()
        if not request.dry_run:
            contested = self._claims.hold(own, claims)
            if contested is not None:
                return (validation.contested(contested),)
        if not claims:
            return ()
        fresh = self._claims.owners(own, claims)
        if not fresh:
            return ()
        self._claims.hold(own, ())
        known = validation.world_of_objects((), {}) if world is None else world
        return validation.find_mistakes(request, replace(known, owners={**known.owners, **fresh}), self._may)

    def _mistakes(self, request: AdmissionRequest) -> Iterable[Mistake]:
        if request.operation is Operation.DELETE:
            return ()
        world = self._world()
        mistakes = () if world is None else validation.find_mistakes(request, world, self._may)
        if world is not None and not any(each.surroundings for each in mistakes):
            return mistakes
        fresh = validation.world_of_objects(self._list(), {} if world is None else world.forms)
        return validation.find_mistakes(request, fresh, self._may)

    def _list(self) -> Iterable[Manifest]:
        return [manifest for kind in _SURROUNDINGS for manifest in self._source.list(kind).items]

    def _keep(self, request: AdmissionRequest) -> Verdict:
        """A change without a record is refused; a deletion is not held up, and says that it is not recorded."""
        change = validation.change(request, self._time_us())
        if change is None:
            return Allowed()
        try:
            self._record(change)
        except SpoolError as error:
            _log.error("%s of %s %s is not recorded: %s", change.operation, change.kind, change.name, error)
            if request.operation is Operation.DELETE:
                return Allowed(warnings=("hopgate could not record this deletion",))
            return _unavailable(f"this change can't be recorded: {error}; try again")
        return Allowed()


def _unavailable(message: str) -> Refused:
    return Refused(message=message, status=_UNAVAILABLE, reason="ServiceUnavailable")
