"""The hop token keys of each authz pod, as an object of the cluster that the others watch. Pure: objects in, objects out.

One Lease for a pod, owned by the pod, so that it goes with it. A Lease, since whoever may write these objects can make himself a signer
of hop tokens, and since nothing else of weight is a Lease in a namespace: the right to write ConfigMaps there would also be the right to
change what Envoys are started with. An own kind would do as well and is one more to install.

A Lease counts while the pod that it names exists, runs as authz, and is the pod that the Lease is named after: the garbage collector's
delay, or its absence, keeps no key alive.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hopgate.kubernetes.pods import Pod, Pods

API_VERSION: Final = "coordination.k8s.io/v1"
KIND: Final = "Lease"
LABEL: Final = "hopgate.dev/component"
LABEL_VALUE: Final = "hop-token-keys"
ANNOTATION: Final = "hopgate.dev/hop-token-keys"
_PREFIX: Final = "hopgate-keys-"
# A pod's set holds three keys of some 200 characters each.
_MAX_LENGTH: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthzPods:
    """Which pods are authz: those of this namespace that run as this service account."""

    namespace: str
    service_account: str

    def has(self, pod: Pod) -> bool:
        """Whether this pod is one of them."""
        return (pod.namespace, pod.service_account) == (self.namespace, self.service_account)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodReference:
    """A pod, as its own process knows it from the downward API."""

    namespace: str
    name: str
    uid: str


def name(pod_name: str) -> str:
    """The name of a pod's object."""
    return _PREFIX + pod_name


def manifest(pod: PodReference, jwks: Mapping[str, Any], now: float, state: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The object that publishes a JWK Set as this pod's keys. `now` (Unix seconds) is shown as the time of renewal.

    `state` are the annotations that say how the process stands (`hopgate.kubernetes.authz_state`).
    """
    renewed = dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": name(pod.name),
            "namespace": pod.namespace,
            "labels": {LABEL: LABEL_VALUE},
            "annotations": {**(state or {}), ANNOTATION: json.dumps(jwks, separators=(",", ":"), sort_keys=True)},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}],
        },
        "spec": {"holderIdentity": pod.name, "renewTime": renewed},
    }


def published(objects: Iterable[Mapping[str, Any]], pods: Pods, authz: AuthzPods) -> Mapping[str, Mapping[str, Any]]:
    """The JWK Sets that count, by the uid of their pod. What is no such object is left out: it vouches for nobody."""
    found: dict[str, Mapping[str, Any]] = {}
    for item in objects:
        pod = _owner(item.get("metadata") or {}, pods, authz)
        jwks = _jwks(item.get("metadata") or {})
        if pod is not None and jwks is not None:
            found[pod.uid] = jwks
    return found


def _owner(metadata: Mapping[str, Any], pods: Pods, authz: AuthzPods) -> Pod | None:
    """The authz pod that exists and owns this object, which is named after it."""
    owners: list[Any] = metadata.get("ownerReferences") or []
    if len(owners) != 1 or owners[0].get("kind") != "Pod" or owners[0].get("apiVersion") != "v1":
        return None
    pod = pods.by_uid.get(owners[0].get("uid"))
    if pod is None or not authz.has(pod) or (metadata.get("namespace"), metadata.get("name")) != (pod.namespace, name(pod.name)):
        return None
    return pod


def _jwks(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    text = (metadata.get("annotations") or {}).get(ANNOTATION)
    if not isinstance(text, str) or len(text) > _MAX_LENGTH:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
