"""Putting the gate into a pod: a pure function from a pod to a patch, a refusal, or the reason why it is left alone.

A pod that was injected before is taken back to what its owner wrote, as far as that can be told, judged anew, and injected anew. So it
does not matter how often the function is asked, nor what other webhooks have added in between; and whatever a pod says of its own
injection is replaced by the real thing. docs/explanation/injection.md explains the choices.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hopgate import variables
from hopgate.kubernetes import injection_app, injection_parts, injection_patch, injection_reasons, sidecar
from hopgate.kubernetes.injection_patch import Operation
from hopgate.kubernetes.injection_reasons import Reason, ReasonCode
from hopgate.kubernetes.injection_settings import (
    DIGEST_ANNOTATION,
    DISABLED,
    INJECT_LABEL,
    INJECTED_LABEL,
    KEEP_ENV_ANNOTATION,
    NamespaceFacts,
    Settings,
    digest,
)
from hopgate.kubernetes.sidecar import Plan, PlanError

Fields = dict[str, Any]


class LeftBecause(StrEnum):
    """Why a pod is not injected although it may run: stable codes."""

    NAMESPACE_NOT_GOVERNED = "NamespaceNotGoverned"
    OPTED_OUT = "OptedOut"


@dataclass(frozen=True, slots=True, kw_only=True)
class Injected:
    """The patch (RFC 6902) that makes the pod a governed one; empty for one that is. `warnings` are for whoever makes the pod."""

    patch: Sequence[Operation]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The pod must not run here."""

    reasons: tuple[Reason, ...]

    def __str__(self) -> str:
        return "; ".join(str(reason) for reason in self.reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """The pod may run without the gate."""

    because: LeftBecause


Outcome = Injected | Refused | Left


def inject(pod: Mapping[str, Any], *, namespace: NamespaceFacts, settings: Settings, may_opt_out: bool) -> Outcome:
    """What is to be done with a pod (`v1` Pod, as JSON). Never raises; a pod that can't be read is refused.

    `may_opt_out` is whether whoever makes the pod has the right to leave the gate out; it matters for a pod that asks for it.
    """
    if not namespace.governed:
        return Left(because=LeftBecause.NAMESPACE_NOT_GOVERNED)
    try:
        if wants_out(pod):
            return Left(because=LeftBecause.OPTED_OUT) if may_opt_out else Refused(reasons=(_no_right(namespace.name),))
        return _injected(pod, namespace, settings)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        reason = Reason(code=ReasonCode.MALFORMED, field="spec", message="it is no pod as the API describes it", remedy="mend the manifest")
        return Refused(reasons=(reason,))


def wants_out(pod: Mapping[str, Any]) -> bool:
    """Whether the pod asks to be left alone, which needs a right."""
    return ((pod.get("metadata") or {}).get("labels") or {}).get(INJECT_LABEL) == DISABLED


def injected_with(pod: Mapping[str, Any]) -> str | None:
    """The digest of the settings that a pod was injected with. None for one that is not governed, whatever its labels say.

    For pods that exist: that the first init containers are the gate's is taken for the whole, since the webhook let them in.
    """
    started = (pod.get("spec") or {}).get("initContainers") or ()
    names = [container.get("name") for container in started[:2]]
    if names != [sidecar.CAPTURE_CONTAINER, sidecar.PROXY_CONTAINER]:
        return None
    found = ((pod.get("metadata") or {}).get("annotations") or {}).get(DIGEST_ANNOTATION)
    return found if isinstance(found, str) else None


def _injected(pod: Mapping[str, Any], namespace: NamespaceFacts, settings: Settings) -> Outcome:
    own = _restored(pod)
    reasons = tuple(injection_reasons.find(own, settings))
    if reasons:
        return Refused(reasons=reasons)
    wanted = _with_gate(pod, own, namespace, settings)
    return Injected(patch=injection_patch.difference(dict(pod), wanted), warnings=tuple(_warnings(own, settings)))


def _restored(pod: Mapping[str, Any]) -> Fields:
    """A copy with the kubelet's own probes. The gate's containers and volumes are still there, for the rules that judge names."""
    own: Fields = copy.deepcopy(dict(pod))
    if DIGEST_ANNOTATION not in ((own.get("metadata") or {}).get("annotations") or {}):
        return own
    try:
        plan = _plan_of(own["spec"])
    except PlanError:  # somebody else's annotation: what it says of probes can't be told
        return own
    planned = {probe.name: probe for probe in plan.probes}
    for container in injection_app.all_containers(own["spec"]):
        injection_app.restore_probes(container, planned)
    return own


def _plan_of(spec: Mapping[str, Any]) -> Plan:
    """The plan that an injected pod holds. Raises PlanError where there is none."""
    for container in spec.get("initContainers") or ():
        if container["name"] == sidecar.CAPTURE_CONTAINER:
            texts = [entry.get("value") for entry in container.get("env") or () if entry["name"] == sidecar.PLAN_VARIABLE]
            return sidecar.parse(texts[0] if texts and isinstance(texts[0], str) else "")
    raise PlanError("expected a plan of the injector")


def _with_gate(pod: Mapping[str, Any], own: Fields, namespace: NamespaceFacts, settings: Settings) -> Fields:
    wanted: Fields = copy.deepcopy(own)
    metadata, spec = wanted.setdefault("metadata", {}), wanted["spec"]
    annotations = metadata["annotations"] = dict(metadata.get("annotations") or {})
    metadata["labels"] = {**(metadata.get("labels") or {}), INJECTED_LABEL: "true"}
    annotations[DIGEST_ANNOTATION] = digest(settings)
    keep = frozenset(name.strip() for name in annotations.get(KEEP_ENV_ANNOTATION, "").split(","))
    apps = injection_app.all_containers(spec)
    for container in apps:
        injection_app.change(container, providers=namespace.providers, keep=keep)
    plan = Plan(
        agent=f"{namespace.name}/{spec.get('serviceAccountName') or 'default'}",
        proxy_uid=settings.proxy_uid,
        authz_addresses=settings.authz_addresses,
        authz_name=settings.authz_name,
        authz_port=settings.authz_port,
        resolver_port=settings.resolver_port,
        max_heap_bytes=settings.max_heap_bytes,
        probes=tuple(probe for container in apps for probe in injection_app.plan_probes(container)),
    )
    before = {container["name"]: container for container in pod["spec"].get("initContainers") or ()}
    gate = [_kept(before.get(container["name"]), container) for container in injection_parts.containers(settings, plan)]
    spec["initContainers"] = [*gate, *(found for found in spec.get("initContainers") or () if found["name"] not in sidecar.CONTAINERS)]
    spec["volumes"] = _merged(spec.get("volumes") or [], injection_parts.volumes(settings))
    return wanted


def _kept(before: Mapping[str, Any] | None, made: Fields) -> Fields:
    """Ours, with what Kubernetes' own admission plugins have put into it since: the API token's mount, limits where we have none."""
    if before is None:
        return made
    mounts = [
        mount
        for mount in before.get("volumeMounts") or ()
        if mount["mountPath"] == injection_parts.API_TOKEN_FOLDER and mount["name"].startswith(injection_parts.API_TOKEN_VOLUME_PREFIX)
    ]
    held = before.get("resources") or {}
    resources = {kind: {**(held.get(kind) or {}), **values} for kind, values in made["resources"].items()}
    return {**made, "volumeMounts": [*made["volumeMounts"], *mounts], "resources": resources}


def _merged(before: Sequence[Fields], ours: Sequence[Fields]) -> list[Fields]:
    """Those that are there stay in their places, with our content; those that are not come behind."""
    made = {volume["name"]: volume for volume in ours}
    merged = [made.pop(volume["name"], volume) for volume in before]
    return [*merged, *made.values()]


def _warnings(own: Mapping[str, Any], settings: Settings) -> list[str]:
    found = []
    pod_user = (own["spec"].get("securityContext") or {}).get("runAsUser")
    for container in injection_app.all_containers(own["spec"]):
        names = {entry["name"]: entry.get("value") for entry in container.get("env") or ()}
        for name in sorted(names.keys() & variables.PROXY_VARIABLES):
            found.append(f"container {container['name']}: {name} names a proxy, which is another destination to the gate")
        for name in sorted(names.keys() & set(variables.TRUST_VARIABLES)):
            if names[name] != sidecar.TRUST_BUNDLE:
                found.append(f"container {container['name']}: {name} is kept, so TLS that the gate opens is not trusted by what reads it")
        if pod_user is None and (container.get("securityContext") or {}).get("runAsUser") is None:
            found.append(f"container {container['name']}: its image decides its user, which must not be {settings.proxy_uid}, the proxy's")
    return found


def _no_right(namespace: str) -> Reason:
    return Reason(
        code=ReasonCode.OPT_OUT,
        field=f"metadata.labels[{INJECT_LABEL}]",
        message=f"whoever makes this pod has no right to leave the gate out in namespace `{namespace}`",
        remedy="leave the label out, or ask for the right",
    )
