"""A policy's own tests: requests that it must allow or deny, asked of that policy alone.

A test is a request as the gate would ask it: its entities are registered and its context fits the schema, with neutral
values for what the author left out. The policy's mode does not matter: an Observe policy is tested as if it were in force.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from hopgate.policy import cedar, registered, schema
from hopgate.policy.admission import PolicyMistake
from hopgate.policy.index import BoundRule
from hopgate.policy.question import Action, Entity, Judgement, Question
from hopgate.resources.arguments import NO_ARGUMENTS, ArgumentError
from hopgate.resources.kinds import Expectation, Policy, PolicyTest
from hopgate.resources.registry import Registry

_ENTITY = re.compile(r'(?:Hopgate::)?([A-Za-z]+)::"((?:[^"\\]|\\["\\])*)"')
_ACTION = re.compile(r'(?:(?:Hopgate::)?Action::"([A-Za-z]+)"|([A-Za-z]+))')
_HTTP: Final = {"method": "POST", "path": "/", "host": ""}
# What the gate would always send with an action besides `now` and `chain`.
_PARTS: Final[Mapping[Action, Mapping[str, Any]]] = {
    Action.SEND_MESSAGE: {"http": _HTTP, "message": {"kind": "Send"}},
    Action.LIST_TOOLS: {"http": _HTTP},
    Action.CALL_TOOL: {"http": _HTTP, "arguments": {}},
    Action.READ_RESOURCE: {"http": _HTTP, "resource": {"uri": ""}},
    Action.GET_PROMPT: {"http": _HTTP, "prompt": {"name": ""}},
    Action.INVOKE_MODEL: {"http": _HTTP, "model": {"name": "", "stream": False}},
    Action.HTTP_REQUEST: {"http": {**_HTTP, "method": "GET"}},
    Action.USE_PROTOCOL: {"http": _HTTP},
    Action.CONNECT: {"connection": {"serverName": "", "port": 443}},
}


class _UnusableError(Exception):
    """A test that asks no question: why."""


def run(
    policy: Policy,
    rules: Sequence[BoundRule],
    registry: Registry,
    judge_alone: Callable[[Sequence[BoundRule]], Callable[[Question], Judgement]],
) -> list[PolicyMistake]:
    """Run the tests of `policy` against its own `rules` and nothing else; each that fails or can't be asked is a mistake."""
    judge = judge_alone([replace(rule, observed=False) for rule in rules])
    mistakes = []
    for number, test in enumerate(policy.tests):
        try:
            allowed, why = _run_one(test, registry, judge)
        except _UnusableError as unusable:
            mistakes.append(_mistake(policy, number, "InvalidTest", f"test `{test.name}`: {unusable}"))
            continue
        if allowed is not (test.expect is Expectation.ALLOW):
            mistakes.append(_mistake(policy, number, "TestFailed", f"test `{test.name}` expects {test.expect.value}: {why}"))
    return mistakes


def _run_one(test: PolicyTest, registry: Registry, judge: Callable[[Question], Judgement]) -> tuple[bool, str]:
    try:
        question = _question(test, registry)
    except ArgumentError as error:
        return False, f"denied, {error}"
    judgement = judge(question)
    if judgement.errors:
        return False, f"denied, {judgement.errors[0].policy or 'the policy'} failed: {judgement.errors[0].message}"
    if judgement.allowed:
        return True, f"allowed by {', '.join(judgement.policies)}"
    return False, f"forbidden by {', '.join(judgement.policies)}" if judgement.forbidden else "denied, no rule permits it"


def _question(test: PolicyTest, registry: Registry) -> Question:
    """Raises _UnusableError, and ArgumentError for a tool call that the gate would deny before any policy."""
    principal, resource = _entity(test.principal, registry), _entity(test.resource, registry)
    action = _action(test.action)
    server = registered.server(resource)
    tool = registered.declared_tool(resource, registry)
    declared = NO_ARGUMENTS if tool is None else tool.arguments
    context = _context(test, action, principal, resource, server)
    if action is Action.CALL_TOOL:
        context["arguments"] = declared.take(context["arguments"])
    about = cedar.subject(principal, action.value, resource, [])
    misfit = cedar.find_misfit(about, context, schema.for_tool(declared))
    if misfit is not None:
        raise _UnusableError(misfit)
    caller_namespace = registered.object_name(principal).namespace if registered.is_namespaced(principal) else ""
    return Question(
        principal=principal,
        action=action,
        resource=resource,
        server=server,
        context=context,
        caller_namespace=caller_namespace,
        destination_namespace=registered.object_name(resource).namespace if registered.is_namespaced(resource) else caller_namespace,
    )


def _context(test: PolicyTest, action: Action, principal: Entity, resource: Entity, server: Entity | None) -> dict[str, Any]:
    """The test's context over neutral values, part by part."""
    context: dict[str, Any] = {"now": 0, "chain": {"depth": 1, "actors": [principal.id]}, **_PARTS.get(action, {})}
    if action is Action.INVOKE_MODEL and server is not None:
        context["model"] = {**context["model"], "name": resource.id.removeprefix(f"{server.id}/")}
    for name, value in test.context.items():
        default = context.get(name)
        context[name] = {**default, **value} if isinstance(default, Mapping) and isinstance(value, Mapping) else value
    return context


def _entity(text: str, registry: Registry) -> Entity:
    match = _ENTITY.fullmatch(text)
    if match is None:
        raise _UnusableError(f'expected an entity such as Hopgate::Agent::"demo/planner", got `{text[:200]!r}`')
    entity = Entity(match[1], re.sub(r"\\(.)", r"\1", match[2]))
    mistake = registered.find_mistake(entity, registry)
    if mistake is not None:
        raise _UnusableError(mistake[1])
    return entity


def _action(text: str) -> Action:
    match = _ACTION.fullmatch(text)
    try:
        return Action((match[1] or match[2]) if match is not None else text)
    except ValueError:
        raise _UnusableError(f"expected an action such as CallTool, got `{text[:200]!r}`") from None


def _mistake(policy: Policy, number: int, code: str, message: str) -> PolicyMistake:
    path = ("spec", "tests", number)
    return PolicyMistake(namespace=policy.namespace, name=policy.name, line=1, column=1, code=code, message=message, path=path)
