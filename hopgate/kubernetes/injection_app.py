"""What the gate changes in a pod's own containers, so that they can't step over it and their SDKs work behind it.

Nothing that a container says is taken away, with two exceptions: a provider's key becomes a placeholder, since the gate puts the real one
into each allowed request, and a probe is asked of Envoy, which asks the app. Both can be told: `restore` undoes the second.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from hopgate import variables
from hopgate.kubernetes import sidecar
from hopgate.kubernetes.injection_parts import TRUST_MOUNT
from hopgate.kubernetes.sidecar import PlannedProbe, ProbeKind
from hopgate.resources.kinds import Provider

Fields = dict[str, Any]

PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
# With SETUID a root program could become the proxy's user; raw packets pass the rules by. Container engines give both by default.
DROPPED_CAPABILITIES: Final = ("NET_RAW", "SETUID")
_DEFAULT_PERIOD_SECONDS: Final = 10  # Kubernetes API, Probe
_DEFAULT_TIMEOUT_SECONDS: Final = 1


def all_containers(spec: Mapping[str, Any]) -> list[Fields]:
    """Every container that is not the gate's, init containers first."""
    listed = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return [container for container in listed if container["name"] not in sidecar.CONTAINERS]


def change(container: Fields, *, providers: Iterable[Provider], keep: frozenset[str]) -> None:
    """Make one container safe, in place."""
    _confine(container)
    _set_variables(container, providers, keep)
    mounts = container.setdefault("volumeMounts", [])
    if TRUST_MOUNT not in mounts:
        mounts.append(dict(TRUST_MOUNT))


def plan_probes(container: Fields) -> Iterator[PlannedProbe]:
    """Ask Envoy for each probe that the kubelet would send to the app, in place; what Envoy asks instead."""
    for field in PROBES:
        probe: Fields = container.get(field) or {}
        planned = _planned(container, field, probe)
        if planned is not None:
            del probe[planned.kind.value]
            probe["httpGet"] = {"path": planned.path, "port": sidecar.HEALTH_PORT, "scheme": "HTTP"}
            yield planned


def restore_probes(container: Fields, planned: Mapping[str, PlannedProbe]) -> None:
    """Undo `plan_probes`, by the plan that it gave, in place."""
    for field in PROBES:
        probe = container.get(field)
        known = planned.get(f"{container['name']}/{field}")
        if probe and known is not None and is_rewritten(probe) and probe["httpGet"].get("path") == known.path:
            del probe["httpGet"]
            probe[known.kind.value] = copy.deepcopy(dict(known.action))


def is_rewritten(probe: Mapping[str, Any]) -> bool:
    """Whether a probe asks at the gate's own port."""
    asked = probe.get("httpGet") or probe.get("tcpSocket") or probe.get("grpc") or {}
    return not asked.get("host") and asked.get("port") == sidecar.HEALTH_PORT


def resolve_port(container: Mapping[str, Any], port: object) -> int | None:
    """The number of a port that a probe names. None for a name that the container has not: the kubelet can't ask there either."""
    if isinstance(port, int):
        return port
    numbers = [found["containerPort"] for found in container.get("ports") or () if found.get("name") == port]
    return int(numbers[0]) if numbers else None


def normalised_capability(name: str) -> str:
    """As the kernel spells it, without its prefix. Engines take any case."""
    return name.upper().removeprefix("CAP_")


def _planned(container: Mapping[str, Any], field: str, probe: Mapping[str, Any]) -> PlannedProbe | None:
    for kind in ProbeKind:
        action = probe.get(kind.value)
        if action is None or action.get("host"):
            continue  # with a host the kubelet asks there, from the node: nothing of that passes this pod
        port = resolve_port(container, action.get("port"))
        if port is None:
            continue
        return PlannedProbe(
            name=f"{container['name']}/{field}",
            kind=kind,
            port=port,
            action=copy.deepcopy(action),
            period_seconds=int(probe.get("periodSeconds") or _DEFAULT_PERIOD_SECONDS),
            timeout_seconds=int(probe.get("timeoutSeconds") or _DEFAULT_TIMEOUT_SECONDS),
        )
    return None


def _confine(container: Fields) -> None:
    """No right beyond what the program starts with: files with the proxy's user and its setuid bit are inert then."""
    context = container["securityContext"] = dict(container.get("securityContext") or {})
    if context.get("allowPrivilegeEscalation") is None:
        context["allowPrivilegeEscalation"] = False
    capabilities = context["capabilities"] = dict(context.get("capabilities") or {})
    dropped = list(capabilities.get("drop") or ())
    known = {normalised_capability(name) for name in dropped}
    if "ALL" not in known:
        dropped += [name for name in DROPPED_CAPABILITIES if name not in known]
    capabilities["drop"] = dropped


def _set_variables(container: Fields, providers: Iterable[Provider], keep: frozenset[str]) -> None:
    listed = container.setdefault("env", [])
    for position, entry in enumerate(listed):
        if entry["name"] in variables.PROVIDER_KEYS and entry["name"] not in keep and (entry.get("value") or entry.get("valueFrom")):
            listed[position] = {"name": entry["name"], "value": variables.PLACEHOLDER}
    given = {entry["name"] for entry in listed}
    needed = [names for provider in sorted(providers) for names in (variables.NEEDED_KEYS.get(provider, ()),) if names]
    added = [names[0] for names in needed if not given & set(names)]
    listed += [{"name": name, "value": variables.PLACEHOLDER} for name in added]
    missing = [name for name in variables.TRUST_VARIABLES if name not in given and name not in keep]
    listed += [{"name": name, "value": sidecar.TRUST_BUNDLE} for name in missing]
