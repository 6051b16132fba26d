"""What the installed webhook would do with a pod: a dry run of a copy, and how its answer reads. Pure.

The API server asks the webhook about the copy as about any pod, so the verdict is the installed webhook's own, with its settings. Nothing
is made, and the webhook records no dry run.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from hopgate.kubernetes import injection, injection_app, injection_found, injection_parts, sidecar
from hopgate.kubernetes.injection_found import GateState
from hopgate.kubernetes.injection_patch import Operation
from hopgate.kubernetes.injection_reasons import Reason
from hopgate.kubernetes.injection_settings import INJECT_LABEL
from hopgate.kubernetes.webhook_configurations import SYSTEM_NAMESPACES
from hopgate.resources.kinds import GROUP

Fields = Mapping[str, Any]

# Kinds that make pods, and where their template is.
TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Deployment": ("spec", "template"),
    "Job": ("spec", "template"),
    "PodTemplate": ("template",),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
}
_WEBHOOK: Final = f"inject.{GROUP}"
_DENIED: Final = f'admission webhook "{_WEBHOOK}" denied the request: '
_FAILED: Final = f'failed calling webhook "{_WEBHOOK}"'


class Verdict(StrEnum):
    """What would become of the pod: stable codes."""

    INJECTED = "Injected"
    UNCHANGED = "Unchanged"
    REFUSED = "Refused"
    OPTED_OUT = "OptedOut"
    NOT_GOVERNED = "NotGoverned"
    NO_ANSWER = "NoAnswer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The verdict. `patch` and `changes` (for people) belong to `Injected`, `reasons` to `Refused`; `message` says what else there is."""

    verdict: Verdict
    message: str = ""
    changes: tuple[str, ...] = ()
    patch: tuple[Operation, ...] = ()
    reasons: tuple[Reason, ...] = ()


def copy_of(pod: Fields, namespace: str) -> dict[str, Any]:
    """A pod as it could be made anew: without what the API server, the scheduler and the kubelet put there."""
    made: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "spec": copy.deepcopy(dict(pod.get("spec") or {}))}
    metadata = pod.get("metadata") or {}
    made["metadata"] = {key: copy.deepcopy(metadata[key]) for key in ("labels", "annotations") if metadata.get(key)}
    made["metadata"]["namespace"] = namespace
    made["metadata"]["generateName"] = f"{str(metadata.get('name') or metadata.get('generateName') or 'pod').rstrip('-')[:200]}-"
    spec = made["spec"]
    spec.pop("nodeName", None)
    volumes = [volume for volume in spec.get("volumes") or () if not _is_api_token(volume)]
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        mounts = container.get("volumeMounts") or []
        if mounts:
            container["volumeMounts"] = [mount for mount in mounts if not _is_api_token(mount)]
    if "volumes" in spec:
        spec["volumes"] = volumes
    return made


def template_of(manifest: Fields) -> Fields | None:
    """The pod that a manifest describes, or the template of what makes pods; None for anything else."""
    if manifest.get("kind") == "Pod":
        return manifest
    found: Any = manifest
    for key in TEMPLATES.get(str(manifest.get("kind")), ("",)):
        found = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        return None
    own = manifest.get("metadata") or {}
    metadata = {**(found.get("metadata") or {}), "name": own.get("name"), "namespace": own.get("namespace")}
    return {"kind": "Pod", "metadata": metadata, "spec": found.get("spec")}


def accepted(sent: Fields, answered: Fields, namespace: Fields | None) -> Trial:
    """How the answer to a dry run reads that was accepted. `namespace` is the pod's, None where it may not be read."""
    gate = injection_found.find(answered)
    if gate.state is GateState.NONE:
        return _left(sent, namespace)
    patch = injection_found.explain(sent, answered)
    if patch is None:
        return Trial(verdict=Verdict.NO_ANSWER, message="a gate that no injector of ours made: " + "; ".join(gate.faults))
    if not _matters(patch):
        return Trial(verdict=Verdict.UNCHANGED, message="it has the gate that a new pod gets")
    return Trial(verdict=Verdict.INJECTED, changes=tuple(_changes(sent, answered)), patch=tuple(patch))


def refused(said: str) -> Trial:
    """How a refusal reads: the injector's, or somebody else's."""
    if _FAILED in said:
        return Trial(verdict=Verdict.NO_ANSWER, message=f"the webhook does not answer, so no pod starts here: {said}")
    _, denied, text = said.partition(_DENIED)
    if not denied:
        return Trial(verdict=Verdict.REFUSED, message=f"refused by another part of the cluster: {said}")
    parsed = [Reason.parse(line.strip()) for line in text.strip().splitlines()]
    reasons = tuple(reason for reason in parsed if reason is not None)
    return Trial(verdict=Verdict.REFUSED, message="" if len(reasons) == len(parsed) else text.strip(), reasons=reasons)


def _left(sent: Fields, namespace: Fields | None) -> Trial:
    metadata = sent.get("metadata") or {}
    name = str(metadata.get("namespace"))
    if name in SYSTEM_NAMESPACES:
        return Trial(verdict=Verdict.NOT_GOVERNED, message=f"pods of {name} are never governed")
    if injection.wants_out(sent):
        message = "its label asks to be left alone, and you or its service account have the right to that, or its namespace is not governed"
        return Trial(verdict=Verdict.OPTED_OUT, message=message)
    if namespace is None:
        return Trial(
            verdict=Verdict.NOT_GOVERNED, message=f"no webhook changed it; namespace {name} may not be read, so its label is not known"
        )
    labels = (namespace.get("metadata") or {}).get("labels") or {}
    if labels.get(INJECT_LABEL) != "enabled":
        return Trial(verdict=Verdict.NOT_GOVERNED, message=f"namespace {name} has no label {INJECT_LABEL}=enabled")
    return Trial(
        verdict=Verdict.NO_ANSWER, message=f"namespace {name} is labelled, but no webhook changed the pod: is `{_WEBHOOK}` registered?"
    )


def _changes(sent: Fields, answered: Fields) -> Iterator[str]:
    """What the injection changes, for people."""
    before, after = _containers(sent["spec"]), _containers(answered["spec"])
    for name in (each for each in after if each in sidecar.CONTAINERS and before.get(each) != after[each]):
        yield f"{'changes' if name in before else 'adds'} the init container {name} ({after[name].get('image')})"
    known = {volume["name"] for volume in sent["spec"].get("volumes") or ()}
    added = [volume["name"] for volume in answered["spec"].get("volumes") or () if volume["name"] in sidecar.VOLUMES - known]
    if added:
        yield f"adds the volumes {', '.join(added)}"
    for name, container in after.items():
        if name not in sidecar.CONTAINERS:
            yield from _container_changes(f"container {name}", before.get(name) or {}, container)


def _container_changes(place: str, before: Fields, after: Fields) -> Iterator[str]:
    old = {entry["name"]: entry for entry in before.get("env") or ()}
    new = {entry["name"]: entry for entry in after.get("env") or ()}
    added = [name for name in new if name not in old]
    replaced = [name for name in new if name in old and new[name] != old[name]]
    if added:
        yield f"{place}: adds the variables {', '.join(added)}"
    if replaced:
        yield f"{place}: puts a placeholder into {', '.join(replaced)}; the gate puts the real key into each allowed request"
    context, changed = before.get("securityContext") or {}, after.get("securityContext") or {}
    if context.get("allowPrivilegeEscalation") is None and changed.get("allowPrivilegeEscalation") is False:
        yield f"{place}: forbids privilege escalation"
    held = (context.get("capabilities") or {}).get("drop") or []
    dropped = [name for name in (changed.get("capabilities") or {}).get("drop") or [] if name not in held]
    if dropped:
        yield f"{place}: drops the capabilities {', '.join(dropped)}"
    for probe in injection_app.PROBES:
        if after.get(probe) and injection_app.is_rewritten(after[probe]) and not injection_app.is_rewritten(before.get(probe) or {}):
            yield f"{place}: Envoy carries out the {probe}"
    if injection_parts.TRUST_MOUNT in (after.get("volumeMounts") or ()) and injection_parts.TRUST_MOUNT not in (
        before.get("volumeMounts") or ()
    ):
        yield f"{place}: mounts {sidecar.TRUST_FOLDER}, to read"


def _containers(spec: Fields) -> dict[str, Fields]:
    return {each["name"]: each for each in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))}


def _matters(patch: Sequence[Operation]) -> bool:
    return any(operation["path"] not in injection_found.SAID for operation in patch)


def _is_api_token(named: Fields) -> bool:
    return str(named.get("name") or "").startswith(injection_parts.API_TOKEN_VOLUME_PREFIX)
