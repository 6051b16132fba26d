"""Pods of a namespace that nobody governs, which call over TLS, and the server that they call: a model's API, or any other, by its name.

The names are in the callers' hosts files, and the authority that vouches for them is the test's: nothing leads out of the node.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.cluster import governed_pods
from tests.cluster.governed_pods import IMAGE
from tests.cluster.node import Node
from tokenmint import authority

MODEL: Final = "api.openai.com"
OTHER: Final = "www.example.com"
ACCOUNT: Final = "writer"
_TRUST: Final = "/etc/world"
_DAY_SECONDS: Final = 86_400

# Answers each line of a connection with one, in both families.
_SERVE = """
import asyncio, ssl

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/etc/world/server.pem")

async def answer(reader, writer):
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()

async def main():
    server = await asyncio.start_server(answer, None, 443, ssl=context)
    await server.serve_forever()

asyncio.run(main())
"""

# Holds a connection of each family open and uses it, and makes new ones all the time; each line tells when what came of which.
_CALL = """
import socket, ssl, sys, time

name = sys.argv[1]
context = ssl.create_default_context(cafile="/etc/world/ca.pem")
held = {}

def open_to(family):
    [(*_, address)] = socket.getaddrinfo(name, 443, family, socket.SOCK_STREAM)
    made = socket.socket(family)
    made.settimeout(5)
    made.connect(address)
    return context.wrap_socket(made, server_hostname=name)

def use(connection):
    connection.sendall(b"hello\\n")
    if not connection.recv(100):
        raise EOFError

def tell(what, family, act):
    try:
        act()
        outcome = "ok"
    except Exception as error:
        outcome = type(error).__name__
    print(f"{time.time():.3f} {what}{4 if family == socket.AF_INET else 6} {outcome}", flush=True)
    return outcome == "ok"

def anew(family):
    with open_to(family) as made:
        use(made)

def again(family):
    if family not in held:
        held[family] = open_to(family)
    use(held[family])

while True:
    for family in (socket.AF_INET, socket.AF_INET6):
        if not tell("held", family, lambda: again(family)):
            held.pop(family, None)
        tell("new", family, lambda: anew(family))
    time.sleep(0.05)  # the pace of its calls
"""


# What a caller tries, again and again: which connection, and the IP version.
WAYS: Final = frozenset((kind, family) for kind in ("held", "new") for family in (4, 6))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one try: `held` is a connection that stays, `new` one for the try alone."""

    at: float
    kind: str
    family: int
    said: str


@dataclass(frozen=True, slots=True)
class Callers:
    """The namespace, its server and its callers."""

    node: Node
    namespace: str

    def start(self, name: str, host: str) -> None:
        """Start a pod that calls `host` all the time, and wait until it runs."""
        addresses = self._pod("server")["status"]["podIPs"]
        container = _running(_CALL, host)
        aliases = [{"ip": each["ip"], "hostnames": [host]} for each in addresses]
        made = governed_pods.pod(self.namespace, name, container, serviceAccountName=ACCOUNT, hostAliases=aliases, volumes=_volumes())
        self.node.apply(made)
        self.node.wait_ready(self.namespace, name)

    def uid(self, name: str) -> str:
        """A pod's UID."""
        return str(self._pod(name)["metadata"]["uid"])

    def container(self, name: str) -> str:
        """The id of a pod's container, without its runtime's name."""
        return str(self._status(name)["containerID"]).rpartition("/")[2]

    def image(self, name: str) -> str:
        """The digest of its image."""
        return str(self._status(name)["imageID"]).rpartition("@")[2]

    def outcomes(self, name: str, since: float = 0.0) -> Sequence[Outcome]:
        """What a caller tells since then, from its log on the node: neither the kubelet nor the API server is needed for it."""
        written = self.node.run("sh", "-c", f"cat /var/log/pods/{self.namespace}_{name}_*/app/*.log")
        # CRI's form: time, stream, whole or partial, text.
        read = [_outcome(line.split(" ", 3)[3]) for line in written.splitlines()]
        return [each for each in read if each.at > since]

    def ways(self, name: str, said: str, since: float = 0.0) -> set[tuple[str, int]]:
        """Of `WAYS`, those of which that came since then."""
        return {(each.kind, each.family) for each in self.outcomes(name, since) if each.said == said}

    def _status(self, name: str) -> dict[str, Any]:
        [found] = self._pod(name)["status"]["containerStatuses"]
        return dict(found)

    def _pod(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.node.server.kubectl("get", "pod", name, "-n", self.namespace, "-o", "json"))
        return found


def make(node: Node) -> Callers:
    """The namespace with its server, ready."""
    namespace = node.namespace()
    now = int(time.time())
    root = authority.create_root(now)
    certificate, key = authority.issue_serving(root, (MODEL, OTHER), now, _DAY_SECONDS)
    files = {"ca.pem": root[0].decode(), "server.pem": (certificate + key.reveal()).decode()}
    metadata = {"name": "world", "namespace": namespace}
    node.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": files},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": namespace}},
        governed_pods.pod(namespace, "server", _running(_SERVE), volumes=_volumes()),
    )
    node.wait_ready(namespace, "server")
    return Callers(node, namespace)


def _running(program: str, *arguments: str) -> dict[str, Any]:
    return {
        "name": "app",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["python3", "-c", program, *arguments],
        "volumeMounts": [{"name": "world", "mountPath": _TRUST}],
    }


def _volumes() -> list[dict[str, Any]]:
    return [{"name": "world", "secret": {"secretName": "world"}}]


def _outcome(line: str) -> Outcome:
    at, what, said = line.split(" ")
    return Outcome(at=float(at), kind=what[:-1], family=int(what[-1]), said=said)
