"""The kinds of `hopgate.dev/v1alpha1` (and `v1 Secret`) as frozen values.

A value here has passed every check that one object alone can be given; what needs the other objects (duplicate
hosts, missing Secrets) is checked where the registry is built. Both sources, a folder of manifests and the
Kubernetes API, give these same values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from hopgate.identity.names import ObjectName
from hopgate.resources.arguments import RecordType, record_type

GROUP: Final = "hopgate.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"


class SecretValue:
    """Bytes that never print. `reveal()` is the one way out, called by the credential broker alone."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The secret itself. Whoever calls this is responsible for where it goes."""
        return self._value

    def __repr__(self) -> str:
        return "SecretValue(redacted)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretValue) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> Any:
        raise TypeError("a secret value is not pickled")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretKey:
    """One key of one Secret, in the namespace of the resource that refers to it."""

    secret: ObjectName
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """`v1 Secret`: `data` (base64) and `stringData` merged, the latter winning, as Kubernetes does."""

    name: ObjectName
    data: Mapping[str, SecretValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """An upstream's credential and the header that carries it: `header: prefix + secret`."""

    secret: SecretKey
    header: str
    prefix: str = ""


class Tls(StrEnum):
    """What the gate does with the TLS of a hop: end it and look inside, pass it through, or there is none."""

    OPEN = "Open"
    SEALED = "Sealed"
    DISABLED = "Disabled"


class AgentProtocol(StrEnum):
    """What an agent answers to."""

    A2A = "A2A"
    HTTP = "HTTP"


class ToolProtocol(StrEnum):
    """What a tool server speaks."""

    MCP = "MCP"
    HTTP = "HTTP"


class Provider(StrEnum):
    """Whose API a ModelProvider speaks. `OpenAI` also stands for the many servers that copy its API."""

    OPENAI = "OpenAI"
    ANTHROPIC = "Anthropic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Reached inside as `NAME.NAMESPACE.svc`. `port` is what callers dial (1 to 65535)."""

    name: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DialAddress:
    """An IP address (no brackets) and a port that the gate dials."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A workload that is known, and its owner. `path` is where it answers A2A; None: it doesn't."""

    name: ObjectName
    service_account_name: str
    owner: str | None = None
    purpose: str | None = None
    version: str | None = None
    protocols: tuple[AgentProtocol, ...] = (AgentProtocol.A2A,)
    path: str | None = "/"
    service: Service | None = None
    quarantine: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A declared tool. `input_schema` is JSON Schema, as MCP's `tools/list` gives it; None: not declared.

    `arguments` is the type that it gives a call's arguments, made once.
    """

    name: str
    input_schema: Mapping[str, Any] | None = None
    arguments: RecordType = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", record_type(self.input_schema))


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolServer:
    """An MCP server or an HTTP API that agents may reach: by `service`, or by `hosts` and `port`.

    `path` is where it answers MCP; None where the gate reads no MCP.
    """

    name: ObjectName
    protocol: ToolProtocol
    path: str | None = "/mcp"
    service: Service | None = None
    hosts: tuple[str, ...] = ()
    port: int = 443
    address: DialAddress | None = None
    tls: Tls = Tls.OPEN
    ca_bundle: str | None = None
    tools: tuple[Tool, ...] = ()
    credential: Credential | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProvider:
    """An LLM API. An empty `models` leaves the choice of model to the policies."""

    name: ObjectName
    provider: Provider
    hosts: tuple[str, ...]
    port: int = 443
    address: DialAddress | None = None
    tls: Tls = Tls.OPEN
    ca_bundle: str | None = None
    models: tuple[str, ...] = ()
    credential: Credential | None = None


class PolicyMode(StrEnum):
    """Whether a policy decides, or is only recorded beside the decision."""

    ENFORCE = "Enforce"
    OBSERVE = "Observe"


class Expectation(StrEnum):
    """What a policy's own test says must come out."""

    ALLOW = "Allow"
    DENY = "Deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTest:
    """A request that a policy's author says must be allowed or denied. Entities are Cedar's `Type::"id"`."""

    name: str
    principal: str
    action: str
    resource: str
    expect: Expectation
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Cedar text. `namespace` None is a `ClusterPolicy`; else it binds only callers and destinations of its own."""

    namespace: str | None
    name: str
    cedar: str
    mode: PolicyMode = PolicyMode.ENFORCE
    tests: tuple[PolicyTest, ...] = ()

    def __str__(self) -> str:
        return self.name if self.namespace is None else f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityProvider:
    """Whose user tokens are accepted (cluster-scoped). Exactly one of `jwks_uri` and `jwks` is set.

    `user_claim` and `groups_claim` name the claims of a token that hold the user's id and groups.
    """

    name: str
    issuer: str
    audiences: tuple[str, ...]
    jwks_uri: str | None = None
    jwks: Mapping[str, Any] | None = None
    user_claim: str = "sub"
    groups_claim: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowAgent:
    """An agent nobody registered, as the sensor found it (cluster-scoped)."""

    name: str
    quarantine: bool = False


Resource = Agent | ToolServer | ModelProvider | Policy | IdentityProvider | ShadowAgent | Secret
