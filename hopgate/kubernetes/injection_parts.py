"""What the gate adds to a pod beside its own containers: the capture container, the proxy, their volumes.

Every field that the API server would fill in by itself is written out, so that a pod that comes back from it is as it was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hopgate.kubernetes import sidecar
from hopgate.kubernetes.injection_settings import Settings
from hopgate.kubernetes.sidecar import Plan

Fields = dict[str, Any]

_MODE: Final = 0o644
# Envoy is ready in 0.1 s; this bears a node under heavy load, and then the pod starts again.
_STARTUP_TRIES: Final = 120
# Where the ServiceAccount admission plugin mounts the pod's API token, in every container that has nothing there.
API_TOKEN_FOLDER: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a folder
API_TOKEN_VOLUME_PREFIX: Final = "kube-api-access-"  # noqa: S105 - a volume's name
TRUST_MOUNT: Final[Mapping[str, Any]] = {"name": sidecar.TRUST_VOLUME, "mountPath": sidecar.TRUST_FOLDER, "readOnly": True}


def containers(settings: Settings, plan: Plan) -> list[Fields]:
    """The init containers that stand before all others, in order."""
    return [_capture(settings, plan), _proxy(settings)]


def volumes(settings: Settings) -> list[Fields]:
    """The volumes. The token's is mounted by the proxy and by nobody else."""
    token = {"audience": settings.audience, "expirationSeconds": settings.token_seconds, "path": "token"}
    return [
        {"name": sidecar.TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": token}], "defaultMode": _MODE}},
        {"name": sidecar.AUTHORITIES_VOLUME, "configMap": {"name": settings.authorities, "defaultMode": _MODE}},
        {"name": sidecar.CONFIGURATION_VOLUME, "emptyDir": {}},
        {"name": sidecar.ADMIN_VOLUME, "emptyDir": {}},
        {"name": sidecar.TRUST_VOLUME, "emptyDir": {}},
    ]


def _capture(settings: Settings, plan: Plan) -> Fields:
    """As root, since Kubernetes gives no capability to another user; with the one capability that the rules need."""
    return {
        "name": sidecar.CAPTURE_CONTAINER,
        **_image(settings),
        "command": ["python3", "-m", "hopgate.proxy.capture"],
        "env": [
            {"name": sidecar.PLAN_VARIABLE, "value": plan.to_json()},
            {"name": sidecar.POD_ADDRESSES_VARIABLE, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIPs"}}},
        ],
        "resources": _resources(settings.capture_resources),
        "securityContext": {
            **_confined(),
            "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
            "runAsGroup": 0,
            "runAsNonRoot": False,
            "runAsUser": 0,
        },
        "volumeMounts": [
            _mount(sidecar.CONFIGURATION_VOLUME, sidecar.CONFIGURATION_FOLDER),
            _mount(sidecar.TRUST_VOLUME, sidecar.TRUST_FOLDER),
            _mount(sidecar.AUTHORITIES_VOLUME, sidecar.AUTHORITIES_FOLDER, read_only=True),
        ],
    }


def _proxy(settings: Settings) -> Fields:
    """A native sidecar (KEP-753): up before the app's first container starts, told to end when its last one has ended."""
    ready = {"httpGet": {"path": sidecar.READY_PATH, "port": sidecar.HEALTH_PORT, "scheme": "HTTP"}}
    return {
        "name": sidecar.PROXY_CONTAINER,
        **_image(settings),
        "restartPolicy": "Always",
        "command": ["envoy", "--config-path", sidecar.BOOTSTRAP_FILE, "--disable-hot-restart", "--concurrency", "1"],
        "args": ["--drain-time-s", str(settings.drain_seconds), "--log-level", "warning"],
        "ports": [{"name": "hopgate-health", "containerPort": sidecar.HEALTH_PORT, "protocol": "TCP"}],
        "resources": _resources(settings.proxy_resources),
        "securityContext": {
            **_confined(),
            "capabilities": {"drop": ["ALL"]},
            "runAsGroup": settings.proxy_uid,
            "runAsNonRoot": True,
            "runAsUser": settings.proxy_uid,
        },
        "startupProbe": {**ready, "failureThreshold": _STARTUP_TRIES, "periodSeconds": 1, "successThreshold": 1, "timeoutSeconds": 1},
        "readinessProbe": {**ready, "failureThreshold": 3, "periodSeconds": 5, "successThreshold": 1, "timeoutSeconds": 1},
        "lifecycle": {"preStop": {"exec": {"command": ["python3", "-m", "hopgate.proxy.drain"]}}},
        "volumeMounts": [
            _mount(sidecar.CONFIGURATION_VOLUME, sidecar.CONFIGURATION_FOLDER, read_only=True),
            _mount(sidecar.ADMIN_VOLUME, sidecar.ADMIN_FOLDER),
            _mount(sidecar.AUTHORITIES_VOLUME, sidecar.AUTHORITIES_FOLDER, read_only=True),
            _mount(sidecar.TOKEN_VOLUME, sidecar.TOKEN_FOLDER, read_only=True),
        ],
    }


def _image(settings: Settings) -> Fields:
    return {
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _confined() -> Fields:
    return {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _mount(name: str, path: str, *, read_only: bool = False) -> Fields:
    return {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}


def _resources(given: Mapping[str, Mapping[str, str]]) -> Fields:
    """Kubernetes takes a limit for a request that is not given."""
    limits = dict(given.get("limits") or {})
    requests = {**limits, **(given.get("requests") or {})}
    return {**({"limits": limits} if limits else {}), **({"requests": requests} if requests else {})}
