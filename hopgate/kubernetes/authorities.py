"""What governed namespaces are told to trust: whom as authz, whom as the other end of TLS that the gate opens, and private authorities.

Pure: Secrets, namespaces and ConfigMaps in, ConfigMaps out. One ConfigMap for each governed namespace, mounted by its pods; one that
was made for a namespace stays right for as long as it is there, also when the label has gone, since pods that were made under the label
go on asking authz. A person who makes one with our label has it filled in, for the sidecars of a mesh. hopgate's own namespace has one
for gateways: the Gateway API's BackendTLSPolicy reads a key `ca.crt` in the namespace of the Service.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any, Final

from hopgate.kubernetes.api import Manifest
from hopgate.kubernetes.certificates import Use
from hopgate.kubernetes.injection_settings import ENABLED, INJECT_LABEL
from hopgate.kubernetes.sidecar import AUTHORITIES_CONFIG_MAP, AUTHZ_AUTHORITY_KEY, OPEN_TLS_AUTHORITY_KEY, PRIVATE_AUTHORITIES_KEY
from hopgate.kubernetes.webhook_configurations import SYSTEM_NAMESPACES

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "hopgate"
# gateway.networking.k8s.io/v1 BackendTLSPolicy, validation.caCertificateRefs.
GATEWAY_KEY: Final = "ca.crt"
KEYS: Final = (AUTHZ_AUTHORITY_KEY, OPEN_TLS_AUTHORITY_KEY, PRIVATE_AUTHORITIES_KEY, GATEWAY_KEY)
_DAY: Final = 86_400
# Kubelets follow a ConfigMap within two minutes and Envoy follows the file. The rest is for a node that is cut off for a while.
AUTHZ_PUBLISH_SECONDS: Final = _DAY
# A program reads its trust bundle once, when its pod starts. So the next authority is published at half of this one's life and signs as
# late as can be: a pod must run for 169 days without a restart to be shown a certificate that it doesn't trust.
OPEN_TLS: Final = Use(names=None, publish=_DAY, renewal=183 * _DAY, handover=14 * _DAY, insist=7 * _DAY)


def authz_use(server_name: str) -> Use:
    """The authority of authz's certificate."""
    return Use(names=frozenset({server_name}), publish=AUTHZ_PUBLISH_SECONDS)


def of_cert_manager(secret: Manifest) -> bytes:
    """What cert-manager's Secret says is to be trusted, PEM; empty where it says nothing."""
    data = secret.get("data")
    found = data.get("ca.crt") if isinstance(data, Mapping) else None
    try:
        return base64.b64decode(str(found or ""), validate=True)
    except binascii.Error:
        return b""


def places(namespaces: Iterable[Manifest], config_maps: Iterable[Manifest], own_namespace: str) -> dict[str, Manifest | None]:
    """The namespaces that are to have the ConfigMap, and the one that each has.

    Those with the label, those that were given one, and hopgate's own. Not the cluster's own, whose pods are never governed, and none that
    is being removed: nothing new can be made there.
    """
    found = {each["metadata"]["namespace"]: each for each in config_maps if each["metadata"]["name"] == AUTHORITIES_CONFIG_MAP}
    wanted: dict[str, Manifest | None] = {}
    for namespace in namespaces:
        metadata = namespace["metadata"]
        name = metadata["name"]
        labelled = (metadata.get("labels") or {}).get(INJECT_LABEL) == ENABLED
        given = name in found and (found[name]["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER
        asked = labelled or given or name == own_namespace
        if asked and "deletionTimestamp" not in metadata and name not in SYSTEM_NAMESPACES:
            wanted[name] = found.get(name)
    return wanted


def published(found: Iterable[Manifest | None], key: str) -> tuple[bytes, ...]:
    """What each ConfigMap says under a key. One that is not there keeps nobody waiting: no pod starts without it."""
    return tuple(str((each.get("data") or {}).get(key) or "").encode() for each in found if each is not None)


def config_map(
    namespace: str, found: Manifest | None, bundles: Mapping[str, bytes], private: str | None, owner: Manifest
) -> Manifest | None:
    """What is to be applied (server-side); None where the ConfigMap is as it should be. `owner` is what it goes with.

    `private` is `private_authorities.encode`'s text; None: not known now, what is there stays.
    """
    data = {key: bundle.decode() for key, bundle in bundles.items()}
    kept = ((found or {}).get("data") or {}).get(PRIVATE_AUTHORITIES_KEY) if private is None else private
    if kept is not None:
        data[PRIVATE_AUTHORITIES_KEY] = kept
    if found is not None and _is_right(found, data, owner):
        return None
    metadata: dict[str, Any] = {
        "name": AUTHORITIES_CONFIG_MAP,
        "namespace": namespace,
        "labels": {MANAGED_BY: MANAGER},
        "ownerReferences": [owner],
    }
    if found is not None:
        # What was read is what is written over: somebody else may have published a successor meanwhile.
        metadata["resourceVersion"] = found["metadata"]["resourceVersion"]
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def is_beyond_mending(found: Manifest) -> bool:
    """Whether the ConfigMap has to make room for another: the API server takes no change of it, or not this one."""
    return bool(found.get("immutable")) or any(key in (found.get("binaryData") or {}) for key in KEYS)


def _is_right(found: Manifest, data: Mapping[str, str], owner: Manifest) -> bool:
    metadata = found["metadata"]
    return (
        all((found.get("data") or {}).get(key) == value for key, value in data.items())
        and (metadata.get("labels") or {}).get(MANAGED_BY) == MANAGER
        and owner in (metadata.get("ownerReferences") or ())
        and not is_beyond_mending(found)
    )
