"""Readers of the kinds that hops go to: Agent, ToolServer, ModelProvider.

Refused beside wrong values: fields that would silently do nothing where they stand, above all a credential, tools, models or a CA
for a Sealed destination, whose bytes the gate can't read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hopgate.identity.names import ObjectName
from hopgate.resources import fields, network, secret
from hopgate.resources.fields import Code, Field, Fields
from hopgate.resources.kinds import (
    Agent,
    AgentProtocol,
    Credential,
    DialAddress,
    ModelProvider,
    Provider,
    SecretKey,
    Service,
    Tls,
    Tool,
    ToolProtocol,
    ToolServer,
)
from hopgate.resources.network import DialTarget

# Where the protocols' own SDKs answer when nothing else is said.
A2A_PATH: Final = "/"
MCP_PATH: Final = "/mcp"
HTTPS_PORT: Final = 443
HTTP_PORT: Final = 80
# Longer than any tool name that MCP recommends (128) and any model's path in a registry of models.
MAX_FOREIGN_NAME: Final = 256

_NO_SERVICE: Final = Service(name="", port=0)
_NO_CREDENTIAL: Final = Credential(secret=SecretKey(secret=ObjectName("default", "unnamed"), key=""), header="")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Upstream:
    """What tool servers and model providers have in common: how the gate reaches them."""

    port: int
    address: DialAddress | None
    tls: Tls
    ca_bundle: str | None
    credential: Credential | None


def agent(name: ObjectName, manifest: Fields) -> Agent:
    """An `Agent`."""
    empty = Agent(name=name, service_account_name=name.name)

    def read(field: Field) -> Agent:
        spec = Fields(field)
        protocols = spec.optional("protocols", fields.items(fields.choice(AgentProtocol), at_least=1), empty.protocols)
        path = spec.optional("path", network.url_path, A2A_PATH)
        if AgentProtocol.A2A not in protocols and spec.has("path"):
            spec.refuse("path", Code.CONTRADICTION, "expected no `path` where `protocols` has no `A2A`: it says where that is answered")
        result = Agent(
            name=name,
            service_account_name=spec.optional("serviceAccountName", network.object_name, name.name),
            owner=spec.optional("owner", fields.phrase, None),
            purpose=spec.optional("purpose", fields.text, None),
            version=spec.optional("version", fields.phrase, None),
            protocols=protocols,
            path=path if AgentProtocol.A2A in protocols else None,
            service=spec.optional("service", _service, None),
            quarantine=spec.optional("quarantine", fields.boolean, False),  # noqa: FBT003 - the field's default
        )
        spec.close()
        return result

    return manifest.optional("spec", read, empty)


def tool_server(name: ObjectName, manifest: Fields) -> ToolServer:
    """A `ToolServer`."""
    empty = ToolServer(name=name, protocol=ToolProtocol.HTTP)

    def read(field: Field) -> ToolServer:
        spec = Fields(field)
        protocol = spec.required("protocol", fields.choice(ToolProtocol), empty.protocol)
        hosts: tuple[str, ...] = spec.optional("hosts", fields.items(network.host, at_least=1), ())
        service = spec.optional("service", _service, None)
        _require_one_way(spec)
        upstream = _upstream(spec, name, service)
        tools: tuple[Tool, ...] = spec.optional("tools", fields.items(_tool), ())
        _refuse_repeated_tools(spec, tools)
        path = spec.optional("path", network.url_path, MCP_PATH)
        reads_mcp = protocol is ToolProtocol.MCP and upstream.tls is not Tls.SEALED
        if not reads_mcp and spec.has("path"):
            spec.refuse("path", Code.CONTRADICTION, "expected no `path` where the gate reads no MCP: it says where that is answered")
        if protocol is ToolProtocol.HTTP and spec.has("tools"):
            spec.refuse("tools", Code.CONTRADICTION, "expected no `tools` with protocol `HTTP`: tools are MCP's")
        if upstream.tls is Tls.SEALED and spec.has("tools"):
            spec.refuse("tools", Code.CONTRADICTION, "expected no `tools` with tls `Sealed`: the gate can't see which tool is called")
        spec.close()
        return ToolServer(
            name=name,
            protocol=protocol,
            path=path if reads_mcp else None,
            service=service,
            hosts=hosts,
            port=upstream.port,
            address=upstream.address,
            tls=upstream.tls,
            ca_bundle=upstream.ca_bundle,
            tools=tools,
            credential=upstream.credential,
        )

    return manifest.required("spec", read, empty)


def model_provider(name: ObjectName, manifest: Fields) -> ModelProvider:
    """A `ModelProvider`."""
    empty = ModelProvider(name=name, provider=Provider.OPENAI, hosts=())

    def read(field: Field) -> ModelProvider:
        spec = Fields(field)
        provider = spec.required("provider", fields.choice(Provider), empty.provider)
        hosts: tuple[str, ...] = spec.required("hosts", fields.items(network.host, at_least=1), ())
        upstream = _upstream(spec, name, None)
        models: tuple[str, ...] = spec.optional("models", fields.items(_foreign_name), ())
        if upstream.tls is Tls.SEALED and spec.has("models"):
            spec.refuse("models", Code.CONTRADICTION, "expected no `models` with tls `Sealed`: the gate can't see which model is asked for")
        spec.close()
        return ModelProvider(
            name=name,
            provider=provider,
            hosts=hosts,
            port=upstream.port,
            address=upstream.address,
            tls=upstream.tls,
            ca_bundle=upstream.ca_bundle,
            models=models,
            credential=upstream.credential,
        )

    return manifest.required("spec", read, empty)


def _require_one_way(spec: Fields) -> None:
    if spec.has("service") == spec.has("hosts"):
        came = "both" if spec.has("service") else "neither"
        field = "service" if spec.has("service") else "hosts"
        code = Code.CONTRADICTION if spec.has("service") else Code.MISSING_FIELD
        spec.refuse(field, code, f"expected exactly one of `service` and `hosts`, got {came}")


def _upstream(spec: Fields, name: ObjectName, service: Service | None) -> _Upstream:
    inside = spec.has("service")
    tls = spec.optional("tls", fields.choice(Tls), Tls.DISABLED if inside else Tls.OPEN)
    port = spec.optional("port", network.port, HTTP_PORT if tls is Tls.DISABLED else HTTPS_PORT)
    if inside and spec.has("port"):
        spec.refuse("port", Code.CONTRADICTION, "expected no `port` beside `service`, which has its own")
    if service is not None:
        port = service.port
    target = spec.optional("address", network.dial_target, DialTarget(ip="", port=None))
    bundle = spec.optional("caBundle", network.ca_bundle, "")
    if tls is not Tls.OPEN and spec.has("caBundle"):
        spec.refuse(
            "caBundle", Code.CONTRADICTION, f"expected no `caBundle` with tls `{tls.value}`: the gate verifies no certificate there"
        )
    credential = spec.optional("credential", lambda field: _credential(field, name), _NO_CREDENTIAL)
    if tls is Tls.SEALED and spec.has("credential"):
        spec.refuse(
            "credential", Code.CONTRADICTION, "expected no `credential` with tls `Sealed`: the gate can't add a header to sealed bytes"
        )
    return _Upstream(
        port=port,
        address=target.with_port(port) if spec.has("address") else None,
        tls=tls,
        ca_bundle=bundle or None,
        credential=credential if spec.has("credential") else None,
    )


def _service(field: Field) -> Service:
    service = Fields(field)
    result = Service(
        name=service.required("name", network.label, _NO_SERVICE.name),
        port=service.required("port", network.port, _NO_SERVICE.port),
    )
    service.close()
    return result


def _credential(field: Field, owner: ObjectName) -> Credential:
    credential = Fields(field)
    result = Credential(
        secret=credential.required("secretRef", lambda reference: secret.key_reference(reference, owner.namespace), _NO_CREDENTIAL.secret),
        header=credential.required("header", network.credential_header, ""),
        prefix=credential.optional("prefix", network.credential_prefix, ""),
    )
    credential.close()
    return result


def _tool(field: Field) -> Tool:
    tool = Fields(field)
    result = Tool(
        name=tool.required("name", _foreign_name, ""),
        input_schema=tool.optional("inputSchema", fields.json_mapping, None),
    )
    tool.close()
    return result


def _refuse_repeated_tools(spec: Fields, tools: tuple[Tool, ...]) -> None:
    names = [tool.name for tool in tools if tool.name]
    for name in sorted({name for name in names if names.count(name) > 1}):
        spec.refuse("tools", Code.REPEATED, f"expected each tool once, got {fields.quote(name)} {names.count(name)} times")


def _foreign_name(field: Field) -> str:
    value = fields.phrase(field)
    if len(value) > MAX_FOREIGN_NAME or value != value.strip():
        raise field.refusal(Code.INVALID_VALUE, f"expected at most {MAX_FOREIGN_NAME} characters without blanks around them")
    return value
