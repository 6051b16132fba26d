"""The manifests of the end-to-end tests."""

from __future__ import annotations

import json

from tests.end_to_end.gates import render

MARKER = "marker-secret-5f2c9a71e0"

_WORLD = """
apiVersion: hopgate.dev/v1alpha1
kind: Agent
metadata: {name: planner, namespace: demo}
spec: {}
---
apiVersion: hopgate.dev/v1alpha1
kind: Agent
metadata: {name: stranger, namespace: demo}
spec: {}
---
apiVersion: hopgate.dev/v1alpha1
kind: Agent
metadata: {name: researcher, namespace: demo}
spec:
  service: {name: researcher, port: 8080}
---
apiVersion: hopgate.dev/v1alpha1
kind: ToolServer
metadata: {name: raw, namespace: demo}
spec:
  protocol: MCP
  service: {name: raw, port: 80}
  address: 127.0.0.1:${raw_port}
  tools:
  - name: search
    inputSchema: {type: object, properties: {limit: {type: integer}}, required: [limit]}
  - name: delete
---
apiVersion: hopgate.dev/v1alpha1
kind: ToolServer
metadata: {name: tickets, namespace: demo}
spec:
  protocol: MCP
  service: {name: tickets, port: 80}
  address: 127.0.0.1:${tickets_port}
---
apiVersion: hopgate.dev/v1alpha1
kind: ToolServer
metadata: {name: steps, namespace: demo}
spec:
  protocol: MCP
  service: {name: steps, port: 80}
  address: 127.0.0.1:${steps_port}
---
apiVersion: hopgate.dev/v1alpha1
kind: ToolServer
metadata: {name: web, namespace: demo}
spec:
  protocol: HTTP
  hosts: [web.example.com]
  address: 127.0.0.1:${web_port}
  caBundle: ${authority}
  credential: {secretRef: {name: web, key: apiKey}, header: x-api-key}
---
apiVersion: hopgate.dev/v1alpha1
kind: ModelProvider
metadata: {name: openai, namespace: demo}
spec:
  provider: OpenAI
  hosts: [api.openai.com]
  address: 127.0.0.1:${model_port}
  caBundle: ${authority}
  models: [gpt-4o-mini, gpt-4o]
  credential: {secretRef: {name: openai, key: apiKey}, header: authorization, prefix: "Bearer "}
---
apiVersion: hopgate.dev/v1alpha1
kind: ModelProvider
metadata: {name: anthropic, namespace: demo}
spec:
  provider: Anthropic
  hosts: [api.anthropic.com]
  address: 127.0.0.1:${anthropic_port}
  caBundle: ${authority}
  models: [claude-small, claude-large]
  credential: {secretRef: {name: openai, key: apiKey}, header: x-api-key}
---
apiVersion: v1
kind: Secret
metadata: {name: openai, namespace: demo}
stringData: {apiKey: ${marker}}
---
apiVersion: v1
kind: Secret
metadata: {name: web, namespace: demo}
stringData: {apiKey: ${marker}}
---
apiVersion: hopgate.dev/v1alpha1
kind: IdentityProvider
metadata: {name: users}
spec:
  issuer: https://login.example
  audiences: [hopgate]
  jwks: ${jwks}
  groupsClaim: groups
"""

POLICY = """
apiVersion: hopgate.dev/v1alpha1
kind: Policy
metadata: {name: planner, namespace: demo}
spec:
  cedar: |
    @id("raw")
    permit (principal == Hopgate::Agent::"demo/planner", action == Hopgate::Action::"CallTool",
            resource == Hopgate::Tool::"demo/raw/search")
    when { context.arguments.limit <= 100 };
    @id("tickets")
    permit (principal, action in [Hopgate::Action::"CallTool", Hopgate::Action::"ListTools"], resource)
    when { !(resource == Hopgate::Tool::"demo/tickets/delete") }
    unless { resource in Hopgate::ToolServer::"demo/raw" };
    @id("message")
    permit (principal == Hopgate::Agent::"demo/planner", action == Hopgate::Action::"SendMessage",
            resource == Hopgate::Agent::"demo/researcher");
    @id("web")
    permit (principal == Hopgate::Agent::"demo/planner", action == Hopgate::Action::"HttpRequest",
            resource == Hopgate::ToolServer::"demo/web")
    when { context.http.path like "/public/*" };
    @id("small")
    permit (principal == Hopgate::Agent::"demo/planner", action == Hopgate::Action::"InvokeModel", resource)
    when { context.model.name == "gpt-4o-mini" || context.model.name == "claude-small" };
"""


def world(*, ports: dict[str, int], authority_pem: bytes, jwks: dict[str, object]) -> dict[str, str]:
    """File name → text."""
    rendered = render(
        _WORLD,
        **{f"{name}_port": port for name, port in ports.items()},
        authority=json.dumps(authority_pem.decode()),
        jwks=json.dumps(jwks),
        marker=MARKER,
    )
    return {"world.yaml": rendered, "policy.yaml": POLICY}
