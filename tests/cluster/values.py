"""Values of the chart: for each key of its schema those that differ in what they do, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_LIMITED = {"requests": {"cpu": 1, "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1Gi"}}
_PEERS = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}, {"ipBlock": {"cidr": "10.1.0.0/16"}}]

_ENVOYS = [
    {"identity": "spiffe://cluster.local/ns/demo/sa/tickets"},
    {"identity": "spiffe://cluster.local/ns/gateways/sa/eg", "namespaces": ["demo", "default"]},
    {"identity": "spiffe://example.org/gateway", "namespaces": ["*"]},
]


def _component(name: str) -> dict[str, Sequence[Any]]:
    return {f"{name}.replicas": (2, 1, 3), **_pods(name)}


def _pods(name: str) -> dict[str, Sequence[Any]]:
    return {
        f"{name}.resources": ({}, _LIMITED),
        f"{name}.nodeSelector": ({}, {"kubernetes.io/os": "linux"}),
        f"{name}.tolerations": ([], [{"key": "dedicated", "operator": "Equal", "value": "gate", "effect": "NoSchedule"}]),
    }


def _spool(name: str) -> dict[str, Sequence[Any]]:
    return {
        f"{name}.spool.type": ("EmptyDir", "Ephemeral", "Claim"),
        f"{name}.spool.size": ("2Gi", "500M"),
        f"{name}.spool.storageClassName": ("", "fast"),
        f"{name}.spool.claimName": ("records", ""),
    }


TABLE: Mapping[str, Sequence[Any]] = {
    "authz.enabled": (True, False),
    "validation.enabled": (True, False),
    "injection.enabled": (True, False),
    "controller.enabled": (True, False),
    "authz.tokenIssuer": ("https://kubernetes.default.svc", "https://oidc.example.com/id/1"),
    **_component("authz"),
    **_spool("authz"),
    "authz.mesh.enabled": (False, True),
    "authz.mesh.trustDomains": (["cluster.local"], []),
    "authz.mesh.envoys": (_ENVOYS, []),
    "authz.mesh.authorities.configMap": ("istio-ca-root-cert", "gateways"),
    "authz.mesh.authorities.key": ("root-cert.pem", "ca.crt"),
    "injection.proxyUser": (1337, 4000),
    "injection.refuseUnknownUsers": (False, True),
    "injection.tokenSeconds": (3600, 600),
    "injection.drainSeconds": (20, 1),
    "injection.proxyHeapMebibytes": (160, 64),
    "injection.proxyResources": ({}, _LIMITED),
    "injection.captureResources": ({}, _LIMITED),
    **_component("webhooks"),
    **_spool("webhooks"),
    **_component("controller"),
    "sensor.enabled": (True, False),
    "sensor.enforce": (False, True),
    **_pods("sensor"),
    **_spool("sensor"),
    "sensor.priorityClassName": ("system-node-critical", ""),
    "secretNamespaces": ([], ["default", "demo"]),
    "certificates.certManager.enabled": (False, True),
    "certificates.certManager.issuerRef.kind": ("Issuer", "ClusterIssuer"),
    "certificates.certManager.issuerRef.name": ("hopgate", ""),
    "networkPolicies.enabled": (True, False),
    "networkPolicies.apiServers": ([], ["10.0.0.7/32", "fd00::7/128"]),
    "networkPolicies.authzFrom": ([], _PEERS),
    "networkPolicies.meshFrom": ([], _PEERS),
    "networkPolicies.metricsFrom": ([], _PEERS),
    "images.prefix": ("", "example.com/team/"),
    "images.tag": ("", "1.2.3"),
    "images.pullPolicy": ("IfNotPresent", "Always", "Never"),
    "images.pullSecrets": ([], [{"name": "registry"}]),
    "images.authz": ("hopgate-authz", "gate/authz"),
    "images.controller": ("hopgate-controller", "gate/controller"),
    "images.proxy": ("hopgate-proxy", "gate/proxy"),
    "images.sensor": ("hopgate-sensor", "gate/sensor"),
    "priorityClassName": ("", "system-cluster-critical"),
}


def sensible(values: Mapping[str, Any]) -> bool:
    """Whether these parts can do with each other; what is not said yet is not held against them."""
    if values.get("injection.enabled") is True and values.get("authz.enabled") is False:
        return False
    if values.get("authz.enabled") is True and values.get("controller.enabled") is False:
        return False
    if values.get("injection.enabled") is True and values.get("controller.enabled") is False:
        return False
    if values.get("certificates.certManager.enabled") and values.get("certificates.certManager.issuerRef.name") == "":
        return False
    if values.get("authz.mesh.enabled") and [] in (values.get("authz.mesh.trustDomains"), values.get("authz.mesh.envoys")):
        return False
    spools = ("authz", "webhooks", "sensor")
    return not any(values.get(f"{name}.spool.type") == "Claim" and values.get(f"{name}.spool.claimName") == "" for name in spools)


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as Helm takes them."""
    made: dict[str, Any] = {}
    for key, value in values.items():
        *folders, last = key.split(".")
        inside = made
        for folder in folders:
            inside = inside.setdefault(folder, {})
        inside[last] = value
    return made
