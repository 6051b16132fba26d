"""The injecting webhook at work: a pod, its namespace, and whether whoever makes it may leave the gate out; a record where it was left out.

The label on a pod that asks to be left alone is worth nothing by itself. The right is the verb `skip-injection` on `agents.hopgate.dev` in
the pod's namespace, held by whoever makes the pod, or by the service account that the pod runs as: pods of a Deployment or a Job are
made by a controller of the cluster, which has no rights of its own to give. Nobody can grant it who doesn't have it (RBAC).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from hopgate.audit.errors import SpoolError
from hopgate.audit.records import Change
from hopgate.kubernetes import injection, validation
from hopgate.kubernetes.access import Calls
from hopgate.kubernetes.admission import AdmissionRequest, Allowed, Operation, Refused, Requester, Verdict, lines
from hopgate.kubernetes.api import ClientError
from hopgate.kubernetes.injection import Injected, Left, LeftBecause, Outcome
from hopgate.kubernetes.injection_settings import ENABLED, INJECT_LABEL, NamespaceFacts
from hopgate.kubernetes.validation import Access, MayAccess
from hopgate.resources.kinds import GROUP, Provider

SKIP_VERB: Final = "skip-injection"
_UNAVAILABLE: Final = 503

_log = logging.getLogger(__name__)


class Injection(Protocol):
    """`injection.inject`, with the settings of the installation."""

    def __call__(self, pod: Mapping[str, Any], *, namespace: NamespaceFacts, may_opt_out: bool) -> Outcome:
        """What is to be done with a pod."""


class PodReviewer:
    """A `webhook_server.Reviewer`. `providers` are those that a namespace's registry has; `record` keeps an opt-out or raises."""

    def __init__(
        self,
        *,
        calls: Calls,
        inject: Injection,
        may: MayAccess,
        providers: Callable[[str], frozenset[Provider]],
        record: Callable[[Change], None],
        time_us: Callable[[], int],
    ) -> None:
        self._calls = calls
        self._inject = inject
        self._may = may
        self._providers = providers
        self._record = record
        self._time_us = time_us

    def __call__(self, request: AdmissionRequest) -> Verdict:
        """The answer. What can't be found out refuses the pod."""
        pod, namespace = request.object, request.namespace
        if pod is None or namespace is None or request.kind != "Pod":
            return Refused(message="expected a pod in a namespace, got something else: see the rules of the webhook configuration")
        try:
            facts = self._look_up(namespace)
            outcome = self._inject(pod, namespace=facts, may_opt_out=self._may_opt_out(request, pod, namespace))
        except ClientError as error:
            return _unavailable(f"this pod can't be judged now: {error}; try again")
        return self._answer(request, pod, outcome)

    def _answer(self, request: AdmissionRequest, pod: Mapping[str, Any], outcome: Outcome) -> Verdict:
        if isinstance(outcome, Injected):
            # Of a pod that exists only its ephemeral containers are asked about; nothing else of it can be changed.
            patch = tuple(outcome.patch) if request.operation is Operation.CREATE else ()
            return Allowed(patch=patch, warnings=outcome.warnings)
        if isinstance(outcome, Left):
            return self._keep(request, pod) if outcome.because is LeftBecause.OPTED_OUT else Allowed()
        return Refused(message=lines(str(reason) for reason in outcome.reasons), status=403, reason="Forbidden")

    def _look_up(self, namespace: str) -> NamespaceFacts:
        """The label is read here too: the selector of the configuration is the first to look, and somebody may have changed it."""
        found = self._calls.call("GET", f"/api/v1/namespaces/{namespace}")
        labels = (found.get("metadata") or {}).get("labels") or {}
        return NamespaceFacts(name=namespace, governed=labels.get(INJECT_LABEL) == ENABLED, providers=self._providers(namespace))

    def _may_opt_out(self, request: AdmissionRequest, pod: Mapping[str, Any], namespace: str) -> bool:
        try:
            if not injection.wants_out(pod):
                return False
            account = (pod.get("spec") or {}).get("serviceAccountName") or "default"
        except AttributeError:  # no pod; injecting it says so
            return False
        access = Access(verb=SKIP_VERB, resource="agents", namespace=namespace, group=GROUP)
        return self._may(request.requester, access) or self._may(_service_account(namespace, str(account)), access)

    def _keep(self, request: AdmissionRequest, pod: Mapping[str, Any]) -> Verdict:
        """A pod that goes without the gate is recorded, or it doesn't go."""
        if request.dry_run:
            return Allowed()
        metadata = pod.get("metadata") or {}
        change = Change(
            id=request.uid.replace("-", ""),
            time=self._time_us(),
            who=validation.who(request.requester),
            operation="OptOut",
            kind="Pod",
            name=f"{request.namespace}/{metadata.get('name') or metadata.get('generateName') or ''}",
            before={},
            after={"serviceAccountName": (pod.get("spec") or {}).get("serviceAccountName") or "default", "labels": metadata.get("labels")},
        )
        try:
            self._record(change)
        except SpoolError as error:
            _log.error("a pod that opts out is not recorded, so it is refused: %s: %s", change.name, error)
            return _unavailable(f"this pod's opt-out can't be recorded: {error}; try again")
        return Allowed()


def _service_account(namespace: str, name: str) -> Requester:
    """As the API server knows it (Kubernetes: `k8s.io/apiserver/pkg/authentication/serviceaccount`)."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return Requester(name=f"system:serviceaccount:{namespace}:{name}", groups=groups)


def _unavailable(message: str) -> Refused:
    return Refused(message=message, status=_UNAVAILABLE, reason="ServiceUnavailable")
