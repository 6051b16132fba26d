"""Somebody's own Envoy: a listener with mutual TLS before an upstream, and in it what `hopgate envoy config` prints."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hopgate.local import envoy_process
from hopgate.manifests import document
from hopgate.proxy import bootstrap
from tests.authz.requests import tool_call
from tests.end_to_end.gates import DEADLINE_SECONDS, HOPGATE, environment, wait


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnEnvoy:
    """The Envoy, the CA of its mesh, and the certificates of who there is."""

    port: int
    authorities: Path
    people: dict[str, tuple[str, str]]

    def call(self, who: str, tool: str = "search", *, host: str, path: str = "/mcp", **headers: str) -> tuple[int, dict[str, Any]]:
        """The status and the JSON that `who` gets for one tool call."""
        context = ssl.create_default_context(cafile=str(self.authorities))
        context.load_cert_chain(*self.people[who])
        context.check_hostname = False
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS, context=context)
        try:
            named = {"host": host, "content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
            connection.request("POST", path, json.dumps(tool_call(tool, {})), named)
            response = connection.getresponse()
            body = response.read()
            return response.status, json.loads(body) if body.startswith(b"{") else {}
        finally:
            connection.close()


def bootstrap_of_somebody(port: int, upstream: int, folder: Path, printed: dict[str, Any]) -> dict[str, Any]:
    """An Envoy's own listener with mutual TLS, route and cluster, with what was printed in its places."""
    types = "type.googleapis.com/envoy.extensions"
    pair = {"certificate_chain": {"filename": str(folder / "envoy.pem")}, "private_key": {"filename": str(folder / "envoy.key")}}
    tls = {
        "@type": f"{types}.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {"tls_certificates": [pair], "validation_context": {"trusted_ca": {"filename": str(folder / "ca.pem")}}},
    }
    router = {"name": "router", "typed_config": {"@type": f"{types}.filters.http.router.v3.Router"}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "tools"}, **printed.get("route", {})}
    manager = {
        "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "own",
        **printed["http_connection_manager"],
        "http_filters": [*printed["http_filters"], router],
        "route_config": {"virtual_hosts": [{"name": "tools", "domains": ["*"], "routes": [route]}]},
    }
    chain = {"transport_socket": {"name": "tls", "typed_config": tls}, "filters": [{"name": "http", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": upstream}}}}
    own = {"name": "tools", "type": "STATIC", "load_assignment": {"cluster_name": "tools", "endpoints": [{"lb_endpoints": [endpoint]}]}}
    return {
        "node": {"id": "own", "cluster": "own"},
        "static_resources": {
            "listeners": [{"name": "own", "address": address, "filter_chains": [chain]}],
            "clusters": [own, *printed["clusters"]],
            "secrets": printed.get("secrets", []),
        },
    }


def print_config(*options: str) -> dict[str, Any]:
    """What the command prints, read back; as YAML and as JSON it is the same."""
    command = (HOPGATE, "envoy", "config", *options)
    texts = [
        subprocess.run((*command, *form), capture_output=True, text=True, check=True, env=environment()).stdout
        for form in ((), ("--json",))
    ]
    [shown] = document.read(texts[0].encode()).documents
    assert shown.value == json.loads(texts[1])
    return dict(json.loads(texts[1]))


def run(folder: Path, upstream: int, printed: dict[str, Any], people: dict[str, tuple[str, str]], stack: ExitStack) -> OwnEnvoy:
    """Start one with `printed` in its places; `folder` has the CA and the Envoy's own certificate (`ca`, `envoy`)."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = json.dumps(bootstrap_of_somebody(port, upstream, folder, printed))
    bootstrap.check(configuration.encode())
    written = folder / f"own-{port}.json"
    written.write_text(configuration)
    command = (str(envoy_process.find()), "--config-path", str(written), "--disable-hot-restart", "--concurrency", "1")
    with (folder / f"own-{port}.log").open("wb") as log:
        envoy = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    stack.callback(envoy.wait, DEADLINE_SECONDS)
    stack.callback(envoy.terminate)

    def listens() -> bool:
        assert envoy.poll() is None, (folder / f"own-{port}.log").read_text()[-2000:]
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait(listens, "the Envoy listens")
    return OwnEnvoy(port=port, authorities=folder / "ca.pem", people=people)
