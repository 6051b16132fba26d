"""The index leaves out only what cannot match: slices answer as the whole set does, and as a reference authoriser of thirty lines.

The generated policies are values (`Sketch`); their Cedar text and the reference's answer are both made from the value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hopgate.policy import cedar
from hopgate.policy.bundle import PolicyBundle
from hopgate.policy.index import BoundRule, Index
from hopgate.policy.question import Action, Entity, Question
from hopgate.policy.scope import Constraint, Scope
from hopgate.resources.kinds import Policy, PolicyMode
from tests.hopgate.policy import world

KNOWN = world.registry()
BIG = 2**63 - 1
Context = Mapping[str, Any]
# Each condition's text, and what it says of a context (and of the caller's id); None where it errs.
CONDITIONS: Mapping[str, Callable[[Context, str], bool | None]] = {
    "": lambda context, caller: True,
    "when { context.now <= 1000 }": lambda context, caller: context["now"] <= 1000,
    "unless { context.now <= 1000 }": lambda context, caller: context["now"] > 1000,
    "when { context.now + 1 > 1000 }": lambda context, caller: None if context["now"] == BIG else context["now"] + 1 > 1000,
    'when { context has http && context.http.method == "GET" }': lambda context, caller: context["http"]["method"] == "GET",
    'when { context.chain.actors.contains("demo/planner") }': lambda context, caller: "demo/planner" in context["chain"]["actors"],
    "when { context has onBehalfOf }": lambda context, caller: "onBehalfOf" in context,
    "when { principal has owner }": lambda context, caller: caller == "demo/planner",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """A policy as a value: one rule in a resource of its own. `namespace` None is a ClusterPolicy."""

    namespace: str | None
    observed: bool
    permits: bool
    scope: Scope
    condition: str

    def cedar(self) -> str:
        actions = self.scope.actions
        listed = "" if actions is None else f" in [{', '.join(f'Hopgate::Action::{chr(34)}{name}{chr(34)}' for name in sorted(actions))}]"
        principal, resource = (
            f"{name}{_written(part)}" for name, part in (("principal", self.scope.principal), ("resource", self.scope.resource))
        )
        return f"{'permit' if self.permits else 'forbid'} ({principal}, action{listed}, {resource}) {self.condition};"


def _written(part: Constraint) -> str:
    kind = "" if part.type is None else f" is Hopgate::{part.type}"
    if part.entity is None:
        return kind
    return f'{kind} {"in" if part.below else "=="} Hopgate::{part.entity.type}::"{part.entity.id}"'


def _reference(sketches: Sequence[Sketch], asked: Question) -> tuple[bool, set[int], set[int]]:
    """Allowed or not, the determining positions, the erring positions: Cedar's rules and the bindings of namespaces, told again."""
    permits: set[int] = set()
    forbids: set[int] = set()
    errors: set[int] = set()
    namespaces = {asked.caller_namespace, asked.destination_namespace}
    for position, sketch in enumerate(sketches):
        if sketch.namespace is not None and namespaces != {sketch.namespace}:
            continue
        if sketch.scope.actions is not None and asked.action.value not in sketch.scope.actions:
            continue
        if not _is_in_scope(sketch.scope.principal, asked.principal, None) or not _is_in_scope(
            sketch.scope.resource, asked.resource, asked.server
        ):
            continue
        holds = CONDITIONS[sketch.condition](asked.context, asked.principal.id)
        if holds is None:
            errors.add(position)
        elif holds:
            (permits if sketch.permits else forbids).add(position)
    if forbids:
        return False, forbids, errors
    return bool(permits) and not errors, set() if errors else permits, errors


def _is_in_scope(part: Constraint, entity: Entity, server: Entity | None) -> bool:
    if part.type not in {None, entity.type}:
        return False
    return part.entity is None or part.entity in ({entity, server} if part.below else {entity})


PRINCIPALS = [world.PLANNER, world.RESEARCHER, world.OUTSIDER]
RESOURCES = [
    world.RESEARCHER,
    world.TICKETS,
    world.OPEN_SERVER,
    world.OTHER_SERVER,
    world.OPENAI,
    world.SEARCH_TOOL,
    world.DELETE_TOOL,
    Entity("Tool", "demo/open/search"),
    Entity("Tool", "other/tickets/search"),
    world.SMALL_MODEL,
]


def _constraints(entities: Sequence[Entity], types: Sequence[str]) -> st.SearchStrategy[Constraint]:
    entity = st.sampled_from(entities)
    return (
        st.just(Constraint())
        | st.builds(lambda name: Constraint(type=name), st.sampled_from(types))
        | st.builds(lambda it: Constraint(entity=it), entity)
        | st.builds(lambda it: Constraint(entity=it, below=True), entity)
        | st.builds(lambda name, it: Constraint(type=name, entity=it, below=True), st.sampled_from(types), entity)
    )


SCOPES = st.builds(
    lambda principal, actions, resource: Scope(principal=principal, actions=actions, resource=resource),
    _constraints(PRINCIPALS, ["Agent", "User"]),
    st.none() | st.frozensets(st.sampled_from([action.value for action in Action]), min_size=1, max_size=3),
    _constraints(RESOURCES, ["Agent", "ToolServer", "Tool", "ModelProvider", "Model"]),
)
SKETCHES = st.builds(
    lambda namespace, observed, permits, scope, condition: Sketch(
        namespace=namespace, observed=observed, permits=permits, scope=scope, condition=condition
    ),
    st.sampled_from([None, None, "demo", "other"]),
    st.sampled_from([False, False, False, True]),
    st.sampled_from([True, True, False]),
    SCOPES,
    st.sampled_from(sorted(CONDITIONS)),
)
SETS = st.lists(SKETCHES, max_size=12)


def _question(action: Action, between: tuple[Entity, Entity], now: int, method: str, user: bool) -> Question:
    asked = world.question(action, between[1], principal=between[0], now=now)
    context = {**asked.context, "http": {**world.HTTP, "method": method}}
    return replace(asked, context={**context, "onBehalfOf": {"user": "ann", "issuer": "i", "groups": []}} if user else context)


QUESTIONS = st.builds(
    _question,
    st.sampled_from(list(Action)),
    st.tuples(st.sampled_from(PRINCIPALS), st.sampled_from(RESOURCES)),
    st.sampled_from([1, 1000, 1001, BIG]),
    st.sampled_from(["GET", "POST"]),
    st.booleans(),
)
# Questions on other actions: housekeeping adds to what Cedar itself says, and has its own tests.
PLAIN = QUESTIONS.filter(lambda asked: asked.action is not Action.USE_PROTOCOL)


def _bound(sketches: Sequence[Sketch]) -> list[BoundRule]:
    """The sketches as rules in force, without admission: it would refuse the many that can never match."""
    return [
        BoundRule(
            id=f"{position}",
            policy=f"{position}",
            binding=sketch.namespace,
            observed=sketch.observed,
            rule=cedar.read(sketch.cedar()),
        )
        for position, sketch in enumerate(sketches)
    ]


def _bundle(sketches: Sequence[Sketch]) -> PolicyBundle:
    return PolicyBundle(_bound(sketches), KNOWN)


def _whole(rules: Sequence[BoundRule], asked: Question) -> tuple[bool, set[str], set[str]]:
    """What Cedar says of all rules that bind these namespaces, evaluated as one set with the whole context."""
    namespaces = {asked.caller_namespace, asked.destination_namespace}
    bound = [(rule.id, replace(rule.rule, reads=None)) for rule in rules if rule.binding is None or namespaces == {rule.binding}]
    subject = Index([], KNOWN).route(asked.principal, asked.action, asked.resource, asked.server, None).subject
    answer = cedar.evaluate(cedar.slice_of(bound), subject, asked.context)
    errors = {error.policy for error in answer.errors}
    if answer.forbids:
        return False, set(answer.forbids), errors
    return bool(answer.permits) and not errors, set() if errors else set(answer.permits), errors


@given(SETS, PLAIN)
@settings(max_examples=300)
def test_a_slice_answers_as_the_whole_set_does(sketches: list[Sketch], asked: Question) -> None:
    """Verdict, determining policies and errors of the sliced bundle equal those of Cedar over everything, with Observe and without."""
    rules = _bound(sketches)
    judgement = PolicyBundle(rules, KNOWN).judge(asked)
    found = (judgement.allowed, set(judgement.policies), {error.policy for error in judgement.errors})
    assert found == _whole([rule for rule in rules if not rule.observed], asked)
    whole = _whole(rules, asked)
    if judgement.observed is None:
        assert whole == found
    else:
        observed = judgement.observed
        assert (observed.allowed, set(observed.policies), {error.policy for error in observed.errors}) == whole


@given(SETS, PLAIN)
@settings(max_examples=300)
def test_the_bundle_answers_as_the_reference_does(sketches: list[Sketch], asked: Question) -> None:
    """An authoriser that knows nothing of Cedar, indexes or caches comes to the same answer."""
    enforced = [sketch for sketch in sketches if not sketch.observed]
    judgement = _bundle(enforced).judge(asked)
    allowed, determining, erring = _reference(enforced, asked)
    assert (judgement.allowed, {int(name) for name in judgement.policies}) == (allowed, determining)
    assert {int(error.policy) for error in judgement.errors} == erring
    assert judgement.forbidden is bool(determining and not allowed)


@given(SETS, SKETCHES, QUESTIONS)
def test_one_more_forbid_never_turns_a_deny_into_an_allow(sketches: list[Sketch], more: Sketch, asked: Question) -> None:
    """Whatever it forbids, whether it holds or errs, and for housekeeping too."""
    before = _bundle(sketches).judge(asked)
    after = _bundle([*sketches, replace(more, permits=False)]).judge(asked)
    assert before.allowed or not after.allowed


@given(SETS, SKETCHES, QUESTIONS)
def test_an_observe_policy_never_changes_the_answer(sketches: list[Sketch], more: Sketch, asked: Question) -> None:
    """Everything but `observed` is the same with it and without it."""
    before = _bundle(sketches).judge(asked)
    after = _bundle([*sketches, replace(more, observed=True)]).judge(asked)
    assert replace(after, observed=None) == replace(before, observed=None)


@given(SETS, QUESTIONS)
def test_an_error_is_never_an_allow(sketches: list[Sketch], asked: Question) -> None:
    """An answer with an error denies; an allow has a permit that determines it and no error."""
    judgement = _bundle(sketches).judge(asked)
    assert not (judgement.allowed and judgement.errors)
    assert not (judgement.allowed and judgement.forbidden)
    assert bool(judgement.policies) is (judgement.allowed or judgement.forbidden)


@given(SETS, QUESTIONS.map(lambda asked: replace(asked, action=Action.USE_PROTOCOL)))
def test_housekeeping_is_given_to_those_who_may_do_something(sketches: list[Sketch], asked: Question) -> None:
    """Allowed by housekeeping alone: some permit in force reaches an operation at the destination; and it is the one named."""
    enforced = [sketch for sketch in sketches if not sketch.observed]
    judgement = _bundle(enforced).judge(asked)
    allowed, determining, erring = _reference(enforced, asked)
    if determining or erring:
        assert judgement.allowed is allowed
        return
    named = {enforced[int(name)] for name in judgement.policies}
    assert judgement.allowed is bool(named)
    namespaces = {asked.caller_namespace, asked.destination_namespace}
    for sketch in named:
        assert sketch.permits
        assert sketch.namespace is None or namespaces == {sketch.namespace}
        assert _is_in_scope(sketch.scope.principal, asked.principal, None)
        entity = sketch.scope.resource.entity
        assert entity is None or entity == asked.resource or entity.id.startswith(f"{asked.resource.id}/")


def test_the_same_route_is_made_once_and_many_routes_do_not_pile_up() -> None:
    policies = world.compiled('permit (principal, action == Hopgate::Action::"CallTool", resource in Hopgate::ToolServer::"demo/open");')
    asked = [world.question(Action.CALL_TOOL, Entity("Tool", f"demo/open/t{number}")) for number in range(5_000)]
    assert all(policies.judge(each).allowed for each in asked)
    assert all(policies.judge(asked[0]).allowed for _ in range(3))
    cached = policies._route.cache_info()
    assert (cached.currsize, cached.hits) == (4_096, 2)


@pytest.mark.parametrize("count", [pytest.param(2, id="two"), pytest.param(40, id="forty")])
def test_only_policies_that_can_match_are_in_the_slice(count: int) -> None:
    texts = [
        f'permit (principal == Hopgate::Agent::"demo/a{number}", action == Hopgate::Action::"CallTool", resource);'
        for number in range(count)
    ]
    policies = [Policy(namespace="demo", name=f"p{number}", cedar=text, mode=PolicyMode.ENFORCE) for number, text in enumerate(texts)]
    rules = [
        BoundRule(id=str(policy), policy=str(policy), binding="demo", observed=False, rule=cedar.read(policy.cedar)) for policy in policies
    ]
    route = Index(rules, world.registry(agents=[f"a{number}" for number in range(count)])).route(
        Entity("Agent", "demo/a1"), Action.CALL_TOOL, world.SEARCH_TOOL, world.TICKETS, "demo"
    )
    assert route.enforced is not None
    assert route.enforced.ids == ("demo/p1",)
    assert route.observed is None
