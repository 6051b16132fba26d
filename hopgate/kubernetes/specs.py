"""The `spec` of each kind as a schema: the fields that `hopgate.resources` reads, their defaults, and what contradicts what.

A default stands here only where it doesn't depend on another field; those that do are the readers' alone.
"""

from __future__ import annotations

from typing import Final

from hopgate.kubernetes import schemas
from hopgate.kubernetes.schemas import Schema, rule
from hopgate.resources import governance
from hopgate.resources.kinds import AgentProtocol, Expectation, PolicyMode, Provider, Tls, ToolProtocol

_SEALED: Final = "(has(self.tls) && self.tls == 'Sealed')"


def agent() -> Schema:
    """As `destinations.agent`."""
    properties = {
        "serviceAccountName": schemas.object_name("The service account that its pods run as; default: the agent's name."),
        "owner": schemas.phrase("Who answers for it."),
        "purpose": schemas.text("What it is for."),
        "version": schemas.phrase("Its version."),
        "protocols": schemas.unique_list(
            "What it answers to. With `A2A` in it, every request must be A2A.",
            schemas.choice("A protocol.", AgentProtocol),
            at_least=1,
            default=[AgentProtocol.A2A.value],
        ),
        "path": schemas.url_path("Where it answers A2A; default: `/`."),
        "service": _service("How others reach it; without it, nobody does."),
        "quarantine": schemas.boolean("Cut it off.", default=False),
    }
    a2a = rule(
        "!has(self.path) || self.protocols.exists(protocol, protocol == 'A2A')",
        "expected no `path` where `protocols` has no `A2A`: it says where that is answered",
        at="path",
    )
    return _spec("A workload that is known, and its owner.", properties, rules=[a2a], default={})


def tool_server() -> Schema:
    """As `destinations.tool_server`."""
    properties = {
        "protocol": schemas.choice("What it speaks.", ToolProtocol),
        "path": schemas.url_path("Where it answers MCP; default: `/mcp`. Only with protocol `MCP`, not with tls `Sealed`."),
        "hosts": _hosts("The outside names that it is reached by; exactly one of `hosts` and `service`."),
        "service": _service("The service inside that it is reached by; exactly one of `hosts` and `service`."),
        **_upstream("`Open` with hosts, `Disabled` with a service"),
        "tools": schemas.named_list("Its tools, with protocol `MCP` and not with tls `Sealed`.", _tool()),
    }
    rules = [
        rule("has(self.service) || has(self.hosts)", "expected exactly one of `service` and `hosts`, got neither", at="hosts"),
        rule("!(has(self.service) && has(self.hosts))", "expected exactly one of `service` and `hosts`, got both", at="service"),
        rule("!(has(self.service) && has(self.port))", "expected no `port` beside `service`, which has its own", at="port"),
        *_upstream_rules("has(self.tls) ? self.tls == 'Open' : !has(self.service)"),
        rule(
            f"!has(self.path) || (self.protocol == 'MCP' && !{_SEALED})",
            "expected no `path` where the gate reads no MCP: it says where that is answered",
            at="path",
        ),
        rule("!has(self.tools) || self.protocol != 'HTTP'", "expected no `tools` with protocol `HTTP`: tools are MCP's", at="tools"),
        _needs_sight("tools", "see which tool is called"),
    ]
    return _spec("An MCP server or an HTTP API that agents may reach.", properties, required=("protocol",), rules=rules)


def model_provider() -> Schema:
    """As `destinations.model_provider`."""
    properties = {
        "provider": schemas.choice("Whose API it speaks; `OpenAI` also for the servers that copy its API.", Provider),
        "hosts": _hosts("The names that it is reached by."),
        **_upstream("`Open`"),
        "models": schemas.unique_list(
            "The models that may be asked for at all; without it, the policies alone decide. Not with tls `Sealed`.",
            schemas.foreign_name("A model's name."),
        ),
    }
    rules = [
        *_upstream_rules("!has(self.tls) || self.tls == 'Open'"),
        _needs_sight("models", "see which model is asked for"),
    ]
    return _spec("An LLM API.", properties, required=("provider", "hosts"), rules=rules)


def policy() -> Schema:
    """As `governance.policy` and `governance.cluster_policy`; the Cedar text itself is read by the admission webhook."""
    test = schemas.mapping(
        "A request and what must come out.",
        {
            "name": schemas.phrase("Its name, each once."),
            "principal": schemas.text('Such as `Hopgate::Agent::"demo/planner"`.', pattern=schemas.whole(governance.ENTITY.pattern)),
            "action": schemas.text("Such as `CallTool`.", pattern=schemas.whole(governance.ACTION.pattern)),
            "resource": schemas.text('Such as `Hopgate::Tool::"demo/weather/forecast"`.', pattern=schemas.whole(governance.ENTITY.pattern)),
            "context": schemas.free_mapping("What Cedar has values for: true, false, whole numbers, strings, lists, mappings."),
            "expect": schemas.choice("What must come out.", Expectation),
        },
        required=("name", "principal", "action", "resource", "expect"),
    )
    properties = {
        "cedar": schemas.not_blank("One or more Cedar policies."),
        "mode": schemas.choice(
            "`Observe` is evaluated and recorded and never changes an answer.", PolicyMode, default=PolicyMode.ENFORCE.value
        ),
        "tests": schemas.named_list("Requests that must be allowed or denied; a policy that fails its own test is refused.", test),
    }
    return _spec("Cedar text.", properties, required=("cedar",))


def identity_provider() -> Schema:
    """As `governance.identity_provider`."""
    properties = {
        "issuer": schemas.issuer("The `iss` of its tokens, exactly; without `#`."),
        "audiences": schemas.unique_list("A token's `aud` must be one of these.", schemas.phrase("An audience."), at_least=1),
        "jwksURI": schemas.key_url("Where its public keys are; exactly one of `jwksURI` and `jwks`."),
        "jwks": schemas.key_set("Its public keys, a JWK Set (RFC 7517); exactly one of `jwksURI` and `jwks`."),
        "userClaim": schemas.phrase("The claim with the user's id.", default="sub"),
        "groupsClaim": schemas.phrase("The claim with the user's groups."),
    }
    rules = [
        rule("has(self.jwksURI) != has(self.jwks)", "expected exactly one of `jwksURI` and `jwks`", at="jwksURI"),
        *schemas.key_url_rules("jwksURI"),
    ]
    return _spec("Whose user tokens are accepted.", properties, required=("issuer", "audiences"), rules=rules)


def shadow_agent() -> Schema:
    """As `governance.shadow_agent`."""
    quarantine = schemas.boolean("Cut it off.", default=False)
    return _spec("What is decided about an agent that nobody registered.", {"quarantine": quarantine}, default={})


def _spec(
    description: str, properties: dict[str, Schema], *, required: tuple[str, ...] = (), rules: list[Schema] | None = None, **more: object
) -> Schema:
    validations = {"x-kubernetes-validations": rules} if rules else {}
    return schemas.mapping(description, properties, required=required, **validations, **more)


def _service(description: str) -> Schema:
    properties = {
        "name": schemas.label("Callers use `NAME.NAMESPACE.svc` or `NAME.NAMESPACE.svc.cluster.local`."),
        "port": schemas.port("The port that callers dial."),
    }
    return schemas.mapping(description, properties, required=("name", "port"))


def _hosts(description: str) -> Schema:
    return schemas.unique_list(description, schemas.host(), at_least=1)


def _upstream(default_tls: str) -> dict[str, Schema]:
    return {
        "port": schemas.port("The port that callers dial; default: 443, and 80 with tls `Disabled`."),
        "address": schemas.dial_target("What the gate dials instead of resolving: `IP`, `IP:PORT`, `[IPv6]` or `[IPv6]:PORT`."),
        "tls": schemas.choice(
            "`Open`: the gate ends TLS, looks inside and speaks TLS upstream. `Sealed`: passed through untouched. `Disabled`: HTTP. "
            f"Default: {default_tls}.",
            Tls,
        ),
        "caBundle": schemas.ca_bundle("PEM certificates of who may sign the upstream's certificate; only with tls `Open`."),
        "credential": schemas.credential("What the gate adds to an allowed request; not with tls `Sealed`."),
    }


def _upstream_rules(is_open: str) -> list[Schema]:
    return [
        *schemas.ca_bundle_rules("caBundle"),
        rule(
            f"!has(self.caBundle) || ({is_open})",
            "expected no `caBundle` without tls `Open`: the gate verifies no certificate there",
            at="caBundle",
        ),
        _needs_sight("credential", "add a header to sealed bytes"),
    ]


def _needs_sight(field: str, purpose: str) -> Schema:
    return rule(f"!has(self.{field}) || !{_SEALED}", f"expected no `{field}` with tls `Sealed`: the gate can't {purpose}", at=field)


def _tool() -> Schema:
    properties = {
        "name": schemas.foreign_name("As in `tools/list`."),
        "inputSchema": schemas.free_mapping("JSON Schema as in `tools/list`; policies see the arguments typed by it."),
    }
    return schemas.mapping("A tool.", properties, required=("name",))
