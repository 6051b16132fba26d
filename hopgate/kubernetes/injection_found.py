"""The gate as it is found in a pod that exists, or in the answer to a dry run: with which settings, and whether it is whole. Pure.

What a pod says of itself counts for nothing. The settings are read off the gate's own containers and volumes, and the pod is injected with
them once more: a pod that is governed needs no change. Whether they are the installation's settings is another question, which
`same_gate` answers by another pod's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from hopgate import variables
from hopgate.kubernetes import injection, injection_app, sidecar
from hopgate.kubernetes.injection import Injected, Refused
from hopgate.kubernetes.injection_patch import Operation
from hopgate.kubernetes.injection_settings import DIGEST_ANNOTATION, INJECT_LABEL, INJECTED_LABEL, NamespaceFacts, Settings, SettingsError
from hopgate.kubernetes.sidecar import Plan, PlanError
from hopgate.resources.kinds import Provider

Fields = Mapping[str, Any]

_DIGEST_PATH: Final = f"/metadata/annotations/{DIGEST_ANNOTATION.replace('/', '~1')}"
# What a pod says of its own injection; nothing that governs it.
SAID: Final = frozenset(
    {
        _DIGEST_PATH,
        f"/metadata/labels/{INJECTED_LABEL.replace('/', '~1')}",
        "/metadata/labels",
        "/metadata/annotations",
    }
)


class GateState(StrEnum):
    """How much of the gate a pod has."""

    WHOLE = "Whole"
    BROKEN = "Broken"
    NONE = "None"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundGate:
    """`settings` are those that the gate was made with, None where that can't be told; `faults` say what is not as injection makes it."""

    state: GateState
    settings: Settings | None = None
    faults: tuple[str, ...] = ()


def find(pod: Fields) -> FoundGate:
    """The gate of a pod (`v1` Pod, as JSON). Never raises: what is no pod has none that is whole."""
    try:
        spec = pod["spec"]
        named = [each["name"] for each in (*(spec.get("initContainers") or ()), *(spec.get("volumes") or ()))]
        if not (sidecar.CONTAINERS | sidecar.VOLUMES) & set(named):
            return FoundGate(state=GateState.NONE)
        settings, plan = _settings(spec)
        again = _inject_again(pod, settings, plan)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration, RecursionError, SettingsError, PlanError):
        return FoundGate(state=GateState.BROKEN, faults=("its parts are not those of a gate",))
    faults = _faults(again)
    return FoundGate(state=GateState.BROKEN if faults else GateState.WHOLE, settings=settings, faults=faults)


def same_gate(one: Settings, other: Settings) -> tuple[str, ...]:
    """The names of the settings in which two gates differ; resources are left out, which limits of a namespace change."""
    names = (
        "image",
        "authz_addresses",
        "authz_name",
        "authz_port",
        "resolver_port",
        "audience",
        "token_seconds",
        "proxy_uid",
        "authorities",
    )
    return tuple(name for name in names if getattr(one, name) != getattr(other, name))


def explain(sent: Fields, answered: Fields) -> Sequence[Operation] | None:
    """The patch by which the injector made `answered` of `sent`; None where it did not, or somebody else had a part in the gate."""
    found = find(answered)
    if found.state is not GateState.WHOLE or found.settings is None:
        return None
    namespace = str((answered.get("metadata") or {}).get("namespace") or "default")
    facts = NamespaceFacts(name=namespace, governed=True, providers=_providers(answered["spec"]))
    outcome = injection.inject(sent, namespace=facts, settings=found.settings, may_opt_out=False)
    return [_as_said(operation, answered) for operation in outcome.patch] if isinstance(outcome, Injected) else None


def _as_said(operation: Operation, answered: Fields) -> Operation:
    """With the digest that the injector wrote: some of the settings that it is of show nowhere in a pod."""
    said = ((answered.get("metadata") or {}).get("annotations") or {}).get(DIGEST_ANNOTATION)
    if operation["path"] == _DIGEST_PATH:
        return {**operation, "value": said}
    if operation["path"] == "/metadata/annotations" and DIGEST_ANNOTATION in operation["value"]:
        return {**operation, "value": {**operation["value"], DIGEST_ANNOTATION: said}}
    return operation


def _inject_again(pod: Fields, settings: Settings, plan: Plan) -> Injected | Refused:
    namespace = plan.agent.partition("/")[0]
    own = (pod.get("metadata") or {}).get("namespace")
    if own is not None and own != namespace:
        raise PlanError(f"the gate speaks for namespace {namespace}")
    # The plan of the probes is in a pod that says that it was injected; a gate is one without saying so.
    annotations = {**((pod.get("metadata") or {}).get("annotations") or {}), DIGEST_ANNOTATION: ""}
    said = {**pod, "metadata": {**(pod.get("metadata") or {}), "annotations": annotations}}
    said["metadata"]["labels"] = {
        name: value for name, value in ((pod.get("metadata") or {}).get("labels") or {}).items() if name != INJECT_LABEL
    }
    facts = NamespaceFacts(name=namespace, governed=True)
    outcome = injection.inject(said, namespace=facts, settings=settings, may_opt_out=False)
    if isinstance(outcome, injection.Left):
        raise PlanError("the pod is left alone")
    return outcome


def _faults(outcome: Injected | Refused) -> tuple[str, ...]:
    if isinstance(outcome, Refused):
        return tuple(str(reason) for reason in outcome.reasons)
    changed = [operation["path"] for operation in outcome.patch if operation["path"] not in SAID]
    return tuple(f"{path} is not as the injector makes it" for path in changed)


def _settings(spec: Fields) -> tuple[Settings, Plan]:
    """Raises where a part is missing or another thing."""
    containers = {each["name"]: each for each in spec["initContainers"]}
    volumes = {each["name"]: each for each in spec["volumes"]}
    capture, proxy = containers[sidecar.CAPTURE_CONTAINER], containers[sidecar.PROXY_CONTAINER]
    plan = sidecar.parse(next(entry["value"] for entry in capture["env"] if entry["name"] == sidecar.PLAN_VARIABLE))
    [source] = volumes[sidecar.TOKEN_VOLUME]["projected"]["sources"]
    arguments = proxy["args"]
    settings = Settings(
        image=capture["image"],
        image_pull_policy=capture["imagePullPolicy"],
        authz_addresses=plan.authz_addresses,
        authz_name=plan.authz_name,
        authz_port=plan.authz_port,
        resolver_port=plan.resolver_port,
        audience=source["serviceAccountToken"]["audience"],
        token_seconds=source["serviceAccountToken"]["expirationSeconds"],
        proxy_uid=plan.proxy_uid,
        authorities=volumes[sidecar.AUTHORITIES_VOLUME]["configMap"]["name"],
        capture_resources=capture.get("resources") or {},
        proxy_resources=proxy.get("resources") or {},
        max_heap_bytes=plan.max_heap_bytes,
        drain_seconds=int(arguments[arguments.index("--drain-time-s") + 1]),
    )
    return settings, plan


def _providers(spec: Fields) -> frozenset[Provider]:
    """Those whose SDKs find a placeholder in some container."""
    held = {
        entry["name"]
        for container in injection_app.all_containers(spec)
        for entry in container.get("env") or ()
        if entry.get("value") == variables.PLACEHOLDER
    }
    return frozenset(provider for provider, names in variables.NEEDED_KEYS.items() if held & set(names))
