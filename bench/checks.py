"""The check that is measured: an MCP tool call as Envoy sends it, on a folder of manifests with 20 policies."""

from __future__ import annotations

import json
from pathlib import Path

from authz.pb import ext_authz_pb2 as pb

CREDENTIAL = "bench-workload-credential"
MANIFESTS = """
apiVersion: hopgate.dev/v1alpha1
kind: Agent
metadata: {name: planner, namespace: bench}
spec: {}
---
apiVersion: hopgate.dev/v1alpha1
kind: Agent
metadata: {name: helper, namespace: bench}
spec: {service: {name: helper, port: 8080}}
---
apiVersion: hopgate.dev/v1alpha1
kind: ToolServer
metadata: {name: tickets, namespace: bench}
spec:
  protocol: MCP
  service: {name: tickets, port: 80}
  address: 127.0.0.1:PORT
  tools:
  - name: search
    inputSchema: {type: object, properties: {limit: {type: integer}, text: {type: string}}, required: [limit]}
---
apiVersion: hopgate.dev/v1alpha1
kind: Policy
metadata: {name: planner, namespace: bench}
spec:
  cedar: |
    permit (principal == Hopgate::Agent::"bench/planner", action == Hopgate::Action::"CallTool",
            resource == Hopgate::Tool::"bench/tickets/search")
    when { context.arguments.limit <= 100 };
    permit (principal == Hopgate::Agent::"bench/planner", action == Hopgate::Action::"SendMessage",
            resource == Hopgate::Agent::"bench/helper");
"""
OTHERS = "".join(
    f"""---
apiVersion: hopgate.dev/v1alpha1
kind: Agent
metadata: {{name: other-{number}, namespace: bench}}
spec: {{}}
---
apiVersion: hopgate.dev/v1alpha1
kind: Policy
metadata: {{name: other-{number}, namespace: bench}}
spec:
  cedar: |
    permit (principal == Hopgate::Agent::"bench/other-{number}", action == Hopgate::Action::"CallTool",
            resource == Hopgate::Tool::"bench/tickets/search");
"""
    for number in range(18)
)
CALL = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "search", "arguments": {"limit": 5, "text": "x" * 480}}}
MESSAGE = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": {"parts": [{"text": "x" * 480}]}}}


def write_manifests(folder: Path, port: int = 9) -> Path:
    """A folder of the manifests, whose tool server is dialled at `port`."""
    folder.mkdir(mode=0o700)
    (folder / "bench.yaml").write_text(MANIFESTS.replace("PORT", str(port)) + OTHERS)
    return folder


def request(host: str, port: int, address: str, body: dict[str, object], path: str = "/mcp") -> bytes:
    """A CheckRequest of 13 headers and about 600 bytes of body."""
    made = pb.CheckRequest()
    attributes = made.attributes
    for peer, ip, number in ((attributes.source, "192.0.2.2", 40_000), (attributes.destination, address, port)):
        peer.address.socket_address.address = ip
        peer.address.socket_address.port_value = number
    http = attributes.request.http
    http.id, http.method, http.path, http.host, http.scheme = "1", "POST", path, host, "http"
    http.raw_body = json.dumps(body).encode()
    http.size = len(http.raw_body)
    headers = {
        ":authority": host,
        ":path": path,
        ":method": "POST",
        "content-type": "application/json",
        "content-length": str(http.size),
        "accept": "application/json, text/event-stream",
        "accept-encoding": "gzip, deflate",
        "connection": "keep-alive",
        "user-agent": "bench",
        "mcp-protocol-version": "2025-06-18",
        "mcp-session-id": "0123456789abcdef0123456789abcdef",
        "x-request-id": "00000000-0000-4000-8000-000000000000",
        "x-envoy-auth-partial-body": "false",
    }
    for name, value in headers.items():
        header = http.header_map.headers.add()
        header.key, header.raw_value = name, value.encode()
    return made.SerializeToString()
