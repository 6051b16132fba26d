"""AdmissionReview (`admission.k8s.io/v1`) as values: what the API server asks a webhook, and what it is told.

Pure. Of the object only what the caller of this module reads is looked at; a request that is not one of `admission.k8s.io/v1` is
ReviewError, which the server answers with HTTP 400, and the API server then goes by the webhook's failure policy.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from hopgate.kubernetes.api import Manifest

API_VERSION: Final = "admission.k8s.io/v1"
# What kubectl shows of one refusal; the API server cuts warnings at 256 characters by itself.
MAX_MESSAGE: Final = 8192
MAX_WARNING: Final = 250


class ReviewError(ValueError):
    """What came is no AdmissionReview request of `admission.k8s.io/v1`."""

    code = "InvalidReview"


class Operation(StrEnum):
    """What is to be done with the object."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    CONNECT = "CONNECT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """Who asks, as the API server authenticated them."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionRequest:
    """One question. `object` is absent when it is deleted, `old_object` when it is created; `namespace` is None for a cluster's object."""

    uid: str
    operation: Operation
    group: str
    kind: str
    resource: str
    subresource: str
    namespace: str | None
    name: str
    dry_run: bool
    requester: Requester
    object: Manifest | None = field(repr=False)
    old_object: Manifest | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The request may go on. `patch` is a JSON Patch (RFC 6902), `warnings` are shown to whoever asked."""

    patch: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The request is refused. `status` is HTTP's: 403 for want of a right, 422 for a mistake. `reason` is Kubernetes' word for it."""

    message: str
    status: int = 422
    reason: str = "Invalid"


Verdict = Allowed | Refused


def decode(body: bytes) -> AdmissionRequest:
    """The question in a request's body. Raises ReviewError."""
    try:
        review = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ReviewError("expected an AdmissionReview as JSON") from error
    if not isinstance(review, dict) or review.get("apiVersion") != API_VERSION or review.get("kind") != "AdmissionReview":
        raise ReviewError(f"expected an AdmissionReview of `{API_VERSION}`")
    asked = _mapping(review.get("request"), "request")
    kind, resource = _mapping(asked.get("kind"), "request.kind"), _mapping(asked.get("resource"), "request.resource")
    try:
        operation = Operation(str(asked.get("operation")))
    except ValueError as error:
        raise ReviewError("expected `request.operation` to be CREATE, UPDATE, DELETE or CONNECT") from error
    return AdmissionRequest(
        uid=_text(asked.get("uid"), "request.uid"),
        operation=operation,
        group=str(kind.get("group") or ""),
        kind=_text(kind.get("kind"), "request.kind.kind"),
        resource=_text(resource.get("resource"), "request.resource.resource"),
        subresource=str(asked.get("subResource") or ""),
        namespace=str(asked["namespace"]) if asked.get("namespace") else None,
        name=str(asked.get("name") or ""),
        dry_run=asked.get("dryRun") is True,
        requester=_requester(_mapping(asked.get("userInfo"), "request.userInfo")),
        object=_object(asked.get("object"), "request.object"),
        old_object=_object(asked.get("oldObject"), "request.oldObject"),
    )


def encode(uid: str, verdict: Verdict) -> bytes:
    """The answer to the question `uid`."""
    response: dict[str, Any] = {"uid": uid, "allowed": isinstance(verdict, Allowed)}
    if isinstance(verdict, Refused):
        response["status"] = {"code": verdict.status, "reason": verdict.reason, "message": _cut(verdict.message, MAX_MESSAGE)}
    else:
        if verdict.patch:
            response["patchType"] = "JSONPatch"
            response["patch"] = base64.b64encode(json.dumps(list(verdict.patch)).encode()).decode()
        if verdict.warnings:
            response["warnings"] = [_cut(warning, MAX_WARNING) for warning in verdict.warnings]
    return json.dumps({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}).encode()


def lines(mistakes: Iterable[str]) -> str:
    """Several mistakes as one message: each on its own line where there are several."""
    listed = list(mistakes)
    return listed[0] if len(listed) == 1 else "\n" + "\n".join(f"  {each}" for each in listed)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _requester(info: Mapping[str, Any]) -> Requester:
    extra = info.get("extra")
    return Requester(
        name=str(info.get("username") or ""),
        groups=_texts(info.get("groups")),
        uid=str(info.get("uid") or ""),
        extra={str(key): _texts(values) for key, values in extra.items()} if isinstance(extra, dict) else {},
    )


def _texts(values: object) -> tuple[str, ...]:
    return tuple(str(value) for value in values) if isinstance(values, list) else ()


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ReviewError(f"expected `{name}` to be a mapping")
    return value


def _object(value: object, name: str) -> Manifest | None:
    return None if value is None else _mapping(value, name)


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise ReviewError(f"expected `{name}` to be text")
    return value
