"""What is asked of the policies, and what they answer: the only values that pass between policy and gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from hopgate.resources.arguments import ArgumentValue

ContextValue = ArgumentValue


class Action(StrEnum):
    """Cedar's actions, in the protocols' own words (`Hopgate::Action::"…"`)."""

    SEND_MESSAGE = "SendMessage"
    LIST_TOOLS = "ListTools"
    CALL_TOOL = "CallTool"
    READ_RESOURCE = "ReadResource"
    GET_PROMPT = "GetPrompt"
    INVOKE_MODEL = "InvokeModel"
    HTTP_REQUEST = "HttpRequest"
    CONNECT = "Connect"
    RESOLVE_NAME = "ResolveName"
    EXECUTE = "Execute"
    READ_FILE = "ReadFile"
    WRITE_FILE = "WriteFile"
    EXCHANGE_TOKEN = "ExchangeToken"  # noqa: S105 - an action's name, not a secret
    USE_PROTOCOL = "UseProtocol"


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """A Cedar entity of namespace `Hopgate`: `type` without the namespace, `id` with any characters."""

    type: str
    id: str

    def __str__(self) -> str:
        return f'{self.type}::"{self.id}"'


def parse_entity(text: str) -> Entity:
    """`Type::"id"`, as `str()` gives it, as a value. Raises ValueError."""
    kind, separator, rest = text.partition('::"')
    if not separator or not rest.endswith('"'):
        raise ValueError(f'expected an entity, `Type::"id"`, got `{text[:80]}`')
    return Entity(kind, rest[:-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One authorization question. `server` is the parent of a tool or model, None for every other resource.

    `caller_namespace` and `destination_namespace` select the namespaced policies that may speak at all.
    """

    principal: Entity
    action: Action
    resource: Entity
    server: Entity | None
    context: Mapping[str, ContextValue]
    caller_namespace: str
    destination_namespace: str

    @property
    def namespace(self) -> str | None:
        """The namespace whose policies may speak beside those of the whole cluster; None where caller and destination differ."""
        return self.caller_namespace if self.caller_namespace == self.destination_namespace else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationError:
    """A policy whose evaluation failed. Cedar skips it; hopgate turns the whole answer into a Deny."""

    policy: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the answer would have been with the Observe policies in force too."""

    allowed: bool
    policies: tuple[str, ...]
    errors: tuple[EvaluationError, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The policies' answer. `allowed` is true only for a clean Allow: a permit, no forbid, no error.

    `policies` are the determining policies' ids: `NAMESPACE/POLICY/RULE` (`POLICY/RULE` for a ClusterPolicy), where RULE is
    the `@id` annotation or the position in the text; after an error, only forbids are named. `forbidden` tells a forbid from the lack
    of a permit. `observed` is None where no Observe policy could match.
    """

    allowed: bool
    policies: tuple[str, ...]
    errors: tuple[EvaluationError, ...]
    observed: Observation | None
    forbidden: bool = False
