"""The validating webhook at work: a question, what is in force, who has which right, and the record of what was accepted.

A refusal that comes of other objects is looked at again against a list made just then: `kubectl apply` of several files asks about a
policy before the watch has brought the tool server that was applied a moment earlier.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from hopgate.audit.errors import SpoolError
from hopgate.audit.records import Change
from hopgate.kubernetes import api, validation
from hopgate.kubernetes.admission import AdmissionRequest, Allowed, Operation, Refused, Verdict
from hopgate.kubernetes.api import ClientError, Manifest, Source
from hopgate.kubernetes.validation import MayAccess, Mistake, World

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
        world: Callable[[], World | None],
        may: MayAccess,
        record: Callable[[Change], None],
        time_us: Callable[[], int],
    ) -> None:
        self._source = source
        self._world = world
        self._may = may
        self._record = record
        self._time_us = time_us

    def __call__(self, request: AdmissionRequest) -> Verdict:
        """The answer. What can't be found out refuses, but for a deletion, which needs nothing to be found out."""
        try:
            verdict = validation.verdict(request, self._mistakes(request))
        except ClientError as error:
            return _unavailable(f"this can't be judged now: {error}; try again")
        return self._keep(request) if isinstance(verdict, Allowed) else verdict

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
