"""The adapter to Cedar: reading, validating, what a policy reads of the context, and answers that fail."""

from __future__ import annotations

import json

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopgate.policy import cedar, schema
from hopgate.policy.errors import CedarSchemaError, CedarSyntaxError
from hopgate.policy.question import ContextValue, Entity
from tests.hopgate.policy import world

HEAD = "permit (principal, action, resource)"
SUBJECT = cedar.subject(world.PLANNER, "CallTool", world.SEARCH_TOOL, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "expected one policy, found 0", id="nothing"),
        pytest.param(f"{HEAD}; {HEAD};", "expected one policy, found 2", id="two"),
        pytest.param("permit (principal == ?principal, action, resource);", "a template", id="a template"),
        pytest.param(f'@id("a") @id("b") {HEAD};', "duplicate annotation: @id", id="two ids"),
        pytest.param(f"{HEAD} when {{ {'&&'.join(['true'] * 150)} }};", "nesting exceeds", id="deeper than cedarpy shows"),
        pytest.param(f'{HEAD} when {{ "\ud800" == "a" }};', "surrogates not allowed", id="half of a surrogate pair"),
    ],
)
def test_what_is_not_one_policy_is_refused(text: str, message: str) -> None:
    with pytest.raises(CedarSyntaxError, match=message):
        cedar.read(text)


def test_a_policy_is_read_into_values() -> None:
    rule = cedar.read(f'@id("a") @why("b") {HEAD};')
    assert (rule.permits, rule.annotations) == (True, {"id": "a", "why": "b"})
    assert cedar.read("forbid (principal, action, resource);").permits is False


@pytest.mark.parametrize(
    ("condition", "reads"),
    [
        pytest.param("true", set(), id="nothing"),
        pytest.param("context.now < 5", {"now"}, id="an attribute"),
        pytest.param('context["now"] < 5', {"now"}, id="an attribute by index"),
        pytest.param("context.chain.depth < 5", {"chain"}, id="an attribute of an attribute"),
        pytest.param("context has onBehalfOf && context.now < 5", {"onBehalfOf", "now"}, id="has"),
        pytest.param("context has onBehalfOf.user", {"onBehalfOf"}, id="has along a path"),
        pytest.param("[1, {a: context.now}.a].contains(5)", {"now"}, id="inside sets and records"),
        pytest.param('if context.http.method like "G*" then true else context.now == 1', {"http", "now"}, id="inside if and like"),
        pytest.param("context == {now: 5}", None, id="the context as a whole"),
        pytest.param("(if true then context else context).now == 1", None, id="the context by a detour"),
    ],
)
def test_it_is_known_what_a_policy_reads_of_the_context(condition: str, reads: set[str] | None) -> None:
    assert cedar.read(f"{HEAD} when {{ {condition} }};").reads == reads
    assert cedar.read(f"{HEAD} unless {{ {condition} }};").reads == reads


def test_what_several_policies_read_adds_up() -> None:
    now = cedar.read(f"{HEAD} when {{ context.now == 1 }};")
    http = cedar.read(f'{HEAD} when {{ context.http.method == "GET" }};')
    whole = cedar.read(f"{HEAD} when {{ context == {{}} }};")
    assert cedar.slice_of([("a", now), ("b", http)]).reads == ("http", "now")
    assert cedar.slice_of([("a", now), ("b", whole)]).reads is None


@pytest.mark.parametrize(
    ("text", "impossible"),
    [
        pytest.param(f"{HEAD} when {{ false }};", True, id="false"),
        pytest.param(f"{HEAD} when {{ true }};", False, id="true"),
        pytest.param(f"{HEAD} unless {{ true }};", True, id="unless true"),
        pytest.param(f"{HEAD} when {{ principal is Hopgate::Tool }};", True, id="a principal that is a tool"),
        pytest.param(f"{HEAD} when {{ resource is Hopgate::Tool }};", False, id="a resource that is a tool"),
        pytest.param(f"{HEAD} when {{ context.now < 0 && false }};", True, id="something and false"),
        pytest.param(f"{HEAD} when {{ context.now < 0 || false }};", False, id="something or false"),
        pytest.param(
            'permit (principal, action == Hopgate::Action::"ListTools", resource) when { context has arguments };',
            True,
            id="an attribute that the action lacks",
        ),
        pytest.param(
            'permit (principal, action == Hopgate::Action::"CallTool", resource) when { context has arguments };',
            False,
            id="an attribute that the action has",
        ),
        pytest.param(f"{HEAD} // when\n;", False, id="a comment before the semicolon"),
    ],
)
def test_a_rule_that_can_never_match_is_known(text: str, impossible: bool) -> None:
    assert cedar.validate(text, schema.text()) == ()
    assert cedar.is_impossible(text, schema.text()) is impossible


def test_a_schema_that_is_none_is_refused() -> None:
    with pytest.raises(CedarSchemaError):
        cedar.validate(f"{HEAD};", "namespace {")


def test_a_message_of_cedar_is_cut_and_has_no_control_characters() -> None:
    rules = cedar.slice_of([("a", cedar.read(f"{HEAD} when {{ context.now == 1 }};"))])
    error = cedar.evaluate(
        rules, cedar.subject(Entity("Agent", "a"), "CallTool", Entity("Tool", "x"), []), {"now": {"__expr": "x\n" * 500}}
    ).errors[0]
    assert error.message.isprintable()
    missing = cedar.slice_of([("a", cedar.read(f"{HEAD} when {{ context.{'x' * 500} == 1 }};"))])
    answer = cedar.evaluate(missing, SUBJECT, {})
    assert (answer.permits, answer.forbids) == ((), ())
    assert len(answer.errors[0].message) <= 300


VALUES = st.recursive(
    st.booleans() | st.integers(min_value=-(2**70), max_value=2**70) | st.text(max_size=8) | st.characters(categories=["Cs"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.sampled_from(["__entity", "__extn", "__expr"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(VALUES)
def test_any_context_gives_an_answer(value: ContextValue) -> None:
    """A permit, or an error that says why: evaluating raises nothing, and an error never comes with a forbid that is none."""
    rules = cedar.slice_of([("a", cedar.read(f"{HEAD} when {{ context == {{}} || true }};"))])
    answer = cedar.evaluate(rules, SUBJECT, {"value": value})
    assert answer.forbids == ()
    assert bool(answer.permits) is not bool(answer.errors)


@given(st.text(max_size=20), st.text(max_size=20).filter(lambda text: text.isprintable()))
def test_an_entitys_id_may_hold_any_characters(one: str, other: str) -> None:
    """An id of a request is compared as it is, whatever it would mean in Cedar's text."""
    text = json.dumps(other, ensure_ascii=False)
    rules = cedar.slice_of([("a", cedar.read(f"permit (principal == Hopgate::Agent::{text}, action, resource);"))])
    answer = cedar.evaluate(rules, cedar.subject(Entity("Agent", one), "CallTool", world.SEARCH_TOOL, []), {})
    assert answer.errors == ()
    assert bool(answer.permits) is (one == other)


def test_the_version_of_cedarpy_is_the_one_whose_behaviour_was_examined() -> None:
    """Finding impossible policies, and the bounds that keep its parser's stack whole, rest on how this version behaves."""
    assert cedarpy.PolicySet.from_str("").to_pst().static_policies == {}
    assert cedar.is_impossible(f"{HEAD} when {{ false }};", schema.text())
