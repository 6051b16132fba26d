"""What stands against a pod in a governed namespace: how it could step over the gate, or take its place. Pure; one function a rule.

Whatever is not known to be harmless is refused: capabilities and network sysctls by a list of those that may be, host paths by a list of
those that lead to other pods' secrets or to the node's own services.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from hopgate.kubernetes import injection_app, sidecar
from hopgate.kubernetes.injection_parts import TRUST_MOUNT
from hopgate.kubernetes.injection_settings import DIGEST_ANNOTATION, Settings

Fields = Mapping[str, Any]


class ReasonCode(StrEnum):
    """Why a pod is refused: stable codes."""

    HOST_NETWORK = "HostNetwork"
    HOST_PID = "HostPid"
    HOST_IPC = "HostIpc"
    SHARED_PROCESSES = "SharedProcesses"
    WINDOWS = "Windows"
    STATIC_POD = "StaticPod"
    EPHEMERAL_CONTAINER = "EphemeralContainer"
    PROXY_USER = "ProxyUser"
    UNKNOWN_USER = "UnknownUser"
    PRIVILEGED = "Privileged"
    PRIVILEGE_ESCALATION = "PrivilegeEscalation"
    CAPABILITY = "Capability"
    PROC_MOUNT = "ProcMount"
    HOST_PATH = "HostPath"
    NETWORK_SYSCTL = "NetworkSysctl"
    TOKEN_AUDIENCE = "TokenAudience"  # noqa: S105 - a code
    RESERVED_NAME = "ReservedName"
    RESERVED_MOUNT = "ReservedMount"
    RESERVED_PORT = "ReservedPort"
    HTTP_HOOK = "HttpHook"
    OPT_OUT = "OptOut"
    MALFORMED = "Malformed"


_WRITTEN: Final = re.compile(r"(?P<field>\S+): (?P<message>[^;]*); (?P<remedy>.*) \((?P<code>[A-Za-z]+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """`field` is where in the pod, as `kubectl explain` writes it with indexes; `remedy` what its owner can do."""

    code: ReasonCode
    field: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}; {self.remedy} ({self.code.value})"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The reason that `str` wrote; None for another text. No message has a semicolon."""
        match = _WRITTEN.fullmatch(text)
        if match is None or match["code"] not in set(ReasonCode):
            return None
        return cls(code=ReasonCode(match["code"]), field=match["field"], message=match["message"], remedy=match["remedy"])


# Capabilities (linux/capability.h) with which nobody gets round rules that hold for every user of the network namespace.
HARMLESS_CAPABILITIES: Final = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "IPC_LOCK",
        "IPC_OWNER",
        "KILL",
        "LEASE",
        "LINUX_IMMUTABLE",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SYS_CHROOT",
        "SYS_NICE",
        "SYS_PACCT",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "WAKE_ALARM",
    }
)

# Of the names below `net.` those that change how sockets behave, not where packets go.
_HARMLESS_SYSCTLS: Final = frozenset(
    {
        "net.core.somaxconn",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
    }
)
_HARMLESS_SYSCTL_PREFIX: Final = "net.ipv4.tcp_"

# A path is refused when it is one of these, lies below one, or holds one.
SENSITIVE_PATHS: Final = (
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/opt/cni",
    "/proc",
    "/root",
    "/run",
    "/sys",
    "/usr",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/crio",
    "/var/lib/docker",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/lib/rancher",
    "/var/log",
    "/var/run",
)
_REFUSED_TYPES: Final = frozenset({"Socket", "BlockDevice", "CharDevice"})
_MIRROR_ANNOTATION: Final = "kubernetes.io/config.mirror"
_HOOKS: Final = ("postStart", "preStop")


def find(pod: Fields, settings: Settings) -> Iterator[Reason]:
    """Every reason. The pod's own containers are judged, and the gate's where somebody else wrote something of that name."""
    metadata, spec = pod.get("metadata") or {}, pod["spec"]
    yield from _of_pod(metadata, spec)
    yield from _reserved_names(metadata, spec)
    for index, volume in enumerate(spec.get("volumes") or ()):
        yield from _of_volume(volume, f"spec.volumes[{index}]", settings)
    yield from _sysctls(spec)
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or ()):
            if container["name"] not in sidecar.CONTAINERS:
                yield from _of_container(container, spec, f"spec.{kind}[{index}]", settings)


def _of_pod(metadata: Fields, spec: Fields) -> Iterator[Reason]:
    shared = (
        ("hostNetwork", ReasonCode.HOST_NETWORK, "the node's network has no gate"),
        ("hostPID", ReasonCode.HOST_PID, "the node's processes lead out of the pod"),
        ("hostIPC", ReasonCode.HOST_IPC, "the node's shared memory leads out of the pod"),
        ("shareProcessNamespace", ReasonCode.SHARED_PROCESSES, "the app could reach into the gate's own process"),
    )
    for name, code, message in shared:
        if spec.get(name):
            yield Reason(code=code, field=f"spec.{name}", message=message, remedy="leave it out")
    if (spec.get("os") or {}).get("name") == "windows":
        yield Reason(code=ReasonCode.WINDOWS, field="spec.os.name", message="the gate is for Linux", remedy="use another namespace")
    if _MIRROR_ANNOTATION in (metadata.get("annotations") or {}):
        yield Reason(
            code=ReasonCode.STATIC_POD,
            field=f"metadata.annotations[{_MIRROR_ANNOTATION}]",
            message="a node's static pod can't be changed, so it can't be governed",
            remedy="run it by a controller, or in another namespace",
        )
    for index, _ in enumerate(spec.get("ephemeralContainers") or ()):
        yield Reason(
            code=ReasonCode.EPHEMERAL_CONTAINER,
            field=f"spec.ephemeralContainers[{index}]",
            message="a container that is added to a running pod chooses its own user and rights",
            remedy="debug a copy of the pod in a namespace that is not governed",
        )


def _reserved_names(metadata: Fields, spec: Fields) -> Iterator[Reason]:
    """Ours in a pod that says it was injected are replaced by real ones; anywhere else they are somebody's own."""
    injected = DIGEST_ANNOTATION in (metadata.get("annotations") or {})
    named = [(f"spec.containers[{index}].name", found["name"]) for index, found in enumerate(spec.get("containers") or ())]
    if not injected:
        named += [(f"spec.initContainers[{index}].name", found["name"]) for index, found in enumerate(spec.get("initContainers") or ())]
        named += [(f"spec.volumes[{index}].name", found["name"]) for index, found in enumerate(spec.get("volumes") or ())]
    for field, name in named:
        if name in sidecar.CONTAINERS | sidecar.VOLUMES:
            yield Reason(
                code=ReasonCode.RESERVED_NAME, field=field, message=f"`{name}` is a name of the gate's own", remedy="choose another name"
            )


def _of_volume(volume: Fields, field: str, settings: Settings) -> Iterator[Reason]:
    host = volume.get("hostPath")
    if host:
        kind = host.get("type") or ""
        path = posixpath.normpath("/" + str(host.get("path") or "").lstrip("/"))
        if kind in _REFUSED_TYPES or any(_touches(path, sensitive) for sensitive in SENSITIVE_PATHS):
            yield Reason(
                code=ReasonCode.HOST_PATH,
                field=f"{field}.hostPath.path",
                message=f"`{path}`{f' ({kind})' if kind else ''} on the node leads past the gate",
                remedy="use a folder that holds data alone, or a persistent volume",
            )
    if volume["name"] in sidecar.VOLUMES:
        return
    for index, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
        if (source.get("serviceAccountToken") or {}).get("audience") == settings.audience:
            yield Reason(
                code=ReasonCode.TOKEN_AUDIENCE,
                field=f"{field}.projected.sources[{index}].serviceAccountToken.audience",
                message=f"a token for `{settings.audience}` is the gate's own credential",
                remedy="ask for another audience",
            )


def _touches(path: str, sensitive: str) -> bool:
    return path == sensitive or path.startswith(f"{sensitive}/") or sensitive.startswith(f"{path.rstrip('/')}/")


def _sysctls(spec: Fields) -> Iterator[Reason]:
    for index, sysctl in enumerate((spec.get("securityContext") or {}).get("sysctls") or ()):
        name = sysctl["name"].replace("/", ".")
        if name.startswith("net.") and name not in _HARMLESS_SYSCTLS and not name.startswith(_HARMLESS_SYSCTL_PREFIX):
            yield Reason(
                code=ReasonCode.NETWORK_SYSCTL,
                field=f"spec.securityContext.sysctls[{index}].name",
                message=f"`{name}` can change where packets go",
                remedy=f"leave it out; {', '.join(sorted(_HARMLESS_SYSCTLS))} and {_HARMLESS_SYSCTL_PREFIX}* may be set",
            )


def _of_container(container: Fields, spec: Fields, field: str, settings: Settings) -> Iterator[Reason]:
    yield from _rights(container, f"{field}.securityContext")
    yield from _user(container, spec, f"{field}.securityContext.runAsUser", settings)
    yield from _mounts(container, field)
    yield from _ports(container, field)
    for hook in _HOOKS:
        action = (container.get("lifecycle") or {}).get(hook) or {}
        for kind in ("httpGet", "tcpSocket"):
            if action.get(kind) and not action[kind].get("host"):
                yield Reason(
                    code=ReasonCode.HTTP_HOOK,
                    field=f"{field}.lifecycle.{hook}.{kind}",
                    message="the kubelet's request would have to pass the gate, which knows no such caller",
                    remedy="use `exec` or `sleep`",
                )


def _rights(container: Fields, field: str) -> Iterator[Reason]:
    context = container.get("securityContext") or {}
    if context.get("privileged"):
        yield Reason(
            code=ReasonCode.PRIVILEGED, field=f"{field}.privileged", message="it could delete the gate's rules", remedy="leave it out"
        )
    if context.get("allowPrivilegeEscalation"):
        yield Reason(
            code=ReasonCode.PRIVILEGE_ESCALATION,
            field=f"{field}.allowPrivilegeEscalation",
            message="a program with a setuid bit could become the proxy's user",
            remedy="leave it out, or say false",
        )
    if (context.get("procMount") or "Default") != "Default":
        yield Reason(
            code=ReasonCode.PROC_MOUNT, field=f"{field}.procMount", message="it could change the network's sysctls", remedy="leave it out"
        )
    for index, name in enumerate((context.get("capabilities") or {}).get("add") or ()):
        if injection_app.normalised_capability(name) not in HARMLESS_CAPABILITIES:
            yield Reason(
                code=ReasonCode.CAPABILITY,
                field=f"{field}.capabilities.add[{index}]",
                message=f"with `{name}` a program could step over the gate, or become the proxy's user",
                remedy="leave it out; set `runAsUser` where a program would have changed its user",
            )


def _user(container: Fields, spec: Fields, field: str, settings: Settings) -> Iterator[Reason]:
    own = (container.get("securityContext") or {}).get("runAsUser")
    user = own if own is not None else (spec.get("securityContext") or {}).get("runAsUser")
    if user == settings.proxy_uid:
        yield Reason(
            code=ReasonCode.PROXY_USER,
            field=field if own is not None else "spec.securityContext.runAsUser",
            message=f"{user} is the user of the gate's proxy, whose packets go their own way",
            remedy="choose another user",
        )
    elif user is None and settings.refuse_unknown_users:
        yield Reason(
            code=ReasonCode.UNKNOWN_USER,
            field=field,
            message="the image decides which user it runs as, and could name the proxy's",
            remedy="say the user's number",
        )


def _mounts(container: Fields, field: str) -> Iterator[Reason]:
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        ours = mount["name"] in sidecar.VOLUMES
        taken = mount["mountPath"].rstrip("/") == sidecar.TRUST_FOLDER
        if (ours or taken) and not (mount["name"] == sidecar.TRUST_VOLUME and dict(mount) == TRUST_MOUNT):
            yield Reason(
                code=ReasonCode.RESERVED_MOUNT,
                field=f"{field}.volumeMounts[{index}]",
                message=f"`{mount['name']}` at `{mount['mountPath']}` is for the gate alone",
                remedy="choose another volume and another path",
            )


def _ports(container: Fields, field: str) -> Iterator[Reason]:
    for index, port in enumerate(container.get("ports") or ()):
        if port.get("containerPort") in sidecar.PORTS:
            yield _taken_port(f"{field}.ports[{index}].containerPort", port["containerPort"])
    for name in injection_app.PROBES:
        if container.get(name) and injection_app.is_rewritten(container[name]):
            yield _taken_port(f"{field}.{name}", sidecar.HEALTH_PORT)


def _taken_port(field: str, port: int) -> Reason:
    return Reason(
        code=ReasonCode.RESERVED_PORT, field=field, message=f"the gate listens at port {port} itself", remedy="choose another port"
    )
