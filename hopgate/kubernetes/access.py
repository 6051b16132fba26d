"""Questions of rights to the API server: SubjectAccessReview (`authorization.k8s.io/v1`).

Not to be told whether somebody may is no "may": the errors of the client go through to whoever asked.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from hopgate.kubernetes.admission import Requester
from hopgate.kubernetes.api import Body, Manifest
from hopgate.kubernetes.validation import Access

_PATH: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class Calls(Protocol):
    """What is needed of the API server's client."""

    def call(self, method: str, path: str, body: Body | None = None, *, content_type: str = "application/json") -> Manifest:
        """One request for one object. Raises ClientError."""


def review(requester: Requester, access: Access) -> Manifest:
    """The question as the API server takes it."""
    attributes: dict[str, Any] = {"verb": access.verb, "group": access.group, "resource": access.resource}
    if access.namespace is not None:
        attributes["namespace"] = access.namespace
    if access.name:
        attributes["name"] = access.name
    spec: dict[str, Any] = {"user": requester.name, "groups": list(requester.groups), "resourceAttributes": attributes}
    if requester.uid:
        spec["uid"] = requester.uid
    if requester.extra:
        spec["extra"] = {key: list(values) for key, values in requester.extra.items()}
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


def is_allowed(answer: Manifest) -> bool:
    """Whether the answer is a clean yes."""
    status = answer.get("status")
    return isinstance(status, dict) and status.get("allowed") is True and status.get("denied") is not True


class Rights:
    """Asks the API server. Callable as `validation.MayAccess`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def __call__(self, requester: Requester, access: Access) -> bool:
        """Whether the requester may. Raises ClientError."""
        return is_allowed(self._calls.call("POST", _PATH, review(requester, access)))
