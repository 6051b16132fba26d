"""From inside an agent's container, as root where the pod asked for it: each way around the gate leads nowhere."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster import governed_pods
from tests.cluster.api_server import ClusterError, eventually
from tests.cluster.governed_pods import PERMITTED_PATH, Place
from tests.cluster.installed import Installed

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

# Runs the expression of its first argument, and writes what came of it: an exception's name, or the value.
_TRY = """
import contextlib, ctypes, glob, json, os, socket, ssl, sys, urllib.error, urllib.request

def status(url):
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code

def http(address, port):
    with socket.create_connection((address, port), 20) as made:
        made.settimeout(20)
        # Closed without an answer is an end of the stream, or a reset where the request came after the close.
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            made.sendall(b"GET /etc/hostname HTTP/1.1\\r\\nHost: elsewhere.example\\r\\nConnection: close\\r\\n\\r\\n")
            return made.recv(4096).split(b"\\r\\n")[0].decode()
        return ""

def tls(address, port):
    context = ssl._create_unverified_context()
    with socket.create_connection((address, port), 20) as plain, context.wrap_socket(plain, server_hostname="elsewhere.example"):
        return "connected"

def datagram(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        made.connect((address, port))
        made.send(b"x" * 1200)
        return "sent"

def own(kind, *more):
    with socket.socket(kind, *more):
        return "made"

def ask(server, name):
    # The response code (RFC 1035, 4.1.1) to a question for an address, over UDP and over TCP.
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = bytes([0, 7, 1, 0, 0, 1]) + bytes(6) + labels + bytes([0, 0, 1, 0, 1])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.settimeout(20)
        made.connect((server, 53))
        made.send(question)
        code = made.recv(512)[3] & 15
    with socket.create_connection((server, 53), 20) as made:
        made.sendall(len(question).to_bytes(2, "big") + question)
        return [code, made.recv(512)[5] & 15]

def call(number, *values):
    libc = ctypes.CDLL(None, use_errno=True)
    return os.strerror(ctypes.get_errno()) if libc.syscall(number, *values) else "done"

try:
    print(json.dumps(eval(sys.argv[1])))
except Exception as error:
    print(json.dumps(type(error).__name__))
"""
_CAPABILITIES = "[line.split()[1] for line in open('/proc/self/status') if line.startswith('CapEff')][0]"
# linux/capability.h
_SETUID, _NET_ADMIN, _NET_RAW, _SYS_PTRACE, _SYS_ADMIN = 7, 12, 13, 19, 21


@pytest.fixture(scope="module")
def place(installed: Installed) -> Place:
    return governed_pods.make(installed)


@pytest.fixture(scope="module", params=["root", "a plain user"])
def app(place: Place, request: pytest.FixtureRequest) -> str:
    user = 0 if request.param == "root" else 10001
    return governed_pods.start_agent(place, f"caller-{user}", securityContext={"runAsUser": user})


def attempt(place: Place, app: str, expression: str) -> Any:
    return json.loads(place.run(app, _TRY, expression))


def test_what_is_permitted_passes_and_what_is_not_is_refused_and_recorded(place: Place, app: str) -> None:
    assert attempt(place, app, f"status('{place.url}{PERMITTED_PATH}')") == 200
    assert attempt(place, app, f"status('{place.url}/etc/passwd')") == 403
    verdicts = {record["verdict"] for record in place.installed.decisions(place.agents) if record["action"] == "HttpRequest"}
    assert verdicts == {"Allow", "Deny"}


@pytest.mark.parametrize("version", [4, 6])
def test_another_pods_own_address_is_refused_and_recorded(place: Place, app: str, version: int) -> None:
    before = len(place.installed.decisions(place.agents))
    assert attempt(place, app, f"http('{place.address(version)}', 8080)") == "HTTP/1.1 403 Forbidden"
    [record] = place.installed.decisions(place.agents)[before:]
    assert (record["caller"], record["verdict"], record["reason"]) == (place.agent, "Deny", "UnknownDestination")


@pytest.mark.parametrize(
    ("address", "port"),
    [("10.96.0.1", 443), ("10.245.0.1", 10250), ("169.254.169.254", 80), ("fd00:10:245::1", 10250), ("203.0.113.9", 80)],
    ids=["the API server", "the kubelet", "cloud metadata", "the node over IPv6", "outside"],
)
def test_what_nobody_registered_is_refused(place: Place, app: str, address: str, port: int) -> None:
    assert attempt(place, app, f"http('{address}', {port})") == "HTTP/1.1 403 Forbidden"
    assert attempt(place, app, f"tls('{address}', {port})") in {"SSLEOFError", "SSLZeroReturnError", "ConnectionResetError"}


@pytest.mark.parametrize("address", ["203.0.113.9", "2001:db8::9", "10.245.0.1"])
@pytest.mark.parametrize("port", [443, 123])
def test_datagrams_are_refused_at_once(place: Place, app: str, address: str, port: int) -> None:
    assert attempt(place, app, f"datagram('{address}', {port})") in {"PermissionError", "OSError"}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("own(socket.AF_INET, socket.SOCK_RAW, 1)", "PermissionError"),
        ("own(socket.AF_INET6, socket.SOCK_RAW, 58)", "PermissionError"),
        ("own(socket.AF_PACKET, socket.SOCK_RAW)", "PermissionError"),
        ("os.setuid(1337)", "PermissionError"),
        ("os.seteuid(1337)", "PermissionError"),
        ("call(272, 0x40000000)", "Operation not permitted"),  # unshare(CLONE_NEWNET), x86-64
        ("call(272, 0x00020000)", "Operation not permitted"),  # unshare(CLONE_NEWNS)
        ("http('127.0.0.1', 15001)", ""),
        ("http('127.0.0.1', 15006)", ""),
        ("http('127.0.0.1', 15000)", "ConnectionRefusedError"),
        ("http('127.0.0.1', 15020)", "HTTP/1.1 404 Not Found"),
        ("socket.getaddrinfo('elsewhere.example', 443)", "gaierror"),
        ("glob.glob('/var/run/secrets/hopgate.dev/*') + glob.glob('/run/hopgate/*/*') + glob.glob('/etc/hopgate/proxy/*')", []),
        ("[name for name in glob.glob('/proc/[0-9]*/comm') if 'envoy' in open(name).read()]", []),
        ("open('/proc/sys/net/ipv4/ip_forward', 'w')", "OSError"),
    ],
)
def test_rights_and_places_that_would_lead_around_the_gate_are_not_there(place: Place, app: str, expression: str, expected: Any) -> None:
    assert attempt(place, app, expression) == expected


def test_no_capability_is_left_that_changes_rules_users_or_packets(place: Place, app: str) -> None:
    held = int(attempt(place, app, _CAPABILITIES), 16)
    assert [number for number in (_SETUID, _NET_ADMIN, _NET_RAW, _SYS_PTRACE, _SYS_ADMIN) if held >> number & 1] == []


@pytest.mark.parametrize("server", ["127.0.0.1", "203.0.113.53", "10.96.0.10"])
def test_whatever_server_is_asked_the_gates_resolver_answers(place: Place, app: str, server: str) -> None:
    known, unknown = (attempt(place, app, f"ask('{server}', '{name}')") for name in (f"web.{place.tools}.svc", "elsewhere.example"))
    assert (known, unknown) == ([0, 0], [3, 3])


@pytest.mark.parametrize(
    ("spec", "container", "code"),
    [
        ({"hostNetwork": True}, {}, "HostNetwork"),
        ({"hostPID": True}, {}, "HostPid"),
        ({"shareProcessNamespace": True}, {}, "SharedProcesses"),
        ({}, {"securityContext": {"privileged": True}}, "Privileged"),
        ({}, {"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}, "Capability"),
        ({}, {"securityContext": {"runAsUser": 1337}}, "ProxyUser"),
        (
            {"volumes": [{"name": "node", "hostPath": {"path": "/"}}]},
            {"volumeMounts": [{"name": "node", "mountPath": "/node"}]},
            "HostPath",
        ),
    ],
)
def test_a_pod_that_could_step_over_the_gate_is_refused(place: Place, spec: dict[str, Any], container: dict[str, Any], code: str) -> None:
    made = governed_pods.pod(place.agents, "over", governed_pods.waiting(**container), serviceAccountName="caller", **spec)
    with pytest.raises(ClusterError, match=rf"\({code}\)"):
        place.installed.node.apply(made)


def test_nobody_enters_or_adds_to_a_running_pods_gate(place: Place, app: str) -> None:
    kubectl = place.installed.server.kubectl
    with pytest.raises(ClusterError, match="EphemeralContainer"):
        kubectl("debug", app, "-n", place.agents, f"--image={governed_pods.IMAGE}", "--target=app", "--", "true")
    tenant = place.installed.server.user("tenant")
    kubectl("create", "rolebinding", f"edits-{app}", "-n", place.agents, "--clusterrole=edit", f"--user={tenant.name}")
    enter = ("exec", app, "-n", place.agents, "-c")
    eventually(lambda: kubectl(*enter, "app", "--", "true", user=tenant) == "", "the right is in force")
    with pytest.raises(ClusterError, match="not to be entered"):
        kubectl(*enter, "hopgate-proxy", "--", "true", user=tenant)
