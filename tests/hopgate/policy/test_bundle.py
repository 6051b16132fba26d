"""The bundle: what is allowed, what is denied and why, what Observe policies would have done, and whom a namespaced policy binds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hopgate.policy import bundle
from hopgate.policy.question import Action, ContextValue, Entity, Question
from hopgate.resources.kinds import PolicyMode
from tests.hopgate.policy import world
from tests.hopgate.policy.world import EXAMPLE, OPENAI, OUTSIDER, PERMIT_ALL, PLANNER, RESEARCHER, SEARCH_TOOL, SMALL_MODEL, TICKETS

CALL = world.question(Action.CALL_TOOL, SEARCH_TOOL)
SEND = world.question(Action.SEND_MESSAGE, RESEARCHER)
USER: dict[str, ContextValue] = {"user": "ann", "issuer": "https://idp.example.com", "groups": ["staff"]}


def _with(question: Question, **parts: ContextValue) -> Question:
    return replace(question, context={**question.context, **parts})


@pytest.mark.parametrize(
    ("limit", "allowed"), [pytest.param(100, True, id="at the limit"), pytest.param(101, False, id="one above the limit")]
)
def test_the_example_of_the_design_allows_up_to_its_limit(limit: int, allowed: bool) -> None:
    judgement = world.compiled(world.policy(EXAMPLE)).judge(_with(CALL, arguments={"limit": limit}))
    assert judgement.allowed is allowed
    assert judgement.policies == (("demo/it/planner-reads-tickets",) if allowed else ())
    assert judgement.errors == ()


def test_an_empty_set_of_policies_denies() -> None:
    judgement = world.compiled().judge(CALL)
    assert (judgement.allowed, judgement.forbidden, judgement.policies) == (False, False, ())


def test_a_permit_allows_and_a_forbid_beside_it_wins() -> None:
    permit = world.policy(PERMIT_ALL, name="yes")
    forbid = world.policy('@id("stop") forbid (principal, action == Hopgate::Action::"CallTool", resource);', name="no")
    assert world.compiled(permit).judge(CALL).allowed
    judgement = world.compiled(permit, forbid).judge(CALL)
    assert (judgement.allowed, judgement.forbidden, judgement.policies) == (False, True, ("demo/no/stop",))


def test_the_lack_of_a_permit_is_told_from_a_forbid() -> None:
    permit_other = 'permit (principal == Hopgate::Agent::"demo/researcher", action, resource);'
    assert world.compiled(permit_other).judge(CALL).forbidden is False
    assert world.compiled(permit_other, "forbid (principal, action, resource);").judge(CALL).forbidden is True


@pytest.mark.parametrize(
    "failing",
    [
        pytest.param("forbid (principal, action, resource) when { context.now + 1 == 5 };", id="a forbid that errs"),
        pytest.param("permit (principal, action, resource) when { context.now + 1 == 5 };", id="a permit that errs beside a good one"),
    ],
)
def test_a_policy_that_errs_denies_and_is_named(failing: str) -> None:
    whole = world.compiled(PERMIT_ALL, failing)
    assert whole.judge(world.question(Action.CALL_TOOL, SEARCH_TOOL, now=1)).allowed
    judgement = whole.judge(world.question(Action.CALL_TOOL, SEARCH_TOOL, now=2**63 - 1))
    assert (judgement.allowed, judgement.forbidden, judgement.policies) == (False, False, ())
    assert [error.policy for error in judgement.errors] == ["p1/0"]
    assert "overflow" in judgement.errors[0].message


def test_a_forbid_that_holds_is_named_beside_an_error() -> None:
    judgement = world.compiled(
        PERMIT_ALL, "forbid (principal, action, resource) when { context.now * 2 == 5 };", "forbid (principal, action, resource);"
    ).judge(world.question(Action.CALL_TOOL, SEARCH_TOOL, now=2**63 - 1))
    assert (judgement.allowed, judgement.forbidden, judgement.policies) == (False, True, ("p2/0",))
    assert judgement.errors


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [
        pytest.param(5, True, id="an integer"),
        pytest.param(2**63, False, id="an integer that Cedar can't hold"),
        pytest.param("\ud800", False, id="half of a surrogate pair"),
        pytest.param({"__entity": {"type": "Hopgate::Agent", "id": "demo/planner"}}, False, id="an entity in JSON's clothes"),
        pytest.param({"__extn": {"fn": "ip", "arg": "127.0.0.1"}}, False, id="an extension value in JSON's clothes"),
        pytest.param([{"__expr": "1"}], False, id="an expression in JSON's clothes, in an array"),
    ],
)
def test_a_context_that_cedar_can_not_hold_denies_with_an_error(limit: ContextValue, allowed: bool) -> None:
    judgement = world.compiled(world.policy(EXAMPLE)).judge(_with(CALL, arguments={"limit": limit}))
    assert judgement.allowed is allowed
    assert bool(judgement.errors) is not allowed


def test_a_string_that_spells_an_escape_is_only_a_string() -> None:
    text = '{"__entity": {"type": "x", "id": "__entity"}}'
    judgement = world.compiled(f"permit (principal, action, resource == Hopgate::Agent::{_quoted('demo/researcher')});").judge(
        _with(SEND, onBehalfOf={**USER, "user": text})
    )
    assert judgement.allowed
    reads_user = world.compiled(
        'permit (principal, action, resource) when { context has onBehalfOf && context.onBehalfOf.user like "{*" };'
    )
    assert reads_user.judge(_with(SEND, onBehalfOf={**USER, "user": text})).allowed


def _quoted(text: str) -> str:
    return f'"{text}"'


@pytest.mark.parametrize(
    ("question", "allowed"),
    [
        pytest.param(CALL, True, id="caller and destination in its namespace"),
        pytest.param(world.question(Action.CALL_TOOL, SEARCH_TOOL, principal=OUTSIDER), False, id="caller in another namespace"),
        pytest.param(world.question(Action.LIST_TOOLS, world.OTHER_SERVER), False, id="destination in another namespace"),
        pytest.param(world.question(Action.LIST_TOOLS, world.OTHER_SERVER, principal=OUTSIDER), False, id="both in another namespace"),
    ],
)
def test_a_namespaced_permit_binds_only_its_own_namespace(question: Question, allowed: bool) -> None:
    assert world.compiled(world.policy(PERMIT_ALL)).judge(question).allowed is allowed
    assert world.compiled(world.policy(PERMIT_ALL, namespace=None)).judge(question).allowed


def test_a_namespaced_forbid_does_not_reach_into_another_namespace() -> None:
    forbid = "forbid (principal, action, resource);"
    elsewhere = world.question(Action.LIST_TOOLS, world.OTHER_SERVER, principal=OUTSIDER)
    both = world.compiled(world.policy(PERMIT_ALL, namespace=None, name="yes"), world.policy(forbid, name="no"))
    assert both.judge(elsewhere).allowed
    assert both.judge(CALL).policies == ("demo/no/0",)


@pytest.mark.parametrize(
    ("observe", "allowed", "policies"),
    [
        pytest.param("forbid (principal, action, resource);", False, ("demo/watch/0",), id="a forbid would have denied"),
        pytest.param("permit (principal, action, resource);", True, ("demo/it/0", "demo/watch/0"), id="a permit would have agreed"),
    ],
)
def test_an_observe_policy_is_told_and_changes_nothing(observe: str, allowed: bool, policies: tuple[str, ...]) -> None:
    judgement = world.compiled(world.policy(PERMIT_ALL), world.policy(observe, name="watch", mode=PolicyMode.OBSERVE)).judge(CALL)
    assert (judgement.allowed, judgement.policies, judgement.forbidden) == (True, ("demo/it/0",), False)
    assert judgement.observed is not None
    assert (judgement.observed.allowed, judgement.observed.policies) == (allowed, policies)


def test_an_observe_permit_alone_allows_nothing() -> None:
    judgement = world.compiled(world.policy(PERMIT_ALL, mode=PolicyMode.OBSERVE)).judge(CALL)
    assert (judgement.allowed, judgement.policies) == (False, ())
    assert judgement.observed is not None
    assert judgement.observed.allowed


def test_an_observe_policy_that_errs_is_told_only_beside_the_answer() -> None:
    failing = world.policy("forbid (principal, action, resource) when { context.now * 2 == 5 };", name="watch", mode=PolicyMode.OBSERVE)
    judgement = world.compiled(world.policy(PERMIT_ALL), failing).judge(world.question(Action.CALL_TOOL, SEARCH_TOOL, now=2**63 - 1))
    assert (judgement.allowed, judgement.errors) == (True, ())
    assert judgement.observed is not None
    assert judgement.observed.allowed is False
    assert [error.policy for error in judgement.observed.errors] == ["demo/watch/0"]


def test_nothing_is_observed_where_no_observe_policy_could_match() -> None:
    elsewhere = world.policy(
        'forbid (principal, action == Hopgate::Action::"InvokeModel", resource);', name="watch", mode=PolicyMode.OBSERVE
    )
    policies = world.compiled(world.policy(PERMIT_ALL), elsewhere)
    assert policies.judge(CALL).observed is None
    assert policies.judge(world.question(Action.INVOKE_MODEL, SMALL_MODEL)).observed is not None


def _permit(action: str, resource: str, effect: str = "permit") -> str:
    return f'{effect} (principal == Hopgate::Agent::"demo/planner", {action}, {resource});'


@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        pytest.param(
            _permit('action == Hopgate::Action::"CallTool"', 'resource == Hopgate::Tool::"demo/tickets/search"'), True, id="one tool"
        ),
        pytest.param(
            _permit('action == Hopgate::Action::"CallTool"', 'resource in Hopgate::ToolServer::"demo/tickets"'), True, id="all its tools"
        ),
        pytest.param(_permit('action == Hopgate::Action::"CallTool"', "resource is Hopgate::Tool"), True, id="any tool"),
        pytest.param(
            _permit("action", 'resource is Hopgate::Tool in Hopgate::ToolServer::"demo/tickets"'), True, id="any action on its tools"
        ),
        pytest.param(
            _permit('action == Hopgate::Action::"ListTools"', 'resource == Hopgate::ToolServer::"demo/tickets"'), True, id="its list"
        ),
        pytest.param(_permit("action", "resource"), True, id="anything anywhere"),
        pytest.param(
            _permit('action == Hopgate::Action::"CallTool"', 'resource == Hopgate::Tool::"demo/open/search"'),
            False,
            id="another server's tool",
        ),
        pytest.param(
            _permit(
                'action in [Hopgate::Action::"CallTool", Hopgate::Action::"Connect"]', 'resource == Hopgate::ToolServer::"demo/tickets"'
            ),
            False,
            id="a connection to the server itself, listed beside tools",
        ),
        pytest.param(_permit('action == Hopgate::Action::"SendMessage"', "resource"), False, id="messages, which no tool server takes"),
        pytest.param(_permit('action == Hopgate::Action::"InvokeModel"', "resource"), False, id="models, which no tool server has"),
        pytest.param(_permit('action == Hopgate::Action::"Connect"', "resource"), False, id="a connection that the gate can't look into"),
        pytest.param(
            'permit (principal == Hopgate::Agent::"demo/researcher", action, resource);', False, id="another agent may do everything"
        ),
    ],
)
def test_whoever_may_do_anything_at_a_destination_may_do_its_housekeeping(rule: str, allowed: bool) -> None:
    judgement = world.compiled(rule).judge(world.question(Action.USE_PROTOCOL, TICKETS))
    assert judgement.allowed is allowed
    assert judgement.policies == (("p0/0",) if allowed else ())


@pytest.mark.parametrize(
    ("resource", "rule"),
    [
        pytest.param(
            RESEARCHER, _permit('action == Hopgate::Action::"SendMessage"', 'resource == Hopgate::Agent::"demo/researcher"'), id="agent"
        ),
        pytest.param(
            OPENAI, _permit('action == Hopgate::Action::"InvokeModel"', 'resource == Hopgate::Model::"demo/openai/org/large"'), id="model"
        ),
    ],
)
def test_housekeeping_goes_by_what_the_kind_of_destination_offers(resource: Entity, rule: str) -> None:
    policies = world.compiled(rule)
    assert policies.judge(world.question(Action.USE_PROTOCOL, resource)).allowed
    assert not policies.judge(world.question(Action.USE_PROTOCOL, TICKETS)).allowed


def test_a_prefix_of_a_servers_name_is_not_that_server() -> None:
    known = world.registry()
    rule = _permit('action == Hopgate::Action::"CallTool"', 'resource == Hopgate::Tool::"demo/tickets/search"')
    policies = world.compiled(rule, known=known)
    assert policies.judge(world.question(Action.USE_PROTOCOL, TICKETS)).allowed
    assert not policies.judge(world.question(Action.USE_PROTOCOL, Entity("ToolServer", "demo/tick"))).allowed


def test_a_forbid_on_housekeeping_wins_over_the_right_to_do_something() -> None:
    forbid = 'forbid (principal, action == Hopgate::Action::"UseProtocol", resource);'
    judgement = world.compiled(PERMIT_ALL, forbid).judge(world.question(Action.USE_PROTOCOL, TICKETS))
    assert (judgement.allowed, judgement.forbidden, judgement.policies) == (False, True, ("p1/0",))


def test_a_forbid_on_one_tool_leaves_the_housekeeping() -> None:
    tools = _permit('action == Hopgate::Action::"CallTool"', "resource")
    forbid = _permit('action == Hopgate::Action::"CallTool"', 'resource == Hopgate::Tool::"demo/tickets/search"', "forbid")
    assert world.compiled(tools, forbid).judge(world.question(Action.USE_PROTOCOL, TICKETS)).policies == ("p0/0",)


def test_an_explicit_permit_of_housekeeping_is_what_determines_it() -> None:
    explicit = _permit('action == Hopgate::Action::"UseProtocol"', "resource")
    judgement = world.compiled(_permit('action == Hopgate::Action::"ListTools"', "resource"), explicit).judge(
        world.question(Action.USE_PROTOCOL, TICKETS)
    )
    assert judgement.policies == ("p1/0",)


def test_housekeeping_is_denied_when_a_rule_on_it_errs() -> None:
    failing = 'forbid (principal, action == Hopgate::Action::"UseProtocol", resource) when { context.now * 2 == 5 };'
    policies = world.compiled(_permit('action == Hopgate::Action::"ListTools"', "resource"), failing)
    assert policies.judge(world.question(Action.USE_PROTOCOL, TICKETS)).allowed
    judgement = policies.judge(world.question(Action.USE_PROTOCOL, TICKETS, now=2**63 - 1))
    assert not judgement.allowed
    assert judgement.errors


def test_an_observe_permit_gives_no_housekeeping_but_is_told() -> None:
    rule = _permit('action == Hopgate::Action::"ListTools"', "resource")
    judgement = world.compiled(world.policy(rule, mode=PolicyMode.OBSERVE)).judge(world.question(Action.USE_PROTOCOL, TICKETS))
    assert not judgement.allowed
    assert judgement.observed is not None
    assert (judgement.observed.allowed, judgement.observed.policies) == (True, ("demo/it/0",))


def test_an_observe_forbid_on_housekeeping_is_told_and_changes_nothing() -> None:
    watch = world.policy('forbid (principal, action == Hopgate::Action::"UseProtocol", resource);', name="watch", mode=PolicyMode.OBSERVE)
    judgement = world.compiled(world.policy(_permit('action == Hopgate::Action::"ListTools"', "resource")), watch).judge(
        world.question(Action.USE_PROTOCOL, TICKETS)
    )
    assert judgement.allowed
    assert judgement.observed is not None
    assert (judgement.observed.allowed, judgement.observed.policies) == (False, ("demo/watch/0",))


def test_a_namespaced_permit_gives_housekeeping_only_inside_its_namespace() -> None:
    policies = world.compiled(world.policy('permit (principal, action == Hopgate::Action::"ListTools", resource);'))
    assert policies.judge(world.question(Action.USE_PROTOCOL, TICKETS)).allowed
    assert not policies.judge(world.question(Action.USE_PROTOCOL, TICKETS, principal=OUTSIDER)).allowed


@pytest.mark.parametrize(
    ("condition", "question"),
    [
        pytest.param('principal.owner == "team-a"', None, id="owner"),
        pytest.param('principal.namespace == "demo" && principal.name == "planner"', None, id="caller's name"),
        pytest.param('resource.name like "sea*"', None, id="tool's name"),
        pytest.param('resource in Hopgate::ToolServer::"demo/tickets"', None, id="tool's server"),
        pytest.param("resource.namespace == principal.namespace", world.question(Action.LIST_TOOLS, TICKETS), id="same namespace"),
        pytest.param(
            'resource.name == "org/large"', world.question(Action.INVOKE_MODEL, Entity("Model", "demo/openai/org/large")), id="model"
        ),
    ],
)
def test_policies_read_the_entities_attributes(condition: str, question: Question | None) -> None:
    asked = question or CALL
    action = f'action == Hopgate::Action::"{asked.action}"'
    has_owner = "principal has owner && " if "owner" in condition else ""
    assert world.compiled(f"permit (principal, {action}, resource) when {{ {has_owner}{condition} }};").judge(asked).allowed
    assert not world.compiled(f"permit (principal, {action}, resource) unless {{ {has_owner}{condition} }};").judge(asked).allowed


def test_an_agent_without_owner_has_none() -> None:
    policies = world.compiled("permit (principal, action, resource) when { principal has owner };")
    assert policies.judge(CALL).allowed
    assert not policies.judge(replace(CALL, principal=RESEARCHER)).allowed


def test_a_resource_of_free_form_is_judged_by_its_id() -> None:
    policies = world.compiled('permit (principal, action == Hopgate::Action::"ResolveName", resource == Hopgate::Host::"a\\"b");')
    assert policies.judge(world.question(Action.RESOLVE_NAME, Entity("Host", 'a"b'))).allowed
    assert not policies.judge(world.question(Action.RESOLVE_NAME, Entity("Host", "ab"))).allowed


def test_the_digest_names_ids_modes_and_text_and_not_their_order() -> None:
    one, two = world.policy(PERMIT_ALL, name="a"), world.policy("forbid (principal, action, resource);", name="b")
    digest = world.compiled(one, two).digest
    assert len(digest) == 64
    assert world.compiled(two, one).digest == digest
    changed = [
        [one],
        [replace(one, name="c"), two],
        [replace(one, namespace=None), two],
        [replace(one, mode=PolicyMode.OBSERVE), two],
        [replace(one, cedar='@id("0") ' + PERMIT_ALL), two],
    ]
    assert len({digest, *(world.compiled(*policies).digest for policies in changed)}) == 6


def test_a_bundle_tells_its_size_and_no_more() -> None:
    policies = world.compiled(PERMIT_ALL, EXAMPLE)
    assert policies.size == 2
    assert repr(policies) == f"PolicyBundle(size=2, digest='{policies.digest}')"


def test_a_result_is_a_bundle_or_mistakes() -> None:
    good = bundle.compile([world.policy(PERMIT_ALL)], world.registry())
    bad = bundle.compile([world.policy(PERMIT_ALL), world.policy("permit", name="bad")], world.registry())
    assert good.bundle is not None
    assert good.mistakes == ()
    assert bad.bundle is None
    assert len(bad.mistakes) == 1


def test_a_question_of_an_unregistered_agent_finds_no_attributes_and_errs() -> None:
    policies = world.compiled('permit (principal, action, resource) when { principal.name == "x" };')
    assert not policies.judge(replace(CALL, principal=PLANNER)).allowed
    strange = policies.judge(replace(CALL, principal=Entity("Agent", "Not A Name")))
    assert not strange.allowed
    assert strange.errors
