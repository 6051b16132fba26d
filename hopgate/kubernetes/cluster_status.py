"""How hopgate stands in a cluster: authz's processes, webhooks, controller and resources. Pure: objects of the API in, findings out.

A finding is what a person should look at; without one a part is well.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hopgate.kubernetes import authz_state, certificates, keys
from hopgate.kubernetes.authz_state import AuthzState
from hopgate.kubernetes.pod_coverage import seconds
from hopgate.resources.kinds import GROUP

Fields = Mapping[str, Any]

# Written every 15 s.
SILENT_SECONDS: Final = 60
# Even a quiet kind is heard of each minute, and a silent server is noticed after 90 s.
STALE_SECONDS: Final = 150
# Certificates of 30 days are renewed with ten left.
CERTIFICATE_SECONDS: Final = 7 * 86_400
# A key signs for twelve hours, and is replaced when it is next used.
KEY_SECONDS: Final = 13 * 3600
_HOPGATE_POD: Final = {"app.kubernetes.io/name": "hopgate", "app.kubernetes.io/component": "authz"}
_WEBHOOKS: Final = {
    f"validate.{GROUP}": "changes of resources are not judged",
    f"inject.{GROUP}": "pods of governed namespaces are not governed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthzRow:
    """One process, by its pod. Ages are in seconds; None: not known."""

    pod: str
    ready: bool
    version: str | None
    told_age: int | None
    snapshot_age: int | None
    oldest_watch: str | None
    oldest_watch_age: int | None
    certificate_ends_in: int | None
    key_age: int | None
    allowed: int | None
    denied: int | None
    failed_open: int | None
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRow:
    """One webhook of a configuration. `certificate_ends_in` is that of the Secret, in seconds, where it may be read."""

    name: str
    configuration: str
    certificate_ends_in: int | None
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerRow:
    """The leader, and since when (seconds) its Lease was not renewed."""

    lease: str
    holder: str
    age: int | None
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRow:
    """One object whose status says that it is not well, or says nothing of its present form."""

    kind: str
    name: str
    reason: str
    message: str


def installation_of(configurations: Iterable[Fields]) -> str | None:
    """The namespace that hopgate runs in: that of the Service which its webhooks name."""
    for _, webhook in _own_webhooks(configurations):
        namespace = ((webhook.get("clientConfig") or {}).get("service") or {}).get("namespace")
        if isinstance(namespace, str):
            return namespace
    return None


def authz_rows(leases: Iterable[Fields], pods: Iterable[Fields], now: float) -> tuple[AuthzRow, ...]:
    """The processes: every pod that is authz's by its labels, or that a Lease of keys belongs to."""
    by_uid = {(pod.get("metadata") or {}).get("uid"): pod for pod in pods}
    told: dict[Any, Fields] = {}
    for lease in leases:
        metadata = lease.get("metadata") or {}
        owners = metadata.get("ownerReferences") or [{}]
        if (metadata.get("labels") or {}).get(keys.LABEL) == keys.LABEL_VALUE and owners[0].get("uid") in by_uid:
            told[owners[0]["uid"]] = lease
    own = [uid for uid, pod in by_uid.items() if uid in told or _has(pod, _HOPGATE_POD)]
    rows = (_authz_row(by_uid[uid], told.get(uid), now) for uid in own)
    return tuple(sorted(rows, key=lambda row: row.pod))


def _authz_row(pod: Fields, lease: Fields | None, now: float) -> AuthzRow:
    state = None if lease is None else authz_state.read((lease.get("metadata") or {}).get("annotations") or {})
    renewed = None if lease is None else seconds((lease.get("spec") or {}).get("renewTime"))
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ready = any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)
    told_age = None if renewed is None else max(0, int(now - renewed))
    oldest, at = _oldest(state)
    return AuthzRow(
        pod=str((pod.get("metadata") or {}).get("name")),
        ready=ready,
        version=None if state is None else state.version,
        told_age=told_age,
        snapshot_age=_age(None if state is None else state.snapshot_at, now),
        oldest_watch=oldest,
        oldest_watch_age=_age(at, now),
        certificate_ends_in=None if state is None else int(state.certificate_ends_at - now),
        key_age=_age(None if state is None else state.key_made_at, now),
        allowed=None if state is None else state.allowed,
        denied=None if state is None else state.denied,
        failed_open=None if state is None else state.failed_open,
        findings=tuple(_of_authz(state, ready=ready, told_age=told_age, now=now)),
    )


def _of_authz(state: AuthzState | None, *, ready: bool, told_age: int | None, now: float) -> Iterable[str]:
    if not ready:
        yield "its pod is not ready"
    if state is None or told_age is None:
        yield "it has not said how it stands"
        return
    if told_age > SILENT_SECONDS:
        yield f"it has been silent for {told_age} s"
    if state.snapshot_at is None:
        yield "it has no snapshot yet"
    kind, at = _oldest(state)
    if kind is not None and (at is None or now - told_age - at > STALE_SECONDS):
        yield f"it does not hear of {kind}: what it knew last stays in force"
    if state.certificate_ends_at - now < CERTIFICATE_SECONDS:
        yield "its certificate ends soon, and is not being renewed"
    if now - state.key_made_at > KEY_SECONDS:
        yield "its signing key is old"
    if state.failed_open:
        yield f"{state.failed_open} hops passed although something had failed: a defect"


def _oldest(state: AuthzState | None) -> tuple[str | None, int | None]:
    """The kind that was heard of longest ago; one that was never heard of before all."""
    if state is None or not state.watches:
        return None, None
    kind = min(state.watches, key=lambda name: (state.watches[name] or 0, name))
    return kind, state.watches[kind]


def webhook_rows(
    configurations: Iterable[Fields],
    secrets: Callable[[str, str], Fields | None],
    ends_at: Callable[[bytes], int | None],
    now: float,
) -> tuple[WebhookRow, ...]:
    """Both webhooks. `secrets` gives a Secret by namespace and name, None where it can't be read; `ends_at` a certificate's end."""
    rows = [_webhook_row(*found, secrets, ends_at, now) for found in _own_webhooks(configurations)]
    there = {row.name for row in rows}
    missing = (
        WebhookRow(name=name, configuration="", certificate_ends_in=None, findings=(f"it is not registered: {means}",))
        for name, means in _WEBHOOKS.items()
        if name not in there
    )
    return tuple(sorted((*rows, *missing), key=lambda row: row.name))


def _webhook_row(
    configuration: Fields,
    webhook: Fields,
    secrets: Callable[[str, str], Fields | None],
    ends_at: Callable[[bytes], int | None],
    now: float,
) -> WebhookRow:
    name = str((configuration.get("metadata") or {}).get("name"))
    client = webhook.get("clientConfig") or {}
    service = client.get("service") or {}
    bundle = _decoded(client.get("caBundle"))
    trusted = certificates.split(bundle)
    findings: list[str] = []
    if not bundle:
        findings.append("its caBundle is empty: the API server trusts no answer")
    elif not any((ends_at(each) or 0) > now for each in trusted):
        findings.append("every certificate of its caBundle has ended")
    if webhook.get("failurePolicy") != "Fail":
        findings.append(f"its failurePolicy is {webhook.get('failurePolicy')}, expected Fail")
    secret = secrets(str(service.get("namespace")), name) if service else None
    ends_in: int | None = None
    if secret is not None:
        data = secret.get("data") or {}
        ends = ends_at(_decoded(data.get("tls.crt")))
        ends_in = None if ends is None else int(ends - now)
        if ends_in is None or ends_in < CERTIFICATE_SECONDS:
            findings.append("its certificate has ended or ends soon, and is not being renewed")
        if not set(certificates.split(_decoded(data.get("ca.crt")))) <= set(trusted):
            findings.append("its caBundle does not hold the authority of its Secret")
    return WebhookRow(name=str(webhook["name"]), configuration=name, certificate_ends_in=ends_in, findings=tuple(findings))


def controller_rows(leases: Iterable[Fields], now: float) -> tuple[ControllerRow, ...]:
    """The controllers' Leases: those of the name `…-controller` with a holder's term."""
    return tuple(
        _controller_row(lease, now) for lease in leases if str((lease.get("metadata") or {}).get("name") or "").endswith("-controller")
    )


def _controller_row(lease: Fields, now: float) -> ControllerRow:
    spec = lease.get("spec") or {}
    renewed, holder = seconds(spec.get("renewTime")), str(spec.get("holderIdentity") or "")
    age = None if renewed is None else max(0, int(now - renewed))
    findings: list[str] = []
    if not holder:
        findings.append("it has no leader")
    elif age is None or age > SILENT_SECONDS:
        findings.append("its leader does not renew the Lease: statuses are not written")
    return ControllerRow(lease=str((lease.get("metadata") or {}).get("name")), holder=holder, age=age, findings=tuple(findings))


def resource_rows(objects: Iterable[Fields]) -> tuple[ResourceRow, ...]:
    """The objects that are not well by their own status, and those whose status is of an earlier form."""
    rows: list[ResourceRow] = []
    for found in objects:
        metadata, status = found.get("metadata") or {}, found.get("status") or {}
        name = "/".join(str(part) for part in (metadata.get("namespace"), metadata.get("name")) if part)
        kind = str(found.get("kind"))
        for condition in status.get("conditions") or ():
            if condition.get("status") == "False":
                rows.append(ResourceRow(kind=kind, name=name, reason=str(condition.get("reason")), message=str(condition.get("message"))))
        if status.get("observedGeneration") != metadata.get("generation") and kind != "ShadowAgent":
            message = "the controller has not written its status of the present form"
            rows.append(ResourceRow(kind=kind, name=name, reason="NotObserved", message=message))
    return tuple(sorted(rows, key=lambda row: (row.kind, row.name, row.reason)))


def _own_webhooks(configurations: Iterable[Fields]) -> Sequence[tuple[Fields, Fields]]:
    return [
        (configuration, webhook)
        for configuration in configurations
        for webhook in configuration.get("webhooks") or ()
        if webhook.get("name") in _WEBHOOKS
    ]


def _has(pod: Fields, labels: Mapping[str, str]) -> bool:
    return labels.items() <= ((pod.get("metadata") or {}).get("labels") or {}).items()


def _age(at: int | None, now: float) -> int | None:
    return None if at is None else max(0, int(now - at))


def _decoded(text: object) -> bytes:
    try:
        return base64.b64decode(str(text or ""), validate=True)
    except (binascii.Error, ValueError):
        return b""
