"""The webhook configurations (`admissionregistration.k8s.io/v1`), as they have to be: what is asked about, and what an outage means.

- A change of a hopgate object that nobody judged is refused (`Fail`). Deletions are only asked about to be recorded, so an outage does not
  hold them up (`Ignore`): a namespace can always be removed.
- A pod of a governed namespace that nobody injected is refused (`Fail`). No other namespace's pods are asked about, and those of
  kube-system and of hopgate itself never, whatever labels they have: an outage can't keep the cluster, or hopgate, from coming back.

`caBundle` is not written here: it is `certificates.plan`'s, or cert-manager's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hopgate.kubernetes.api import Manifest
from hopgate.kubernetes.certificates import CERT_MANAGER_INJECT
from hopgate.kubernetes.injection_settings import ENABLED, INJECT_LABEL
from hopgate.resources.kinds import GROUP, VERSION

VALIDATE_PATH: Final = "/validate"
INJECT_PATH: Final = "/inject"
# Made by the API server for every namespace (Kubernetes 1.22), and not to be changed by anybody.
_NAME_LABEL: Final = "kubernetes.io/metadata.name"
# The cluster's own: a pod there that can't start may be what this webhook needs to come back.
SYSTEM_NAMESPACES: Final = ("kube-system", "kube-public", "kube-node-lease")
# A review takes a few milliseconds; a second look at the surroundings some hundred.
VALIDATE_SECONDS: Final = 5
INJECT_SECONDS: Final = 5
_KINDS: Final = ("agents", "clusterpolicies", "identityproviders", "modelproviders", "policies", "shadowagents", "toolservers")

# `{"url": …}` or `{"service": {"name", "namespace", "path", "port"}}`, for a path.
ClientConfig = Mapping[str, Any]


def service_client(name: str, namespace: str, path: str, port: int = 443) -> ClientConfig:
    """A webhook that is reached by its Service; its certificate is for `NAME.NAMESPACE.svc`."""
    return {"service": {"name": name, "namespace": namespace, "path": path, "port": port}}


def validating(name: str, client: ClientConfig, *, cert_manager: str | None = None) -> Manifest:
    """The ValidatingWebhookConfiguration. `cert_manager` names the `Certificate` (NAMESPACE/NAME) whose CA cert-manager writes into it."""
    common = {
        "clientConfig": dict(client),
        "admissionReviewVersions": ["v1"],
        "sideEffects": "NoneOnDryRun",
        "timeoutSeconds": VALIDATE_SECONDS,
        "matchPolicy": "Equivalent",
    }
    webhooks = [
        {**common, "name": f"validate.{GROUP}", "failurePolicy": "Fail", "rules": [_rule("CREATE", "UPDATE")]},
        {**common, "name": f"record-deletion.{GROUP}", "failurePolicy": "Ignore", "rules": [_rule("DELETE")]},
    ]
    return _configuration("ValidatingWebhookConfiguration", name, webhooks, cert_manager)


def mutating(name: str, client: ClientConfig, own_namespace: str, *, cert_manager: str | None = None) -> Manifest:
    """The MutatingWebhookConfiguration for pods. `own_namespace` is where hopgate itself runs."""
    selector = [
        {"key": INJECT_LABEL, "operator": "In", "values": [ENABLED]},
        {"key": _NAME_LABEL, "operator": "NotIn", "values": [*SYSTEM_NAMESPACES, own_namespace]},
    ]
    webhook = {
        "name": f"inject.{GROUP}",
        "clientConfig": dict(client),
        "admissionReviewVersions": ["v1"],
        # A dry run is not recorded.
        "sideEffects": "NoneOnDryRun",
        "timeoutSeconds": INJECT_SECONDS,
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        # Another webhook may add containers after this one.
        "reinvocationPolicy": "IfNeeded",
        "namespaceSelector": {"matchExpressions": selector},
        "rules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "Namespaced"},
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": ["UPDATE"],
                "resources": ["pods/ephemeralcontainers"],
                "scope": "Namespaced",
            },
        ],
    }
    return _configuration("MutatingWebhookConfiguration", name, [webhook], cert_manager)


def _rule(*operations: str) -> Mapping[str, Any]:
    """The resources without their `status`, which is the controller's and judged by nobody."""
    return {"apiGroups": [GROUP], "apiVersions": [VERSION], "operations": list(operations), "resources": list(_KINDS), "scope": "*"}


def _configuration(kind: str, name: str, webhooks: list[dict[str, Any]], cert_manager: str | None) -> Manifest:
    annotations = {} if cert_manager is None else {CERT_MANAGER_INJECT: cert_manager}
    metadata: dict[str, Any] = {"name": name, "labels": {"app.kubernetes.io/name": "hopgate"}, "annotations": annotations}
    return {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": metadata, "webhooks": webhooks}
