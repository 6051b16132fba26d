"""Which pods of governed namespaces are governed, and why the others are not. Pure: objects of the API in, rows out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from hopgate.kubernetes import injection, injection_found
from hopgate.kubernetes.injection_found import GateState
from hopgate.kubernetes.injection_settings import ENABLED, INJECT_LABEL, Settings

Fields = Mapping[str, Any]
_ENDED: Final = frozenset({"Succeeded", "Failed"})
_MIRROR: Final = "kubernetes.io/config.mirror"


class Ungoverned(StrEnum):
    """Why a pod is not governed, or not as it should be: stable codes."""

    MADE_BEFORE_LABEL = "MadeBeforeLabel"
    OPTED_OUT = "OptedOut"
    HOST_NETWORK = "HostNetwork"
    STATIC_POD = "StaticPod"
    NO_GATE = "NoGate"
    BROKEN_GATE = "BrokenGate"
    OTHER_SETTINGS = "OtherSettings"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodRow:
    """One pod that a person should look at."""

    namespace: str
    name: str
    why: Ungoverned
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """All pods that run in governed namespaces: how many are governed, and those that are not."""

    governed: int
    rows: tuple[PodRow, ...]


def cover(namespaces: Iterable[tuple[Fields, Iterable[Fields]]], installed: Settings | None) -> Coverage:
    """The coverage of these namespaces with their pods. Without `installed` no gate is compared with the installation's."""
    governed = 0
    rows: list[PodRow] = []
    for namespace, pods in namespaces:
        labelled_at = labelled(namespace)
        for pod in pods:
            if ((pod.get("status") or {}).get("phase")) in _ENDED:
                continue
            row = _judge(pod, labelled_at, installed)
            if row is None:
                governed += 1
            else:
                rows.append(row)
    return Coverage(governed=governed, rows=tuple(sorted(rows, key=lambda row: (row.namespace, row.name))))


def labelled(namespace: Fields) -> float | None:
    """When the label that governs a namespace was last written (Unix seconds), as far as the API server tells."""
    field = f"f:{INJECT_LABEL}"
    times = [
        seconds(entry.get("time"))
        for entry in (namespace.get("metadata") or {}).get("managedFields") or ()
        if field in (((entry.get("fieldsV1") or {}).get("f:metadata") or {}).get("f:labels") or {})
    ]
    known = [at for at in times if at is not None]
    return max(known) if known else None


def is_governed(namespace: Fields) -> bool:
    """Whether a namespace has the label."""
    return bool(((namespace.get("metadata") or {}).get("labels") or {}).get(INJECT_LABEL) == ENABLED)


def _judge(pod: Fields, labelled_at: float | None, installed: Settings | None) -> PodRow | None:
    found = injection_found.find(pod)
    if found.state is GateState.NONE:
        return _row(pod, *_without(pod, labelled_at))
    if found.state is GateState.BROKEN or found.settings is None:
        return _row(pod, Ungoverned.BROKEN_GATE, "; ".join(found.faults), "make the pod anew, and find out who changed it")
    differing = () if installed is None else injection_found.same_gate(found.settings, installed)
    if differing:
        named = ", ".join(differing)
        return _row(pod, Ungoverned.OTHER_SETTINGS, f"its gate is not the one that new pods get: {named}", "make the pod anew")
    return None


def _without(pod: Fields, labelled_at: float | None) -> tuple[Ungoverned, str, str]:
    metadata, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    made_at = seconds(metadata.get("creationTimestamp"))
    if injection.wants_out(pod):
        return (
            Ungoverned.OPTED_OUT,
            f"its label {INJECT_LABEL}={(metadata.get('labels') or {}).get(INJECT_LABEL)} asks to be left alone",
            "look for `OptOut` in `hopgate audit list --table changes`: without a row there nobody with the right let it in",
        )
    if _MIRROR in (metadata.get("annotations") or {}):
        return Ungoverned.STATIC_POD, "a node's static pod can't be governed", "run it by a controller, or in another namespace"
    if spec.get("hostNetwork"):
        return Ungoverned.HOST_NETWORK, "it uses the node's network, which has no gate", "run it in a namespace that is not governed"
    if made_at is not None and labelled_at is not None and made_at <= labelled_at:
        return Ungoverned.MADE_BEFORE_LABEL, "it was made before the namespace was labelled", "make the pod anew"
    return Ungoverned.NO_GATE, "it was made while no webhook injected pods", "make the pod anew, and see that the webhook is registered"


def _row(pod: Fields, why: Ungoverned, message: str, remedy: str) -> PodRow:
    metadata = pod.get("metadata") or {}
    return PodRow(namespace=str(metadata.get("namespace")), name=str(metadata.get("name")), why=why, message=message, remedy=remedy)


def seconds(text: object) -> float | None:
    """A time of the API (RFC 3339) in Unix seconds; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        return dt.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
