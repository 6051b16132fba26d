"""Pods as people write them: those that are injected, and those that are refused, each beside one that differs in one fact."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from hopgate.kubernetes.injection_settings import NamespaceFacts, Settings
from hopgate.resources.kinds import Provider

Fields = dict[str, Any]

SETTINGS = Settings(
    image="hopgate-proxy:1",
    authz_addresses=("10.96.0.20", "fd00::20"),
    authz_name="hopgate-authz.hopgate-system.svc",
    authz_port=9443,
    resolver_port=5353,
    audience="hopgate-authz",
)
NAMESPACE = NamespaceFacts(name="demo", governed=True, providers=frozenset({Provider.OPENAI}))


def app(**fields: Any) -> Fields:
    return {"name": "app", "image": "planner:1", **fields}


def pod(*containers: Fields, metadata: Fields | None = None, **spec: Any) -> Fields:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "planner", "namespace": "demo", **(metadata or {})},
        "spec": {"serviceAccountName": "planner", "containers": list(containers) or [app()], **spec},
    }


def _http(port: int | str = 8080, path: str = "/healthz", **action: Any) -> Fields:
    return {"httpGet": {"path": path, "port": port, "scheme": "HTTP", **action}}


OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "planner-5d9", "uid": "2b1", "controller": True}

SHAPES: dict[str, Fields] = {
    "bare": pod(),
    "deployment": pod(
        app(ports=[{"name": "http", "containerPort": 8080, "protocol": "TCP"}], resources={"limits": {"memory": "1Gi"}}),
        metadata={
            "name": None,
            "generateName": "planner-5d9-",
            "labels": {"app": "planner", "pod-template-hash": "5d9"},
            "annotations": {"team": "demo"},
            "ownerReferences": [OWNER],
        },
        restartPolicy="Always",
    ),
    "job": pod(app(command=["python", "run.py"]), restartPolicy="Never", activeDeadlineSeconds=600),
    "stateful-set": pod(
        app(volumeMounts=[{"name": "data", "mountPath": "/data"}]),
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data-planner-0"}}],
        hostname="planner-0",
        subdomain="planner",
    ),
    "several-containers": pod(app(), app(name="cache", image="cache:1"), app(name="log", image="log:1")),
    "default-service-account": {**pod(), "spec": {"containers": [app()]}},
    "own-init-container": pod(initContainers=[app(name="migrate", image="migrate:1")]),
    "own-native-sidecar": pod(
        initContainers=[app(name="tracing", restartPolicy="Always", startupProbe=_http(9000, "/up")), app(name="migrate")]
    ),
    "own-plain-sidecar": pod(app(), app(name="tracing", readinessProbe=_http(9000))),
    "http-probes": pod(
        app(
            livenessProbe={**_http(), "periodSeconds": 20, "timeoutSeconds": 3},
            readinessProbe={**_http(path="ready?deep=1"), "initialDelaySeconds": 2},
            startupProbe={**_http(), "failureThreshold": 30, "periodSeconds": 1},
        )
    ),
    "http-probe-named-port": pod(app(ports=[{"name": "web", "containerPort": 8000}], readinessProbe=_http("web"))),
    "http-probe-unknown-port": pod(app(readinessProbe=_http("nowhere"))),
    "http-probe-headers": pod(app(readinessProbe=_http(httpHeaders=[{"name": "Host", "value": "app.example.com"}]))),
    "https-probe": pod(app(readinessProbe=_http(8443, scheme="HTTPS"))),
    "probe-of-another-host": pod(app(readinessProbe=_http(80, host="198.51.100.7"))),
    "tcp-probe": pod(app(livenessProbe={"tcpSocket": {"port": 5432}})),
    "grpc-probe": pod(app(livenessProbe={"grpc": {"port": 9000, "service": "ready"}})),
    "exec-probe": pod(app(livenessProbe={"exec": {"command": ["true"]}})),
    "host-ports": pod(app(ports=[{"containerPort": 8080, "hostPort": 80, "protocol": "TCP"}])),
    "restricted": pod(
        app(
            securityContext={
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            }
        ),
        securityContext={"fsGroup": 2000, "runAsNonRoot": True},
    ),
    "root": pod(app(securityContext={"runAsUser": 0, "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["cap_net_raw"]}})),
    "user-of-the-pod": pod(app(), securityContext={"runAsUser": 1000, "runAsGroup": 1000}),
    "harmless-sysctls": pod(
        securityContext={
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}, {"name": "net.ipv4.tcp_syncookies", "value": "1"}]
        }
    ),
    "own-volumes": pod(
        app(volumeMounts=[{"name": "config", "mountPath": "/etc/app"}, {"name": "scratch", "mountPath": "/tmp"}]),
        volumes=[
            {"name": "config", "configMap": {"name": "planner"}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"audience": "vault", "path": "token"}}]}},
        ],
    ),
    "host-path-of-data": pod(volumes=[{"name": "models", "hostPath": {"path": "/mnt/models", "type": "Directory"}}]),
    "provider-keys": pod(
        app(
            env=[
                {"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": "openai", "key": "apiKey"}}},
                {"name": "ANTHROPIC_API_KEY", "value": "written-out"},
                {"name": "LOG_LEVEL", "value": "debug"},
            ]
        )
    ),
    "kept-variables": pod(
        app(env=[{"name": "GROQ_API_KEY", "value": "kept"}, {"name": "OPENAI_API_KEY", "value": "replaced"}]),
        metadata={"annotations": {"hopgate.dev/keep-env": "GROQ_API_KEY, NODE_EXTRA_CA_CERTS"}},
    ),
    "own-trust-store": pod(app(env=[{"name": "SSL_CERT_FILE", "value": "/app/ca.pem"}, {"name": "HTTPS_PROXY", "value": "http://proxy"}])),
    "dns-elsewhere": pod(dnsPolicy="None", dnsConfig={"nameservers": ["9.9.9.9"], "searches": ["example.com"]}),
    "host-aliases": pod(hostAliases=[{"ip": "203.0.113.9", "hostnames": ["tickets.demo.svc"]}]),
    "own-user-namespace": pod(hostUsers=False),
    "exec-hooks": pod(app(lifecycle={"preStop": {"exec": {"command": ["sleep", "5"]}}, "postStart": {"sleep": {"seconds": 1}}})),
    "no-api-token": pod(automountServiceAccountToken=False),
    "dual-stack-server": pod(app(ports=[{"containerPort": 8080}, {"containerPort": 8081, "protocol": "UDP"}])),
    "opt-out-misspelt": pod(metadata={"labels": {"hopgate.dev/inject": "false"}}),
    "somebody-elses-annotation": pod(metadata={"annotations": {"hopgate.dev/injection": "0123456789abcdef"}}),
}


def _with(change: Callable[[Fields], None], base: Fields | None = None) -> Fields:
    made = copy.deepcopy(base or pod(app(securityContext={"runAsUser": 1000}), initContainers=[app(name="first")], volumes=[]))
    change(made)
    return made


def _context(**fields: Any) -> Callable[[Fields], None]:
    return lambda made: made["spec"]["containers"][0].update(securityContext=fields)


def _spec(**fields: Any) -> Callable[[Fields], None]:
    return lambda made: made["spec"].update(fields)


def _container(**fields: Any) -> Callable[[Fields], None]:
    return lambda made: made["spec"]["containers"][0].update(fields)


def _first(**fields: Any) -> Callable[[Fields], None]:
    return lambda made: made["spec"]["initContainers"][0].update(fields)


def _volume(**source: Any) -> Callable[[Fields], None]:
    return lambda made: made["spec"].update(volumes=[{"name": "given", **source}])


def _capability(*names: str) -> Callable[[Fields], None]:
    return _context(runAsUser=0, capabilities={"add": list(names)})


def _token(audience: str) -> Callable[[Fields], None]:
    return _volume(projected={"sources": [{"serviceAccountToken": {"audience": audience, "path": "t", "expirationSeconds": 3600}}]})


def _sysctl(name: str) -> Callable[[Fields], None]:
    return _spec(securityContext={"sysctls": [{"name": name, "value": "1"}]})


def _host_path(path: str, kind: str = "") -> Callable[[Fields], None]:
    return _volume(hostPath={"path": path, "type": kind})


# What is refused: the code, the pod, and a neighbour that differs in one fact and is injected.
REFUSED: dict[str, tuple[str, Fields, Fields]] = {
    name: (code, _with(refused), _with(accepted))
    for name, code, refused, accepted in [
        ("the proxy's user", "ProxyUser", _context(runAsUser=1337), _context(runAsUser=1338)),
        ("the proxy's user of an init container", "ProxyUser", _first(securityContext={"runAsUser": 1337}), _first(name="other")),
        (
            "the proxy's user of the pod",
            "ProxyUser",
            _spec(securityContext={"runAsUser": 1337}),
            _spec(securityContext={"runAsUser": 1336}),
        ),
        ("privileged", "Privileged", _context(privileged=True), _context(privileged=False)),
        ("NET_ADMIN", "Capability", _capability("NET_ADMIN"), _capability("NET_BIND_SERVICE")),
        ("NET_RAW with its prefix", "Capability", _capability("CAP_NET_RAW"), _capability("CAP_CHOWN")),
        ("SYS_ADMIN in lower case", "Capability", _capability("sys_admin"), _capability("sys_nice")),
        ("SYS_PTRACE", "Capability", _capability("KILL", "SYS_PTRACE"), _capability("KILL")),
        ("BPF", "Capability", _capability("BPF"), _capability()),
        ("SETUID", "Capability", _capability("SETUID"), _capability("SETGID")),
        ("every capability", "Capability", _capability("ALL"), _context(capabilities={"drop": ["ALL"]})),
        ("a capability nobody knows yet", "Capability", _capability("NEW_ONE"), _capability("WAKE_ALARM")),
        (
            "capabilities of an init container",
            "Capability",
            _first(securityContext={"capabilities": {"add": ["NET_ADMIN"]}}),
            _first(securityContext={"capabilities": {"add": ["FOWNER"]}}),
        ),
        (
            "escalation",
            "PrivilegeEscalation",
            _context(allowPrivilegeEscalation=True),
            _context(allowPrivilegeEscalation=False),
        ),
        ("unmasked proc", "ProcMount", _context(procMount="Unmasked"), _context(procMount="Default")),
        ("the node's network", "HostNetwork", _spec(hostNetwork=True), _spec(hostNetwork=False)),
        ("the node's processes", "HostPid", _spec(hostPID=True), _spec(hostPID=False)),
        ("the node's shared memory", "HostIpc", _spec(hostIPC=True), _spec(hostIPC=False)),
        ("shared processes", "SharedProcesses", _spec(shareProcessNamespace=True), _spec(shareProcessNamespace=False)),
        ("Windows", "Windows", _spec(os={"name": "windows"}), _spec(os={"name": "linux"})),
        (
            "a static pod",
            "StaticPod",
            lambda made: made["metadata"].update(annotations={"kubernetes.io/config.mirror": "1"}),
            lambda made: made["metadata"].update(annotations={"kubernetes.io/config.source": "1"}),
        ),
        (
            "an ephemeral container",
            "EphemeralContainer",
            _spec(ephemeralContainers=[{"name": "debug", "image": "debug:1"}]),
            _spec(ephemeralContainers=[]),
        ),
        ("the node's root", "HostPath", _host_path("/"), _host_path("/mnt")),
        ("the kubelet's pods", "HostPath", _host_path("/var/lib/kubelet/pods"), _host_path("/var/lib/models")),
        ("a folder that holds the kubelet's", "HostPath", _host_path("/var/lib"), _host_path("/var/lib/kubelets")),
        ("the container engine's socket", "HostPath", _host_path("/run/containerd/containerd.sock"), _host_path("/srv/run")),
        ("a socket anywhere", "HostPath", _host_path("/srv/x.sock", "Socket"), _host_path("/srv/x.sock", "File")),
        ("proc", "HostPath", _host_path("//proc/"), _host_path("/process")),
        ("pinned BPF programs", "HostPath", _host_path("/sys/fs/bpf"), _host_path("/system")),
        ("a way back up", "HostPath", _host_path("/mnt/../etc"), _host_path("/mnt/etc")),
        ("a sysctl of routes", "NetworkSysctl", _sysctl("net.ipv4.conf.all.route_localnet"), _sysctl("net.core.somaxconn")),
        ("a sysctl with slashes", "NetworkSysctl", _sysctl("net/ipv6/conf/all/forwarding"), _sysctl("net/ipv4/tcp_fin_timeout")),
        ("the gate's audience", "TokenAudience", _token("hopgate-authz"), _token("hopgate-other")),
        ("a container of our name", "ReservedName", _container(name="hopgate-proxy"), _container(name="hopgate-proxy-2")),
        ("an init container of our name", "ReservedName", _first(name="hopgate-capture"), _first(name="capture")),
        (
            "a volume of our name",
            "ReservedName",
            _spec(volumes=[{"name": "hopgate-token", "emptyDir": {}}]),
            _spec(volumes=[{"name": "hopgate-tokens", "emptyDir": {}}]),
        ),
        (
            "the token's volume",
            "ReservedMount",
            _container(volumeMounts=[{"name": "hopgate-token", "mountPath": "/t", "readOnly": True}]),
            _container(volumeMounts=[{"name": "token", "mountPath": "/t", "readOnly": True}]),
        ),
        (
            "a volume over the trust bundle",
            "ReservedMount",
            _container(volumeMounts=[{"name": "given", "mountPath": "/etc/hopgate/trust/"}]),
            _container(volumeMounts=[{"name": "given", "mountPath": "/etc/hopgate/other"}]),
        ),
        ("a port of ours", "ReservedPort", _container(ports=[{"containerPort": 15006}]), _container(ports=[{"containerPort": 15007}])),
        ("a probe at our port", "ReservedPort", _container(livenessProbe=_http(15020)), _container(livenessProbe=_http(15021))),
        (
            "a hook by HTTP",
            "HttpHook",
            _container(lifecycle={"preStop": {"httpGet": {"path": "/stop", "port": 80}}}),
            _container(lifecycle={"preStop": {"exec": {"command": ["stop"]}}}),
        ),
        (
            "what is no pod",
            "Malformed",
            _spec(containers=[{"image": "nameless"}]),
            _spec(containers=[{"image": "named", "name": "app"}]),
        ),
    ]
}
