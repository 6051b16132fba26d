"""AdmissionReviews to values and back."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from hopgate.kubernetes import admission
from hopgate.kubernetes.admission import Allowed, Refused, ReviewError


def review(**changes: Any) -> dict[str, Any]:
    request = {
        "uid": "0b0c",
        "kind": {"group": "hopgate.dev", "version": "v1alpha1", "kind": "Agent"},
        "resource": {"group": "hopgate.dev", "version": "v1alpha1", "resource": "agents"},
        "operation": "CREATE",
        "namespace": "demo",
        "name": "planner",
        "userInfo": {"username": "alice", "groups": ["dev"], "uid": "7", "extra": {"scopes": ["a", "b"]}},
        "object": {"spec": {}},
        "dryRun": False,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {**request, **changes}}


def test_a_question_is_read() -> None:
    found = admission.decode(json.dumps(review()).encode())

    assert (found.kind, found.resource, found.namespace, found.name, found.dry_run) == ("Agent", "agents", "demo", "planner", False)
    assert (found.requester.name, found.requester.groups, found.requester.extra) == ("alice", ("dev",), {"scopes": ("a", "b")})
    assert (found.object, found.old_object) == ({"spec": {}}, None)
    assert admission.decode(json.dumps(review(dryRun=True)).encode()).dry_run


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 100_000,
        json.dumps({**review(), "apiVersion": "admission.k8s.io/v1beta1"}).encode(),
        json.dumps({**review(), "kind": "Pod"}).encode(),
        json.dumps({**review(), "request": None}).encode(),
        json.dumps(review(uid="")).encode(),
        json.dumps(review(operation="PATCH")).encode(),
        json.dumps(review(userInfo=None)).encode(),
        json.dumps(review(object=[])).encode(),
    ],
    ids=["empty", "list", "half", "deep", "version", "kind", "request", "uid", "operation", "user", "object"],
)
def test_what_is_no_question_is_refused(body: bytes) -> None:
    with pytest.raises(ReviewError):
        admission.decode(body)


def test_answers_are_written() -> None:
    allowed = json.loads(admission.encode("7", Allowed(patch=({"op": "add", "path": "/a", "value": 1},), warnings=("w" * 300,))))[
        "response"
    ]
    refused = json.loads(admission.encode("7", Refused(message="no", status=403, reason="Forbidden")))["response"]

    assert json.loads(base64.b64decode(allowed.pop("patch"))) == [{"op": "add", "path": "/a", "value": 1}]
    assert allowed["allowed"] is True
    assert (allowed["patchType"], len(allowed["warnings"][0])) == ("JSONPatch", admission.MAX_WARNING)
    assert refused == {"uid": "7", "allowed": False, "status": {"code": 403, "reason": "Forbidden", "message": "no"}}
